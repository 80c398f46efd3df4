"""Periods: when one starts and ends, and what it starts from."""

import calendar
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import OpenClawError
from openclaw_web.metering.models import UsageEvent, UsageEventMeta, UsageMonthly

PROVISIONAL_SHARE = 4  # an unpaid period has a quarter of its limit
MONTHS = 12
CLOCKS_APART = timedelta(days=1)  # only to find the events by their time; far more than it takes

_CUSTOMER_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class PeriodError(OpenClawError):
    """A period ends before it starts."""


def period_at(start: datetime, end: datetime, now: datetime) -> tuple[datetime, datetime]:
    """Return the period that holds `now`, given the newest one that Stripe told us.

    Later ones are counted on by Stripe's anchor rule: the same day each month, or the month's last
    where there is none. The anchor is the later day of the two: clamping only makes days earlier.
    """
    anchor = max(start.day, end.day)
    while end <= now:
        start, end = end, _a_month_later(end, anchor)
    return start, end


def provisional_limit(tokens_limit: int) -> int:
    return max(1, tokens_limit // PROVISIONAL_SHARE)


async def open_period(
    session: AsyncSession,
    *,
    customer_id: UUID,
    period_start: datetime,
    period_end: datetime,
    tokens_limit: int,
    is_provisional: bool,
) -> UsageMonthly:
    """Open a period, or complete the provisional row that the proxy opened on its own.

    When a later one has begun already within it, that one stays what counts now, and is completed.
    """
    if period_end <= period_start:
        raise PeriodError("The period ends before it starts.")
    await take_turn(session, customer_id)
    await _close_earlier(session, customer_id, period_start)
    period_start = await _begun_meanwhile(session, customer_id, period_start, period_end)
    row = insert(UsageMonthly).values(
        id=uuid4(),
        customer_id=customer_id,
        period_start=period_start,
        period_end=period_end,
        tokens_limit=tokens_limit,
        tokens_used=_ledger_sum(customer_id, period_start),
        reset_at=await business_now(session),
        is_provisional=is_provisional,
    )
    await session.exec(
        row.on_conflict_do_update(
            index_elements=["customer_id", "period_start"],
            set_=_completed(row.excluded),
            where=col(UsageMonthly.is_provisional) & ~row.excluded.is_provisional,
        )
    )
    found = await session.exec(
        select(UsageMonthly)
        .where(
            col(UsageMonthly.customer_id) == customer_id,
            col(UsageMonthly.period_start) == period_start,
        )
        .execution_options(populate_existing=True)
    )
    return found.one()


async def correct_period(
    session: AsyncSession, row: UsageMonthly, *, period_end: datetime, tokens_limit: int
) -> None:
    """Give an open period the end and the limit that Stripe and the admins say now.

    It never runs into the next one. The caller has just opened it, and so has the customer's turn.
    """
    next_start = await session.scalar(
        sa.select(sa.func.min(col(UsageMonthly.period_start))).where(
            col(UsageMonthly.customer_id) == row.customer_id,
            col(UsageMonthly.period_start) > row.period_start,
        )
    )
    end = min(period_end, next_start or period_end)
    if (row.period_end, row.tokens_limit) == (end, tokens_limit) or end <= row.period_start:
        return
    row.period_end, row.tokens_limit = end, tokens_limit
    session.add(row)
    await session.flush()


def _completed(excluded: Any) -> dict[str, Any]:
    return {
        "period_end": excluded.period_end,
        "tokens_limit": excluded.tokens_limit,
        "is_provisional": excluded.is_provisional,
    }


async def take_turn(session: AsyncSession, customer_id: UUID) -> None:
    """Change a customer's periods one at a time; held until the transaction ends."""
    connection = await session.connection()
    await connection.execute(_CUSTOMER_LOCK, {"name": f"period:{customer_id}"})


async def _close_earlier(session: AsyncSession, customer_id: UUID, start: datetime) -> None:
    """End the period that runs into the new one: periods of a customer never overlap.

    Its events keep their period, which was fixed when they were admitted; those that now lie
    behind its end are marked late, and its total is taken from the ledger once more.
    """
    runs_into = (
        col(UsageMonthly.customer_id) == customer_id,
        col(UsageMonthly.period_start) < start,
        col(UsageMonthly.period_end) > start,
    )
    # Locked by a statement of its own: what a proxy writes until then is in the sum below.
    found = await session.exec(
        select(UsageMonthly.period_start)
        .where(*runs_into)
        .order_by(col(UsageMonthly.period_start))
        .with_for_update()
    )
    for earlier in found.all():
        await session.exec(
            sa.update(UsageMonthly)
            .where(*runs_into, col(UsageMonthly.period_start) == earlier)
            .values(period_end=start, tokens_used=_ledger_sum(customer_id, earlier))
        )
        await _mark_late(session, customer_id, earlier, start)


async def _mark_late(
    session: AsyncSession, customer_id: UUID, period_start: datetime, period_end: datetime
) -> None:
    later = sa.select(col(UsageEvent.id)).where(
        col(UsageEvent.customer_id) == customer_id, col(UsageEvent.timestamp) >= period_end
    )
    await session.exec(
        sa.update(UsageEventMeta)
        .where(
            col(UsageEventMeta.event_id).in_(later),
            col(UsageEventMeta.period_start) == period_start,
        )
        .values(late=True)
        .execution_options(synchronize_session=False)
    )


async def _begun_meanwhile(
    session: AsyncSession, customer_id: UUID, start: datetime, end: datetime
) -> datetime:
    """Return the start of a period that begins within the new one, or the new one's own.

    Stripe may name a start that lies a little before the one from which the proxy counted on.
    """
    found = await session.exec(
        select(UsageMonthly.period_start)
        .where(
            col(UsageMonthly.customer_id) == customer_id,
            col(UsageMonthly.period_start) >= start,
            col(UsageMonthly.period_start) < end,
        )
        .order_by(col(UsageMonthly.period_start))
    )
    begun = found.all()
    return start if not begun or begun[0] == start else begun[-1].astimezone(UTC)


def _ledger_sum(customer_id: UUID, start: datetime) -> sa.ScalarSelect[int]:
    """Return what the ledger knows of this period: zero for a new one, the truth otherwise."""
    return (
        sa.select(sa.func.coalesce(sa.func.sum(col(UsageEvent.total_tokens)), 0))
        .select_from(UsageEvent)
        .join(UsageEventMeta, col(UsageEventMeta.event_id) == col(UsageEvent.id))
        .where(
            col(UsageEvent.customer_id) == customer_id,
            col(UsageEventMeta.period_start) == start,
            col(UsageEvent.timestamp) >= start - CLOCKS_APART,
        )
        .scalar_subquery()
    )


def _a_month_later(moment: datetime, anchor: int) -> datetime:
    year, month = moment.year + moment.month // MONTHS, moment.month % MONTHS + 1
    return moment.replace(
        year=year, month=month, day=min(anchor, calendar.monthrange(year, month)[1])
    )
