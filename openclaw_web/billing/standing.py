"""How a customer stands with us, beside what Stripe says: what a sync reads, in one statement."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

FAILED_ALERT = "billing_sync_failed"

_STANDING = sa.text(
    """
SELECT ARRAY(SELECT kind FROM holds WHERE customer_id = :customer AND released_at IS NULL
             ORDER BY created_at) AS holds,
       (SELECT max(released_at) FROM holds WHERE customer_id = :customer) AS released_at,
       coalesce(sum(amount) FILTER (WHERE kind = 'grace'), 0)::int AS grace_days,
       coalesce(sum(amount) FILTER (WHERE kind = 'tokens'), 0)::bigint AS tokens,
       EXISTS (SELECT FROM alerts WHERE code = :failed AND subject = :customer::text
               AND resolved_at IS NULL) AS has_failed
FROM adjustments WHERE customer_id = :customer AND (until IS NULL OR until > :now)
""".replace(":customer", "CAST(:customer AS uuid)")
)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Open holds, when one was released last, and what admins gave that still counts.

    Without an end it counts for good. `has_failed`: an admin was told that the last sync failed.
    """

    holds: tuple[str, ...]
    released_at: datetime | None
    extra_grace: timedelta
    extra_tokens: int
    has_failed: bool


async def standing_of(session: AsyncSession, customer_id: UUID, now: datetime) -> Standing:
    connection = await session.connection()
    values = {"customer": customer_id, "now": now, "failed": FAILED_ALERT}
    row = (await connection.execute(_STANDING, values)).one()
    return Standing(
        holds=tuple(row.holds),
        released_at=row.released_at,
        extra_grace=timedelta(days=row.grace_days),
        extra_tokens=row.tokens,
        has_failed=row.has_failed,
    )
