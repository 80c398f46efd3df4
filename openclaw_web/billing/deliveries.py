"""What we promised for a payment: an assistant that answers within a day, or the money back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import (
    Checkout,
    Hold,
    HoldKind,
    Invoice,
    Reversal,
    ReversalWhy,
    Subscription,
)

TOLD_AFTER = timedelta(minutes=10)  # five tries of the operator take about that long
SHOWN_FOR = timedelta(days=30)  # a bank may take ten days to show the money

TOLD_OF = (ReversalWhy.UNDELIVERED.value, ReversalWhy.ADMIN.value)


class PromiseState(StrEnum):
    LATE = "late"
    REFUNDING = "refunding"
    REFUNDED = "refunded"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a customer should know of a payment that did not lead to an assistant."""

    state: PromiseState
    deliver_by: datetime
    is_overdue: bool
    refunded_at: datetime | None
    refunded_cents: int
    currency: str


async def any_customers_undelivered(
    session: AsyncSession, now: datetime, *, limit: int
) -> Sequence[Checkout]:
    """Return what is paid for, is not delivered ten minutes later, and is not being given back.

    The newest first: what waits for an admin for weeks must not hide what can still be mended.
    """
    found = await session.exec(
        select(Checkout)
        .where(
            col(Checkout.paid_at) < now - TOLD_AFTER,
            col(Checkout.delivered_at).is_(None),
            col(Checkout.refunded_at).is_(None),
            ~sa.exists().where(col(Reversal.checkout_id) == col(Checkout.id)),
        )
        .order_by(col(Checkout.deliver_by).desc())
        .limit(limit)
    )
    return found.all()


async def find_sold(session: AsyncSession, checkout: Checkout) -> Subscription | None:
    """Return the subscription that a checkout began: made since, and paid for with money."""
    is_paid = sa.exists().where(
        col(Invoice.subscription_id) == col(Subscription.id),
        col(Invoice.paid_cents) > col(Invoice.refunded_cents),
    )
    found = await session.exec(
        select(Subscription)
        .where(
            Subscription.customer_id == checkout.customer_id,
            col(Subscription.created_at) >= checkout.created_at,
            is_paid,
        )
        .order_by(col(Subscription.created_at))
        .limit(1)
    )
    return found.first()


async def find_undelivered(
    session: AsyncSession, customer_id: UUID, stripe_subscription_id: str
) -> UUID | None:
    """Return the paid checkout that a subscription came from, if its box never answered."""
    found = await session.exec(
        select(Checkout.id)
        .join(Subscription, col(Subscription.customer_id) == col(Checkout.customer_id))
        .where(
            Checkout.customer_id == customer_id,
            Subscription.stripe_subscription_id == stripe_subscription_id,
            col(Checkout.created_at) <= col(Subscription.created_at),
            col(Checkout.paid_at).is_not(None),
            col(Checkout.delivered_at).is_(None),
            col(Checkout.refunded_at).is_(None),
        )
        .order_by(col(Checkout.created_at).desc())
        .limit(1)
    )
    return found.first()


async def lock_checkout(session: AsyncSession, checkout_id: UUID) -> Checkout:
    return await session.get_one(
        Checkout, checkout_id, with_for_update={"key_share": True}, populate_existing=True
    )


async def find_promise(session: AsyncSession, customer_id: UUID, now: datetime) -> Promise | None:
    """Return what is to say of the customer's newest payment; nothing while all is well.

    One that was given back for another reason, such as a second payment, is not meant.
    """
    is_another_story = sa.exists().where(
        col(Reversal.checkout_id) == col(Checkout.id),
        col(Reversal.why).not_in(TOLD_OF),
    )
    found = await session.exec(
        select(Checkout)
        .where(
            Checkout.customer_id == customer_id,
            col(Checkout.paid_at).is_not(None),
            ~is_another_story,
        )
        .order_by(col(Checkout.paid_at).desc())
        .limit(1)
    )
    checkout = found.first()
    if checkout is None or checkout.delivered_at is not None or checkout.deliver_by is None:
        return None
    given = await _reversal_of(session, checkout.id)
    state = _state(checkout, now, is_held=await _is_refunding(session, customer_id))
    if state is None:
        return None
    return Promise(
        state=state,
        deliver_by=checkout.deliver_by,
        is_overdue=checkout.deliver_by <= now,
        refunded_at=checkout.refunded_at,
        refunded_cents=given.refunded_cents if given else 0,
        currency=(given.currency if given else None) or "usd",
    )


def _state(checkout: Checkout, now: datetime, *, is_held: bool) -> PromiseState | None:
    if checkout.refunded_at is not None:
        return PromiseState.REFUNDED if now < checkout.refunded_at + SHOWN_FOR else None
    if is_held:
        return PromiseState.REFUNDING
    is_late = checkout.paid_at is not None and checkout.paid_at < now - TOLD_AFTER
    return PromiseState.LATE if is_late else None


async def _is_refunding(session: AsyncSession, customer_id: UUID) -> bool:
    found = await session.exec(
        select(Hold.id).where(
            Hold.customer_id == customer_id,
            Hold.kind == HoldKind.REFUNDING.value,
            col(Hold.released_at).is_(None),
        )
    )
    return found.first() is not None


async def _reversal_of(session: AsyncSession, checkout_id: UUID) -> Reversal | None:
    found = await session.exec(select(Reversal).where(Reversal.checkout_id == checkout_id))
    return found.first()
