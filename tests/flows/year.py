"""Living through a year: the crowd, the world and the invariants at each stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa

from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.core.database import session_scope
from openclaw_web.local.hops import hops
from tests.flows import year_world
from tests.flows.year_people import STORIES, Crowd, Person, statuses
from tests.flows.year_world import GRAIN, LEAP_JANUARY, World

BOOKS_EVERY = timedelta(days=30)


@dataclass
class Lived:
    """What a simulated time came to."""

    customers: int
    days: int
    hops: int = 0
    syncs: int = 0
    webhooks: int = 0
    seconds: float = 0.0
    deeds: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds_by_part: dict[str, float] = field(default_factory=dict)


async def live(
    stripe_url: str,
    *,
    customers: int,
    span: timedelta,
    tell: Callable[[str], None] = lambda _line: None,
    sabotage: str = "",
) -> Lived:
    """Let time pass for so many customers; stops at the first thing that is wrong.

    `sabotage` names what is broken halfway: then something must be wrong.
    """
    lived = Lived(customers=customers, days=span.days)
    began = time.monotonic()
    async with year_world.opened(stripe_url) as stripe:
        crowd = Crowd(stripe, customers=customers, starts=LEAP_JANUARY)
        world = World(stripe, crowd)
        await world.go_to(LEAP_JANUARY)
        books_at = LEAP_JANUARY + BOOKS_EVERY
        checked = 0.0
        async for hop in hops(world, span, grain=GRAIN):
            now = time.monotonic()
            if sabotage and hop.moment >= LEAP_JANUARY + span / 2:
                await break_something(sabotage)
                sabotage = ""
            has_books = hop.moment >= books_at
            meters = [one.id for one in crowd.people if one.id] if has_books else []
            if has_books:
                books_at = hop.moment + BOOKS_EVERY
                tell(f"{hop.moment:%Y-%m-%d}: {world.hops} stops, {world.syncs} syncs")
            lived.wrong = await year_world.findings(meters_of=meters, has_books=has_books)
            lived.wrong += hop.left
            checked += time.monotonic() - now
            if lived.wrong:
                lived.wrong = [f"at {hop.moment:%Y-%m-%d %H:%M:%S}: {one}" for one in lived.wrong]
                break
        if not lived.wrong:
            lived.wrong = await _at_the_end(crowd.people, span)
    lived.hops, lived.syncs, lived.webhooks = world.hops, world.syncs, world.webhooks
    lived.deeds, lived.tokens = dict(crowd.done), crowd.tokens
    lived.seconds = time.monotonic() - began
    lived.seconds_by_part = {"checking": checked}
    return lived


async def break_something(name: str) -> None:
    """Lose an invoice of our copy, a part of a period, or a box, as a bug of ours might."""
    async with session_scope() as session:
        await (await session.connection()).execute(sa.text(SABOTAGE[name]))


SABOTAGE = {
    "invoice": """
        DELETE FROM invoices WHERE stripe_invoice_id = (
            SELECT stripe_invoice_id FROM invoices WHERE status = 'paid'
            ORDER BY paid_at LIMIT 1)""",
    "period": """
        UPDATE usage_monthly SET period_end = period_start + interval '1 day' WHERE id = (
            SELECT id FROM usage_monthly ORDER BY period_start LIMIT 1)""",
    "box": """
        UPDATE boxes SET status = 'suspended' WHERE id = (
            SELECT id FROM boxes WHERE status = 'active' LIMIT 1)""",
}


async def _at_the_end(people: list[Person], span: timedelta) -> list[str]:
    """Check books and meters once more, and after a whole year how each story ended."""
    there = [one for one in people if one.id]
    wrong = await year_world.findings(meters_of=[one.id for one in there], has_books=True)
    ends = await statuses(there) if span.days >= 300 else {}
    for story, found in ends.items():
        wanted: SubscriptionStatus = STORIES[story].ends
        if set(found) != {wanted.value}:
            wrong.append(f"{story!r} ended as {', '.join(found)}, not as {wanted.value}")
    return wrong
