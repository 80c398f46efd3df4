"""Every look at subscriptions, checkouts, holds and syncs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import (
    Adjustment,
    BillingSync,
    Checkout,
    CheckoutStatus,
    Hold,
    Invoice,
    Subscription,
    SubscriptionStatus,
)
from openclaw_web.core.clock import REAL_NOW, business_now

POLL_AFTER = timedelta(minutes=15)  # Stripe's webhook is lost by then
ON_ITS_WAY = timedelta(days=14)  # a bank transfer that takes longer has failed
COMPARE_AFTER = timedelta(days=1)  # whoever pays is compared with Stripe, though nothing was heard


@dataclass(frozen=True, kw_only=True)
class Allowances:
    """What admins gave on top, counted together: days of grace and tokens."""

    grace: timedelta
    tokens: int


async def find_live_subscription(session: AsyncSession, customer_id: UUID) -> Subscription | None:
    """Return the customer's one subscription that has not ended."""
    found = await session.exec(
        select(Subscription).where(
            Subscription.customer_id == customer_id,
            Subscription.status != SubscriptionStatus.CANCELLED,
        )
    )
    return found.first()


async def find_subscription(session: AsyncSession, customer_id: UUID) -> Subscription | None:
    """Return the live subscription, else the newest that ended."""
    is_ended = sa.case((col(Subscription.status) == SubscriptionStatus.CANCELLED, 1), else_=0)
    found = await session.exec(
        select(Subscription)
        .where(Subscription.customer_id == customer_id)
        .order_by(is_ended, col(Subscription.created_at).desc())
        .limit(1)
    )
    return found.first()


async def find_subscription_of_stripe(
    session: AsyncSession, customer_id: UUID, stripe_subscription_id: str
) -> Subscription | None:
    """Return our row of one of Stripe's subscriptions, ended or not."""
    found = await session.exec(
        select(Subscription).where(
            Subscription.customer_id == customer_id,
            Subscription.stripe_subscription_id == stripe_subscription_id,
        )
    )
    return found.first()


async def paid_invoice_ids(session: AsyncSession, customer_id: UUID) -> set[str]:
    """Return which of the customer's invoices we know to be paid."""
    found = await session.exec(
        select(Invoice.stripe_invoice_id).where(
            Invoice.customer_id == customer_id, Invoice.status == "paid"
        )
    )
    return set(found.all())


async def find_open_checkout(session: AsyncSession, customer_id: UUID) -> Checkout | None:
    found = await session.exec(
        select(Checkout).where(
            Checkout.customer_id == customer_id, Checkout.status == CheckoutStatus.OPEN
        )
    )
    return found.first()


async def find_unsettled_checkout(session: AsyncSession, customer_id: UUID) -> Checkout | None:
    """Return the payment page whose outcome we do not know yet."""
    found = await session.exec(
        select(Checkout)
        .where(Checkout.customer_id == customer_id, _is_unsettled(await business_now(session)))
        .order_by(col(Checkout.status) != CheckoutStatus.OPEN, col(Checkout.created_at).desc())
        .limit(1)
    )
    return found.first()


async def find_checkout(
    session: AsyncSession, customer_id: UUID, checkout_id: UUID
) -> Checkout | None:
    found = await session.exec(
        select(Checkout).where(Checkout.id == checkout_id, Checkout.customer_id == customer_id)
    )
    return found.first()


async def find_checkout_of_page(
    session: AsyncSession, customer_id: UUID, stripe_session_id: str
) -> Checkout | None:
    """Return the customer's checkout behind one of Stripe's payment pages."""
    found = await session.exec(
        select(Checkout).where(
            Checkout.stripe_session_id == stripe_session_id, Checkout.customer_id == customer_id
        )
    )
    return found.first()


async def has_unseen_payment(session: AsyncSession, customer_id: UUID, now: datetime) -> bool:
    """Say whether a page was paid within a day and no sync has found its subscription yet."""
    is_seen = sa.exists().where(
        col(Subscription.customer_id) == col(Checkout.customer_id),
        col(Subscription.created_at) >= col(Checkout.created_at),
    )
    found = await session.exec(
        select(Checkout.id).where(
            Checkout.customer_id == customer_id,
            col(Checkout.paid_at) > now - COMPARE_AFTER,
            col(Checkout.refunded_at).is_(None),
            ~is_seen,
        )
    )
    return found.first() is not None


async def count_checkouts(session: AsyncSession, key_start: str) -> int:
    """Return how many checkouts have an idempotency key that starts like this."""
    found = await session.exec(
        select(sa.func.count())
        .select_from(Checkout)
        .where(col(Checkout.idempotency_key).startswith(key_start, autoescape=True))
    )
    return found.one()


async def open_holds(session: AsyncSession, customer_id: UUID) -> Sequence[Hold]:
    """Return every reason to suspend that no payment lifts."""
    found = await session.exec(
        select(Hold)
        .where(Hold.customer_id == customer_id, col(Hold.released_at).is_(None))
        .order_by(col(Hold.created_at))
    )
    return found.all()


async def find_last_release(session: AsyncSession, customer_id: UUID) -> datetime | None:
    """Return when a hold was released last."""
    return await session.scalar(
        sa.select(sa.func.max(Hold.released_at)).where(col(Hold.customer_id) == customer_id)
    )


async def live_allowances(session: AsyncSession, customer_id: UUID, now: datetime) -> Allowances:
    """Return what admins gave that still counts; without `until` it counts for good."""
    found = await session.exec(
        select(Adjustment.kind, sa.func.sum(Adjustment.amount))
        .where(
            Adjustment.customer_id == customer_id,
            sa.or_(col(Adjustment.until).is_(None), col(Adjustment.until) > now),
        )
        .group_by(col(Adjustment.kind))
    )
    sums = dict(found.all())
    return Allowances(
        grace=timedelta(days=int(sums.get("grace", 0))), tokens=int(sums.get("tokens", 0))
    )


async def invoices_of_customer(
    session: AsyncSession, customer_id: UUID, *, limit: int
) -> Sequence[Invoice]:
    """Return what the customer paid or owes, the newest first; dropped invoices are neither."""
    found = await session.exec(
        select(Invoice)
        .where(Invoice.customer_id == customer_id, Invoice.status != "void")
        .order_by(col(Invoice.finalized_at).desc().nulls_last(), col(Invoice.stripe_invoice_id))
        .limit(limit)
    )
    return found.all()


async def find_sync(session: AsyncSession, customer_id: UUID) -> BillingSync | None:
    return await session.get(BillingSync, customer_id, populate_existing=True)


async def any_customer_of_stripe(session: AsyncSession, stripe_customer_id: str) -> UUID | None:
    """Return whose Stripe customer this is, a deleted account's included."""
    found = await session.exec(
        select(Customer.id).where(Customer.stripe_customer_id == stripe_customer_id)
    )
    return found.first()


async def any_customer_of_checkout(session: AsyncSession, checkout_id: UUID) -> UUID | None:
    found = await session.exec(select(Checkout.customer_id).where(Checkout.id == checkout_id))
    return found.first()


async def any_customers_due_for_sync(session: AsyncSession, *, limit: int) -> Sequence[UUID]:
    """Return whose sync was asked for and is not done, running, or resting after an error."""
    found = await session.exec(
        select(BillingSync.customer_id)
        .where(
            col(BillingSync.requested_seq) > col(BillingSync.synced_seq),
            sa.or_(col(BillingSync.lease_until).is_(None), col(BillingSync.lease_until) < REAL_NOW),
        )
        .order_by(col(BillingSync.synced_at).asc().nulls_first())
        .limit(limit)
    )
    return found.all()


async def any_customers_grace_ending(
    session: AsyncSession, now: datetime, until: datetime
) -> Sequence[Subscription]:
    """Return the unpaid subscriptions whose grace still runs, and ends before `until`."""
    found = await session.exec(
        select(Subscription).where(
            Subscription.status == SubscriptionStatus.PAST_DUE,
            col(Subscription.grace_until) > now,
            col(Subscription.grace_until) <= until,
        )
    )
    return found.all()


async def any_customers_to_sync(
    session: AsyncSession, now: datetime, *, limit: int = 100
) -> Sequence[UUID]:
    """Return who needs a look at Stripe though nobody asked: a date passed, or no event came.

    That is a checkout older than 15 minutes whose box does not answer yet, or a grace, a trial or a
    period that is over; each of them again after 15 minutes, until Stripe says something new. A
    grace and a trial are looked at 15 minutes before, too, so that nobody whom an admin's brake
    keeps is cut off meanwhile. And everybody with a live subscription once a day.
    """
    looked_lately = sa.exists().where(
        col(BillingSync.customer_id) == col(Customer.id),
        sa.or_(
            col(BillingSync.requested_seq) > col(BillingSync.synced_seq),
            col(BillingSync.synced_at) > now - POLL_AFTER,
        ),
    )
    is_owed = sa.and_(
        col(Checkout.paid_at).is_not(None),
        col(Checkout.delivered_at).is_(None),
        col(Checkout.deliver_by) > now,
    )
    waits = sa.exists().where(
        col(Checkout.customer_id) == col(Customer.id),
        sa.or_(_is_unsettled(now), is_owed),
        col(Checkout.created_at) < now - POLL_AFTER,
    )
    found = await session.exec(
        select(Customer.id)
        .where(sa.or_(sa.and_(waits, ~looked_lately), _date_passed(now, looked_lately)))
        .limit(limit)
    )
    return found.all()


def _is_unsettled(now: datetime) -> sa.ColumnElement[bool]:
    status = col(Checkout.status)
    is_on_its_way = sa.and_(
        status == CheckoutStatus.COMPLETE,
        col(Checkout.paid_at).is_(None),
        col(Checkout.created_at) > now - ON_ITS_WAY,
    )
    return sa.or_(status == CheckoutStatus.OPEN, is_on_its_way)


def _date_passed(now: datetime, looked_lately: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Say that a date passed since the last sync, which is acted on at once, or long ago."""
    status, synced_at = col(Subscription.status), col(Subscription.synced_at)
    conditions = []
    grace_until, trial_end = col(Subscription.grace_until), col(Subscription.trial_end)
    for is_affected, date in (
        (status == SubscriptionStatus.PAST_DUE, grace_until - POLL_AFTER),
        (status == SubscriptionStatus.PAST_DUE, grace_until),
        (status == SubscriptionStatus.TRIALING, trial_end - POLL_AFTER),
        (status == SubscriptionStatus.TRIALING, trial_end),
        (status != SubscriptionStatus.CANCELLED, col(Subscription.current_period_end)),
    ):
        is_new = sa.or_(synced_at.is_(None), synced_at < date)
        conditions.append(sa.and_(is_affected, date <= now, sa.or_(is_new, ~looked_lately)))
    is_old = sa.and_(status != SubscriptionStatus.CANCELLED, synced_at <= now - COMPARE_AFTER)
    conditions.append(sa.and_(is_old, ~looked_lately))
    return sa.exists().where(col(Subscription.customer_id) == col(Customer.id), sa.or_(*conditions))
