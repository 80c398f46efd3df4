"""The rows that say what is to be ended and given back, and how far that has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import Checkout, Invoice, Reversal, ReversalWhy
from openclaw_web.core.clock import REAL_NOW, business_now
from openclaw_web.core.logs import redact

LONGEST_ERROR = 500
LEASE = timedelta(seconds=60)  # longer than the library's own time-outs and repetitions
PAUSES = (10, 30, 60, 300, 900)  # seconds after a failure; Stripe may be away for hours


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What shall be ended and given back, and why."""

    customer_id: UUID
    stripe_subscription_id: str
    why: ReversalWhy
    by: str
    cancels: bool = True
    refunds: bool = True
    payment_intent_id: str | None = None
    checkout_id: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What Stripe gave back in all of one reversal's invoices, each in cents, and the last refund.

    `own_cents` is what this reversal gave: the rest was given back before it, by somebody else.
    """

    refund_id: str | None = None
    currency: str | None = None
    cents_of_invoices: tuple[tuple[str, int], ...] = ()
    own_cents: int = 0

    @property
    def cents(self) -> int:
        return sum(cents for _, cents in self.cents_of_invoices)


async def want(session: AsyncSession, wish: Wish) -> Reversal | None:
    """Write a wish down; `None`: this subscription's reversal is under way already."""
    return await session.scalar(
        insert(Reversal)
        .values(
            id=uuid4(),
            customer_id=wish.customer_id,
            checkout_id=wish.checkout_id,
            stripe_subscription_id=wish.stripe_subscription_id,
            why=wish.why.value,
            cancels=wish.cancels,
            refunds=wish.refunds,
            payment_intent_id=wish.payment_intent_id,
            requested_by=wish.by,
            created_at=await business_now(session),
            run_after=REAL_NOW,
        )
        .on_conflict_do_nothing(
            index_elements=["stripe_subscription_id"],
            index_where=sa.text("finished_at IS NULL"),
        )
        .returning(Reversal)
    )


async def has_open(session: AsyncSession, stripe_subscription_id: str) -> bool:
    """Say whether this subscription is being ended or given back."""
    found = await session.exec(
        select(Reversal.id).where(
            Reversal.stripe_subscription_id == stripe_subscription_id,
            col(Reversal.finished_at).is_(None),
        )
    )
    return found.first() is not None


async def claim_due(
    session: AsyncSession, *, limit: int, resting: Sequence[ReversalWhy] = ()
) -> list[Reversal]:
    """Take what is due for a minute, the oldest first; `resting` ones wait for an admin.

    Those that have ended their subscription already are finished even then: half done is worse.
    """
    may_go = sa.or_(
        col(Reversal.why).not_in([why.value for why in resting]),
        col(Reversal.cancelled_at).is_not(None),
    )
    due = (
        select(Reversal.id)
        .where(col(Reversal.finished_at).is_(None), col(Reversal.run_after) <= REAL_NOW, may_go)
        .order_by(col(Reversal.created_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = await session.exec(
        sa.update(Reversal)
        .where(col(Reversal.id).in_(due))
        .values(run_after=REAL_NOW + LEASE, attempt=Reversal.attempt + 1)
        .returning(Reversal),
        execution_options={"populate_existing": True},
    )
    return sorted(found.scalars(), key=lambda one: (one.created_at, one.id))


async def note_cancelled(session: AsyncSession, reversal_id: UUID) -> None:
    await session.exec(
        sa.update(Reversal)
        .where(col(Reversal.id) == reversal_id, col(Reversal.cancelled_at).is_(None))
        .values(cancelled_at=await business_now(session))
    )


async def note_payment(session: AsyncSession, reversal_id: UUID, payment_intent_id: str) -> None:
    """Keep which payment is given back, so that a later try does not find a newer one."""
    await session.exec(
        sa.update(Reversal)
        .where(col(Reversal.id) == reversal_id, col(Reversal.payment_intent_id).is_(None))
        .values(payment_intent_id=payment_intent_id)
    )


async def finish(
    session: AsyncSession, reversal_id: UUID, returned: Returned, *, now: datetime
) -> Reversal | None:
    """Write down what was given back, be it nothing; `None`: somebody else wrote it already."""
    row = await session.get(Reversal, reversal_id, with_for_update=True, populate_existing=True)
    if row is None or row.finished_at is not None:
        return None
    row.refund_id, row.currency = returned.refund_id, returned.currency
    row.refunded_cents = returned.cents
    row.finished_at, row.error = now, None
    session.add(row)
    for invoice_id, cents in returned.cents_of_invoices:
        await note_refunded(session, row.customer_id, invoice_id, cents)
    if row.checkout_id is not None:
        checkout = await session.get(Checkout, row.checkout_id, with_for_update={"key_share": True})
        if checkout is not None and checkout.refunded_at is None and returned.cents:
            checkout.refund_id, checkout.refunded_at = returned.refund_id, now
            session.add(checkout)
    await session.flush()
    return row


async def note_refunded(
    session: AsyncSession, customer_id: UUID, invoice_id: str, cents: int
) -> None:
    """Copy what was given back of an invoice."""
    await session.exec(
        sa.update(Invoice)
        .where(
            col(Invoice.stripe_invoice_id) == invoice_id,
            col(Invoice.customer_id) == customer_id,
        )
        .values(refunded_cents=cents)
        .execution_options(synchronize_session=False)
    )


async def fail(
    session: AsyncSession, reversal: Reversal, *, error: str, pause_seconds: int | None = None
) -> None:
    """Keep what is to be done for later, with growing pauses unless another is given."""
    pause = pause_seconds or PAUSES[min(reversal.attempt, len(PAUSES)) - 1]
    await session.exec(
        sa.update(Reversal)
        .where(col(Reversal.id) == reversal.id, col(Reversal.finished_at).is_(None))
        .values(run_after=REAL_NOW + timedelta(seconds=pause), error=redact(error)[:LONGEST_ERROR])
    )


async def find_checkout_id(
    session: AsyncSession, customer_id: UUID, checkout_id: str
) -> UUID | None:
    """Return a checkout's id if it is one of this customer's."""
    found = await session.exec(
        select(Checkout.id).where(
            sa.cast(Checkout.id, sa.Text) == checkout_id, Checkout.customer_id == customer_id
        )
    )
    return found.first()


async def newest_of(session: AsyncSession, customer_id: UUID, why: ReversalWhy) -> Reversal | None:
    """Return the customer's newest reversal for this reason."""
    found = await session.exec(
        select(Reversal)
        .where(Reversal.customer_id == customer_id, Reversal.why == why.value)
        .order_by(col(Reversal.created_at).desc())
        .limit(1)
    )
    return found.first()
