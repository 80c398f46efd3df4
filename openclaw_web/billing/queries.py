"""Every look at subscriptions, checkouts, holds and syncs."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import (
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
LOOKED_AFTER_FOR = timedelta(days=8)  # after the end of a plan: longer than its box is kept
COMPARE_AFTER = timedelta(days=1)  # whoever pays is compared with Stripe, though nothing was heard
Moment = datetime | sa.BindParameter[datetime]


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


async def find_open_checkout(session: AsyncSession, customer_id: UUID) -> Checkout | None:
    found = await session.exec(
        select(Checkout).where(
            Checkout.customer_id == customer_id, Checkout.status == CheckoutStatus.OPEN
        )
    )
    return found.first()


async def stripe_ids(session: AsyncSession, customer_id: UUID) -> tuple[str | None, str | None]:
    """Return who the customer is at Stripe, and the payment page whose outcome we do not know."""
    now = await business_now(session)
    found = await session.exec(
        select(Customer.stripe_customer_id, Checkout.stripe_session_id)
        .outerjoin(
            Checkout,
            sa.and_(col(Checkout.customer_id) == Customer.id, _is_unsettled(now - ON_ITS_WAY)),
        )
        .where(Customer.id == customer_id)
        .order_by(col(Checkout.status) != CheckoutStatus.OPEN, col(Checkout.created_at).desc())
        .limit(1)
    )
    return found.first() or (None, None)


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


async def invoices_by_id(session: AsyncSession, customer_id: UUID) -> dict[str, sa.RowMapping]:
    """Return our copies of all the customer's invoices, column by column."""
    table = sa.inspect(Invoice).local_table
    found = await (await session.connection()).execute(
        sa.select(table).where(table.c.customer_id == customer_id)
    )
    return {row["stripe_invoice_id"]: row for row in found.mappings()}


async def find_sync(session: AsyncSession, customer_id: UUID) -> BillingSync | None:
    return await session.get(BillingSync, customer_id, populate_existing=True)


async def any_customer_of_stripe(session: AsyncSession, stripe_customer_id: str) -> UUID | None:
    """Return whose Stripe customer this is, a deleted account's included."""
    found = await session.exec(
        select(Customer.id).where(Customer.stripe_customer_id == stripe_customer_id)
    )
    return found.first()


async def any_customers_of_stripe(
    session: AsyncSession, stripe_customer_ids: Collection[str]
) -> dict[str, UUID]:
    """Return whose Stripe customers these are; a deleted account's are left out."""
    found = await session.exec(
        select(Customer.stripe_customer_id, Customer.id).where(
            col(Customer.stripe_customer_id).in_(stripe_customer_ids),
            col(Customer.deleted_at).is_(None),
        )
    )
    return {stripe_id: customer_id for stripe_id, customer_id in found.all() if stripe_id}


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
    keeps is cut off meanwhile. And everybody with a live subscription, or one that ended lately,
    once a day.

    Who is asked for already is left out, and who waits longest comes first: nobody whose sync fails
    stands in the way of the others.
    """
    dates = {"now": now, "polled": now - POLL_AFTER, "compared": now - COMPARE_AFTER}
    found = await session.exec(
        _TO_SYNC,
        params=dates
        | {"on_its_way": now - ON_ITS_WAY, "forgotten": now - LOOKED_AFTER_FOR, "most": limit},
    )
    return found.all()


def _is_unsettled(on_its_way: Moment) -> sa.ColumnElement[bool]:
    status = col(Checkout.status)
    is_on_its_way = sa.and_(
        status == CheckoutStatus.COMPLETE,
        col(Checkout.paid_at).is_(None),
        col(Checkout.created_at) > on_its_way,
    )
    return sa.or_(status == CheckoutStatus.OPEN, is_on_its_way)


def _to_sync() -> SelectOfScalar[UUID]:
    """Build the longest of our questions; once, as putting it together costs more than asking."""
    now, polled = _date("now"), _date("polled")
    synced_at = col(BillingSync.synced_at)
    is_asked = col(BillingSync.requested_seq) > col(BillingSync.synced_seq)
    looked_lately = sa.func.coalesce(synced_at > polled, sa.false())
    is_owed = sa.and_(
        col(Checkout.paid_at).is_not(None),
        col(Checkout.delivered_at).is_(None),
        col(Checkout.deliver_by) > now,
    )
    waits = sa.exists().where(
        col(Checkout.customer_id) == col(Customer.id),
        sa.or_(_is_unsettled(_date("on_its_way")), is_owed),
        col(Checkout.created_at) < polled,
    )
    is_due = sa.or_(sa.and_(waits, ~looked_lately), _date_passed(now, looked_lately))
    return (
        select(Customer.id)
        .outerjoin(BillingSync, col(BillingSync.customer_id) == col(Customer.id))
        .where(~sa.func.coalesce(is_asked, sa.false()), is_due)
        .order_by(synced_at.asc().nulls_first())
        .limit(sa.bindparam("most", type_=sa.Integer()))
    )


def _date(name: str) -> sa.BindParameter[datetime]:
    return sa.bindparam(name, type_=sa.DateTime(timezone=True))


def _date_passed(
    now: sa.BindParameter[datetime], looked_lately: sa.ColumnElement[bool]
) -> sa.ColumnElement[bool]:
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
    is_old = sa.and_(status != SubscriptionStatus.CANCELLED, synced_at <= _date("compared"))
    conditions.append(sa.and_(is_old, ~looked_lately))
    # Whose box is still kept: should they have come back unseen, nothing of theirs is deleted.
    ended_lately = sa.and_(
        status == SubscriptionStatus.CANCELLED,
        col(Subscription.current_period_end) > _date("forgotten"),
        col(BillingSync.synced_at) <= _date("compared"),
    )
    conditions.append(ended_lately)
    return sa.exists().where(col(Subscription.customer_id) == col(Customer.id), sa.or_(*conditions))


_TO_SYNC = _to_sync()
