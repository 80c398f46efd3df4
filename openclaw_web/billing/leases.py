"""One sync with Stripe at a time for each customer, and none that is forgotten.

The lease is taken before Stripe is asked, so an old answer never overwrites a newer one. Its row is
written last in every transaction, so two of them never wait for each other.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import BillingSync
from openclaw_web.core.clock import REAL_NOW
from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.logs import redact

LEASE = timedelta(seconds=60)
REST_AFTER_ERROR = timedelta(seconds=10)
REST_AFTER_REFUSAL = timedelta(minutes=5)  # asking again will not help before somebody acts
LONGEST_ERROR = 500

_RAISE = sa.text("""
INSERT INTO billing_syncs (customer_id, requested_seq)
SELECT * FROM unnest(CAST(:customers AS uuid[]), CAST(:counts AS bigint[])) AS wish
ON CONFLICT (customer_id) DO UPDATE
SET requested_seq = billing_syncs.requested_seq + excluded.requested_seq
""")


class LeaseLostError(OpenClawError):
    """Another worker took the sync over, because this one was too slow; nothing may be written."""


async def raise_request(session: AsyncSession, customer_id: UUID) -> None:
    await raise_requests(session, {customer_id: 1})


async def raise_requests(session: AsyncSession, wishes: Mapping[UUID, int]) -> None:
    """Raise the number of each customer by so many wishes, in one order for everybody."""
    ordered = sorted(wishes)
    values = {"customers": ordered, "counts": [wishes[one] for one in ordered]}
    await (await session.connection()).execute(_RAISE, values)


async def take(session: AsyncSession, customer_id: UUID, *, owner: str) -> int | None:
    """Take the lease and return the number of the request that it serves.

    `None` means that there is nothing to do, or somebody else does it, or it rests after an error.
    Taking one's own lease again renews it.
    """
    return await session.scalar(
        sa.update(BillingSync)
        .where(
            col(BillingSync.customer_id) == customer_id,
            col(BillingSync.requested_seq) > col(BillingSync.synced_seq),
            sa.or_(
                col(BillingSync.lease_until).is_(None),
                col(BillingSync.lease_until) < REAL_NOW,
                col(BillingSync.lease_owner) == owner,
            ),
        )
        .values(lease_owner=owner, lease_until=REAL_NOW + LEASE)
        .returning(col(BillingSync.requested_seq))
    )


async def check(session: AsyncSession, customer_id: UUID, *, owner: str) -> None:
    """Refuse to write for whoever lost the lease while Stripe was asked; `finish` decides at last.

    Without it a worker that was too slow would wait for the rows of the one that took over.

    Raises:
        LeaseLostError: the lease ran out, or another worker has it.
    """
    is_ours = await session.scalar(
        sa.select(col(BillingSync.customer_id)).where(
            col(BillingSync.customer_id) == customer_id,
            col(BillingSync.lease_owner) == owner,
            col(BillingSync.lease_until) > REAL_NOW,
        )
    )
    if is_ours is None:
        raise LeaseLostError("The lease on this customer's sync was lost.")


async def finish(
    session: AsyncSession, customer_id: UUID, *, owner: str, served: int, now: datetime
) -> bool:
    """Give the lease back, in the transaction that wrote what was found.

    `False` means that a sync was asked for again meanwhile.

    Raises:
        LeaseLostError: the lease ran out and another worker has it.
    """
    requested = await session.scalar(
        sa.update(BillingSync)
        .where(
            col(BillingSync.customer_id) == customer_id,
            col(BillingSync.lease_owner) == owner,
            col(BillingSync.lease_until) > REAL_NOW,
        )
        .values(
            synced_seq=sa.func.greatest(BillingSync.synced_seq, served),
            synced_at=now,
            error=None,
            lease_owner=None,
            lease_until=None,
        )
        .returning(col(BillingSync.requested_seq))
    )
    if requested is None:
        raise LeaseLostError("The lease on this customer's sync was lost.")
    return requested <= served


async def fail(
    session: AsyncSession, customer_id: UUID, *, owner: str, error: str, can_retry: bool
) -> None:
    """Keep the request, say why it could not be served, and let it rest a little."""
    rest = REST_AFTER_ERROR if can_retry else REST_AFTER_REFUSAL
    await session.exec(
        sa.update(BillingSync)
        .where(col(BillingSync.customer_id) == customer_id, col(BillingSync.lease_owner) == owner)
        .values(error=redact(error)[:LONGEST_ERROR], lease_owner=None, lease_until=REAL_NOW + rest)
    )


async def end_rest(session: AsyncSession, customer_id: UUID) -> None:
    """Let a sync that rests after an error be tried at once, by whoever asks for it by hand."""
    await session.exec(
        sa.update(BillingSync)
        .where(col(BillingSync.customer_id) == customer_id, col(BillingSync.lease_owner).is_(None))
        .values(lease_until=None, error=None)
    )
