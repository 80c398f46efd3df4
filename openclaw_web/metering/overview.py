"""What an admin sees of all meters: how fresh the checks are, and which found something."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.metering.models import UsageCheck, UsageMonthly

LATELY = timedelta(days=30)


@dataclass(frozen=True)
class MeterFigures:
    """Of the periods that run now, and of the last thirty days."""

    running: int
    checked: int
    differing: int
    repaired: int
    oldest_check: datetime | None


@dataclass(frozen=True)
class MeterRow:
    """One period whose check found a difference, or that was set right lately."""

    customer_id: UUID
    period_start: datetime
    month_tokens: int
    agrees: bool
    checked_at: datetime
    repairs: int
    repaired_at: datetime | None


async def any_customers_meter_figures(session: AsyncSession, now: datetime) -> MeterFigures:
    """Count meters by how their newest check went; `now` is business time."""
    check, is_running = UsageCheck, _is_running(now)
    checked = sa.and_(
        col(check.customer_id) == col(UsageMonthly.customer_id),
        col(check.period_start) == col(UsageMonthly.period_start),
    )
    running = (
        sa.select(
            sa.func.count(),
            sa.func.count(col(check.customer_id)),
            sa.func.min(col(check.checked_at)),
        )
        .select_from(UsageMonthly)
        .outerjoin(check, checked)
        .where(is_running)
    )
    found = sa.select(
        sa.func.count(col(check.customer_id).distinct()).filter(~col(check.agrees)),
        sa.func.count().filter(col(check.repaired_at) > now - LATELY),
    )
    connection = await session.connection()
    one, two = (await connection.execute(running)).one(), (await connection.execute(found)).one()
    return MeterFigures(one[0], one[1], two[0], two[1], one[2])


async def any_customers_meters_to_look_at(
    session: AsyncSession, now: datetime, *, limit: int
) -> list[MeterRow]:
    """Return what differs first, then what was set right in the last thirty days."""
    check = UsageCheck
    statement = (
        sa.select(
            col(check.customer_id),
            col(check.period_start),
            col(check.month_tokens),
            col(check.agrees),
            col(check.checked_at),
            col(check.repairs),
            col(check.repaired_at),
        )
        .where(sa.or_(~col(check.agrees), col(check.repaired_at) > now - LATELY))
        .order_by(col(check.agrees), col(check.repaired_at).desc().nulls_last())
        .limit(limit)
    )
    rows = await (await session.connection()).execute(statement)
    return [MeterRow(*row) for row in rows]


def _is_running(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(col(UsageMonthly.period_start) <= now, col(UsageMonthly.period_end) > now)
