"""Two clocks: business time for what a customer sees, real time for leases, sessions and logs."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

OFFSET_KEY = "clock_offset_seconds"
# The database's real clock, inside a statement: leases and due times of all machines follow it.
REAL_NOW = sa.func.clock_timestamp()

_BUSINESS_NOW = sa.text(
    "SELECT clock_timestamp() + make_interval(secs => coalesce("
    "(SELECT (value #>> '{}')::float8 FROM platform_settings WHERE key = :key), 0))"
)


def real_now() -> datetime:
    """Return this machine's time, aware and in UTC."""
    return datetime.now(UTC)


async def business_now(session: AsyncSession) -> datetime:
    """Return database time plus the stored offset, aware and in UTC.

    Pass it on as a bound parameter; statements of ours never use the database's own now().
    """
    connection = await session.connection()
    now = (await connection.execute(_BUSINESS_NOW, {"key": OFFSET_KEY})).scalar_one()
    return now.astimezone(UTC)
