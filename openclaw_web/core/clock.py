"""Two clocks: business time for what a customer sees, real time for leases, sessions and logs."""

import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from openclaw_web.core.database import ONE_UNIT

OFFSET_KEY = "clock_offset_seconds"
# The database's real clock, inside a statement: leases and due times of all machines follow it.
REAL_NOW = sa.func.clock_timestamp()

# Business time, for a statement that reads other things as well.
BUSINESS_NOW: sa.ColumnElement[datetime] = sa.literal_column(
    "clock_timestamp() + make_interval(secs => coalesce((SELECT (value #>> '{}')::float8"  # noqa: S608 - a name of ours
    f" FROM platform_settings WHERE key = '{OFFSET_KEY}'), 0))",
    sa.DateTime(timezone=True),
)
_LOOK = sa.select(BUSINESS_NOW)
_READ = "business_now"


def real_now() -> datetime:
    """Return this machine's time, aware and in UTC."""
    return datetime.now(UTC)


async def business_now(session: AsyncSession) -> datetime:
    """Return database time plus the stored offset, aware and in UTC.

    A unit of work reads it once: its later calls add what has gone by since.
    Pass it on as a bound parameter; statements of ours never use the database's own now().
    """
    if known := session.info.get(_READ):
        now, read_at = known
        return now + timedelta(seconds=time.monotonic() - read_at)
    connection = await session.connection()
    return note_business_now(session, (await connection.execute(_LOOK)).scalar_one())


def note_business_now(session: AsyncSession, found: datetime) -> datetime:
    """Keep for the rest of a unit of work what a statement of it has read, and return it."""
    now = found.astimezone(UTC)
    if session.info.get(ONE_UNIT):
        session.info[_READ] = now, time.monotonic()
    return now


def forget_business_now(session: AsyncSession) -> None:
    """Have it read again: this unit of work has moved it."""
    session.info.pop(_READ, None)
