"""Periods: when one starts and ends, and what it starts from."""

import calendar
from datetime import datetime
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
    """Open a period, or complete the provisional row that the proxy opened on its own."""
    if period_end <= period_start:
        raise PeriodError("The period ends before it starts.")
    connection = await session.connection()
    await connection.execute(_CUSTOMER_LOCK, {"name": f"period:{customer_id}"})
    await _close_earlier(session, customer_id, period_start)
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


def _completed(excluded: Any) -> dict[str, Any]:
    return {
        "period_end": excluded.period_end,
        "tokens_limit": excluded.tokens_limit,
        "is_provisional": excluded.is_provisional,
    }


async def _close_earlier(session: AsyncSession, customer_id: UUID, start: datetime) -> None:
    """End the period that runs into the new one: periods of a customer never overlap."""
    await session.exec(
        sa.update(UsageMonthly)
        .where(
            col(UsageMonthly.customer_id) == customer_id,
            col(UsageMonthly.period_start) < start,
            col(UsageMonthly.period_end) > start,
        )
        .values(period_end=start)
    )


def _ledger_sum(customer_id: UUID, start: datetime) -> sa.ScalarSelect[int]:
    """Return what the ledger knows of this period: zero for a new one, the truth otherwise."""
    return (
        sa.select(sa.func.coalesce(sa.func.sum(col(UsageEvent.total_tokens)), 0))
        .select_from(UsageEvent)
        .join(UsageEventMeta, col(UsageEventMeta.event_id) == col(UsageEvent.id))
        .where(
            col(UsageEvent.customer_id) == customer_id,
            col(UsageEventMeta.period_start) == start,
            col(UsageEvent.timestamp) >= start,
        )
        .scalar_subquery()
    )


def _a_month_later(moment: datetime, anchor: int) -> datetime:
    year, month = moment.year + moment.month // MONTHS, moment.month % MONTHS + 1
    return moment.replace(
        year=year, month=month, day=min(anchor, calendar.monthrange(year, month)[1])
    )
