"""Living through a year: the crowd, the world and the invariants at each stop."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import invariants, revenue
from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import engine, session_scope
from openclaw_web.integrations import payment_books
from openclaw_web.local.hops import hops
from tests.flows import year_world
from tests.flows.lived import Lived
from tests.flows.year_people import STORIES, Crowd, Person, statuses
from tests.flows.year_world import GRAIN, LEAP_JANUARY, World

BOOKS_EVERY = timedelta(days=30)


async def live(
    stripe_url: str,
    *,
    customers: int,
    span: timedelta,
    share: tuple[int, int] = (0, 1),
    tell: Callable[[str], None] = lambda _line: None,
    sabotage: str = "",
) -> Lived:
    """Let time pass for so many customers; stops at the first thing that is wrong.

    `share` leaves some of them to other worlds: the number of this one, and how many there are.
    `sabotage` names what is broken halfway: then something must be wrong.
    """
    began = time.monotonic()
    async with year_world.opened(stripe_url) as stripe:
        crowd = Crowd(stripe, customers=customers, starts=LEAP_JANUARY, share=share)
        lived = Lived(customers=len(crowd.people), days=span.days)
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
        lived.happened, lived.noticed = await happened(), await noticed(lived.wrong)
    _count(lived, world, crowd)
    lived.seconds = time.monotonic() - began
    lived.seconds_by_part = {"checking": checked}
    return lived


def _count(lived: Lived, world: World, crowd: Crowd) -> None:
    lived.hops, lived.syncs, lived.webhooks = world.hops, world.syncs, world.webhooks
    lived.deeds, lived.tokens = dict(crowd.done), crowd.tokens


async def break_something(name: str) -> None:
    """Break what one invariant protects, as a bug of ours might."""
    async with session_scope() as session:
        await _break(session, name)


async def _break(session: AsyncSession, name: str) -> None:
    for statement in SABOTAGE[name].split(";"):
        await (await session.connection()).execute(sa.text(statement))


async def noticed(wrong_already: Sequence[str] = ()) -> list[str]:
    """Break each thing in turn and roll it back; returns what the invariants noticed.

    The clock stands at the end: whatever has a date is broken a few hours before it. Where
    something is wrong already, nothing can be learnt from that.
    """
    if wrong_already:
        return []
    found = []
    theirs = await payment_books.paid_invoices()
    for name in SABOTAGE:
        async with AsyncSession(engine()) as session:
            await _break(session, name)
            wrong = await invariants.check(session, await business_now(session))
            wrong += invariants.judge_books(await revenue.booked_here(session), theirs)
            await session.rollback()
        if wrong:
            found.append(name)
    return found


# Who pays on three such days one after the other.
_ANCHORS = """
    FROM invoices one JOIN invoices two USING (subscription_id)
    JOIN invoices three USING (subscription_id)
    WHERE one.status = 'paid' AND two.status = 'paid' AND three.status = 'paid'
          AND (one.period_start AT TIME ZONE 'UTC')::date = '{}'
          AND (two.period_start AT TIME ZONE 'UTC')::date = '{}'
          AND (three.period_start AT TIME ZONE 'UTC')::date = '{}'"""
# What a year is to contain, as our own tables tell it.
_HAPPENED = {
    "renewals": "FROM email_outbox WHERE kind = 'renewal_receipt'",
    "failed cards": "FROM email_outbox WHERE kind = 'payment_failed'",
    "suspensions": "FROM email_outbox WHERE kind = 'suspended'",
    "recoveries": "FROM email_outbox WHERE kind IN ('reactivated', 'payment_thanks')",
    "upgrades": "FROM audit_logs WHERE action = 'plan.upgraded'",
    "downgrades": "FROM audit_logs WHERE action = 'plan.downgrade_set'",
    "downgrades undone": "FROM audit_logs WHERE action = 'plan.downgrade_undone'",
    "cancellations": "FROM audit_logs WHERE action = 'plan.cancelled'",
    "cancellations undone": "FROM audit_logs WHERE action = 'plan.cancel_undone'",
    "refunds": "FROM reversals WHERE finished_at IS NOT NULL AND refunded_cents > 0",
    "disputes": "FROM audit_logs WHERE action = 'hold.placed.dispute'",
    "boxes deleted": "FROM boxes WHERE destroyed_at IS NOT NULL",
    "anchors on the 31st": _ANCHORS.format("2028-01-31", "2028-02-29", "2028-03-31"),
    "anchors on the leap day": _ANCHORS.format("2028-02-29", "2028-03-29", "2028-04-29"),
}
_COUNTS = sa.text(
    " UNION ALL ".join(
        f"SELECT '{name}' AS name, count(*) AS count {source}" for name, source in _HAPPENED.items()
    )
)


async def happened() -> dict[str, int]:
    """Return how often each thing happened that a year is to contain."""
    async with session_scope() as session:
        rows = await (await session.connection()).execute(_COUNTS)
        return {row[0]: row[1] for row in rows}


TRIPPED = sa.text("SELECT code, first_seen_at FROM alerts WHERE code LIKE 'brake\\_%'")
# Each breaks one invariant of money, in the order of `billing/invariants.py`.
SABOTAGE = {
    "invoice": """
        DELETE FROM invoices WHERE stripe_invoice_id = (
            SELECT stripe_invoice_id FROM invoices WHERE status = 'paid'
            ORDER BY paid_at LIMIT 1)""",
    "second": """
        DROP INDEX subscriptions_one_live;
        INSERT INTO subscriptions SELECT (jsonb_populate_record(live, jsonb_build_object(
            'id', gen_random_uuid(), 'stripe_subscription_id', NULL))).*
        FROM subscriptions live WHERE status = 'active' LIMIT 1""",
    "overlap": """
        UPDATE usage_monthly SET period_end = period_end + interval '1 day' WHERE id = (
            SELECT one.id FROM usage_monthly one JOIN usage_monthly two
                ON two.customer_id = one.customer_id AND two.period_start = one.period_end
            LIMIT 1)""",
    "usage": """
        UPDATE usage_monthly SET tokens_used = tokens_used + 500 WHERE id = (
            SELECT id FROM usage_monthly ORDER BY period_start DESC LIMIT 1)""",
    "unpaid": """
        UPDATE invoices SET status = 'open', due_at = due_at - interval '40 days'
        WHERE stripe_invoice_id = (
            SELECT stripe_invoice_id FROM invoices JOIN subscriptions
                ON subscriptions.id = invoices.subscription_id
            WHERE invoices.status = 'paid' AND subscriptions.status = 'active'
            ORDER BY paid_at DESC LIMIT 1)""",
    "hold": """
        INSERT INTO holds (customer_id, kind, reason, created_at)
        SELECT customer_id, 'abuse', 'made up', synced_at - interval '1 day'
        FROM subscriptions WHERE status = 'active' ORDER BY synced_at LIMIT 1""",
    "deletion": """
        UPDATE boxes SET delete_after = (
            SELECT max(period_end) - interval '1 day' FROM invoices
            WHERE invoices.subscription_id = boxes.subscription_id AND status = 'paid')
        WHERE id = (SELECT id FROM boxes WHERE status = 'active' LIMIT 1)""",
    "delivery": """
        UPDATE checkouts SET delivered_at = NULL WHERE id = (
            SELECT id FROM checkouts WHERE delivered_at IS NOT NULL
            ORDER BY deliver_by LIMIT 1)""",
    "period": """
        UPDATE usage_monthly SET period_end = period_start + interval '1 day' WHERE id = (
            SELECT id FROM usage_monthly ORDER BY period_start LIMIT 1)""",
    "box": """
        UPDATE boxes SET status = 'suspended', status_changed_at = '2028-01-20' WHERE id = (
            SELECT id FROM boxes WHERE status = 'active' LIMIT 1)""",
}


async def _at_the_end(people: list[Person], span: timedelta) -> list[str]:
    """Check books and meters once more, and after a whole year how each story ended."""
    there = [one for one in people if one.id]
    async with session_scope() as session:
        tripped = await (await session.connection()).execute(TRIPPED)
    wrong = [f"{code} tripped at {at}, though all was well" for code, at in tripped]
    wrong += await year_world.findings(meters_of=[one.id for one in there], has_books=True)
    ends = await statuses(there) if span.days >= 300 else {}
    for story, found in ends.items():
        wanted: SubscriptionStatus = STORIES[story].ends
        if set(found) != {wanted.value}:
            wrong.append(f"{story!r} ended as {', '.join(found)}, not as {wanted.value}")
    return wrong
