"""Filling a laptop's database with believable customers, so that every screen shows something.

What is added are rows only: no mails, no payments, no pods. The boxes live in a cluster that no
worker serves, so nothing acts on them by itself; a job asked for by hand still would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.admin import demo_rows, demo_usage
from openclaw_web.admin.demo_people import Story, tell
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import settings
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event

MOST_CUSTOMERS = 10_000
MOST_DAYS = 730
BATCH = 2_000  # events in one statement
CHATS_PER_CUSTOMERS = 5  # one chat that nobody finished for so many customers
NUMBER = r"\.([0-9]{1,9})@example\.(?:com|org)$"

_ONE_AT_A_TIME = select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended("admin demo", 0)))


class DemoError(OpenClawError):
    """Made-up customers are not wanted here."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What was added; tokens are prompt plus completion."""

    customers: int
    boxes: int
    jobs: int
    chats: int
    events: int
    tokens: int


async def fill(session: AsyncSession, *, customers: int, days: int) -> DemoReport:
    """Add made-up customers with `days` days of history up to now, in business time.

    Customer number seven is the same person each time. The second call goes on counting, so it adds
    others and meets nobody twice.

    Raises:
        DemoError: this is production, a worker serves the demo's cluster, or a number makes no
            sense.
    """
    _check(customers, days)
    await session.exec(_ONE_AT_A_TIME)
    now = await business_now(session)
    first = await _highest_number(session) + 1
    stories = [tell(number, now=now, days=days) for number in range(first, first + customers)]
    sums = [await _add_customer(session, story, now=now, days=days) for story in stories]
    loose = customers // CHATS_PER_CUSTOMERS
    session.add_all(demo_rows.open_chats(first, loose, now=now))
    await session.flush()
    return DemoReport(
        customers=len(stories),
        boxes=len(stories),
        jobs=sum(one.jobs for one in sums),
        chats=len(stories) + loose,
        events=sum(one.events for one in sums),
        tokens=sum(one.tokens for one in sums),
    )


@dataclass(frozen=True)
class _Added:
    jobs: int
    events: int
    tokens: int


def _check(customers: int, days: int) -> None:
    if settings().is_production:
        raise DemoError("Made-up customers are for a laptop; this is production.")
    if settings().cluster_name == demo_rows.CLUSTER:
        raise DemoError(
            f"CLUSTER_NAME is {demo_rows.CLUSTER!r}, the name of the made-up customers' cluster."
        )
    if not (0 < customers <= MOST_CUSTOMERS and 0 < days <= MOST_DAYS):
        raise DemoError(
            f"Ask for 1 to {MOST_CUSTOMERS} customers and 1 to {MOST_DAYS} days of history."
        )


async def _highest_number(session: AsyncSession) -> int:
    number = sa.cast(sa.func.substring(col(Customer.email), NUMBER), sa.Integer())
    return await session.scalar(sa.select(sa.func.coalesce(sa.func.max(number), 0))) or 0


async def _add_customer(session: AsyncSession, story: Story, *, now: datetime, days: int) -> _Added:
    """Add one customer, from the account down to the last request."""
    since = max(story.began_at, now - timedelta(days=days))
    periods = demo_usage.periods_between(story, since)
    events = demo_usage.requests(story, periods, since=since)
    jobs = demo_rows.jobs(story)
    # Each table's rows after those that they point to.
    for rows in (
        [demo_rows.customer(story)],
        [*demo_rows.account(story), demo_rows.sync(story), demo_rows.subscription(story)],
        [demo_rows.box(story, events)],
        [*demo_rows.box_details(story), *jobs, demo_rows.finished_chat(story)],
    ):
        session.add_all(rows)
        await session.flush()
    for period in periods:
        await metering.open_period(
            session,
            customer_id=story.customer_id,
            period_start=period.start,
            period_end=period.end,
            tokens_limit=period.limit,
        )
    await _settle(session, events)
    return _Added(len(jobs), len(events), sum(event.total_tokens for event in events))


async def _settle(session: AsyncSession, events: Sequence[Event]) -> None:
    for start in range(0, len(events), BATCH):
        settled = await metering.settle(session, events[start : start + BATCH])
        if settled.rejected:
            raise DemoError(f"The ledger refused {len(settled.rejected)} made-up requests.")
