"""What a sync writes down in billing's own tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import queries
from openclaw_web.billing.facts import Decision, Known
from openclaw_web.billing.models import (
    Checkout,
    CheckoutStatus,
    Invoice,
    Subscription,
    SubscriptionStatus,
)
from openclaw_web.integrations.payment_objects import CheckoutSession, StripeInvoice

DELIVERY_PROMISE = timedelta(hours=24)  # an assistant that answers, or the money back
SHOWN_INVOICES = frozenset({"open", "paid", "uncollectible", "void"})  # a draft may still change


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Which invoices were paid since the last copy, and what we knew to be given back of each."""

    paid: tuple[StripeInvoice, ...] = ()
    refunded_cents: Mapping[str, int] = field(default_factory=dict)


def known_from(row: Subscription | None) -> Known | None:
    if row is None:
        return None
    return Known(
        stripe_subscription_id=row.stripe_subscription_id,
        status=row.status,
        tier=row.tier,
        period_start=row.current_period_start,
        period_end=row.current_period_end,
        stripe_price_id=row.stripe_price_id,
        cancel_at_period_end=row.cancel_at_period_end,
        trial_end=row.trial_end,
        past_due_since=row.past_due_since,
        pending_tier=row.pending_tier,
    )


async def close_subscription(
    session: AsyncSession, row: Subscription, *, stripe_status: str | None, now: datetime
) -> None:
    """End a row whose place another subscription takes."""
    row.status = SubscriptionStatus.CANCELLED
    row.stripe_status = stripe_status or row.stripe_status
    row.past_due_since = row.grace_until = row.pending_tier = None
    row.synced_at = now
    session.add(row)
    await session.flush()


async def add_subscription(
    session: AsyncSession, customer_id: UUID, decision: Decision, *, now: datetime
) -> Subscription:
    row = Subscription(
        customer_id=customer_id,
        stripe_subscription_id=decision.stripe_subscription_id,
        tier=decision.tier,
        status=decision.status,
        tokens_limit=decision.tokens_limit,
        current_period_start=decision.period_start,
        current_period_end=decision.period_end,
        created_at=now,
    )
    return await update_subscription(session, row, decision, now=now)


async def update_subscription(
    session: AsyncSession, row: Subscription, decision: Decision, *, now: datetime
) -> Subscription:
    row.stripe_price_id = decision.stripe_price_id
    row.stripe_status = decision.stripe_status
    row.status = decision.status
    row.tier = decision.tier
    row.tokens_limit = decision.tokens_limit
    row.current_period_start = decision.period_start
    row.current_period_end = decision.period_end
    row.cancel_at_period_end = decision.cancel_at_period_end
    row.trial_end = decision.trial_end
    row.past_due_since = decision.past_due_since
    row.grace_until = decision.grace_until
    row.pending_tier = decision.pending_tier
    row.synced_at = now
    session.add(row)
    await session.flush()
    return row


async def note_checkout(
    session: AsyncSession, row: Checkout, found: CheckoutSession, *, now: datetime
) -> None:
    """Follow a payment page; once it is paid, a day to deliver begins. Safe to call twice.

    A page that is complete stays so: an answer that says otherwise is an older one.
    """
    if row.status != CheckoutStatus.COMPLETE:
        row.status = CheckoutStatus(found.status)
    if row.status != CheckoutStatus.OPEN:
        row.url = None  # worth nothing any more, and nobody else's business
    if found.is_paid and row.paid_at is None:
        row.paid_at = now
        row.deliver_by = now + DELIVERY_PROMISE
    session.add(row)
    await session.flush()


async def note_delivery(
    session: AsyncSession, customer_id: UUID, onboarding_session_id: UUID, *, now: datetime
) -> None:
    """Note that what a chat sold has been delivered: its box answers. Safe to call twice."""
    await session.exec(
        sa.update(Checkout)
        .where(
            col(Checkout.onboarding_session_id) == onboarding_session_id,
            col(Checkout.customer_id) == customer_id,
            col(Checkout.paid_at).is_not(None),
            col(Checkout.delivered_at).is_(None),
        )
        .values(delivered_at=now)
    )


async def copy_invoices(
    session: AsyncSession,
    customer_id: UUID,
    invoices: Sequence[StripeInvoice],
    *,
    subscription: Subscription | None,
    now: datetime,
) -> Copied:
    """Keep a copy of what the customer may see of their invoices; what is as it was stays so."""
    shown = [one for one in invoices if one.status in SHOWN_INVOICES]
    if not shown:
        return Copied()
    before = await queries.invoices_by_id(session, customer_id)
    rows = [_invoice_row(one, customer_id, subscription) for one in shown]
    news = [row for row in rows if _is_news(row, before.get(row["stripe_invoice_id"]))]
    if news:
        await _write_invoices(session, customer_id, news, now)
    paid_before = {identifier for identifier, row in before.items() if row["status"] == "paid"}
    return Copied(
        paid=tuple(one for one in shown if one.status == "paid" and one.id not in paid_before),
        refunded_cents={
            one.id: before[one.id]["refunded_cents"] if one.id in before else 0 for one in shown
        },
    )


async def _write_invoices(
    session: AsyncSession, customer_id: UUID, rows: list[dict[str, Any]], now: datetime
) -> None:
    statement = insert(Invoice).values([row | {"synced_at": now} for row in rows])
    replaced: dict[str, Any] = {name: statement.excluded[name] for name in (*rows[0], "synced_at")}
    replaced["subscription_id"] = sa.func.coalesce(
        statement.excluded.subscription_id, col(Invoice.subscription_id)
    )
    await session.exec(
        statement.on_conflict_do_update(
            index_elements=["stripe_invoice_id"],
            set_=replaced,
            where=col(Invoice.customer_id) == customer_id,
        )
    )


def _is_news(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Say whether a copy has to be written; one that has its subscription keeps it."""
    if before is None:
        return True
    return any(
        before[name] != value
        for name, value in row.items()
        if name != "subscription_id" or value is not None
    )


def _invoice_row(
    one: StripeInvoice, customer_id: UUID, subscription: Subscription | None
) -> dict[str, Any]:
    return {
        "stripe_invoice_id": one.id,
        "customer_id": customer_id,
        "subscription_id": _owner_of(one, subscription),
        "number": one.number,
        "status": one.status,
        "currency": one.currency,
        "due_cents": one.due_cents,
        "paid_cents": one.paid_cents,
        "period_start": one.period_start,
        "period_end": one.period_end,
        "finalized_at": one.finalized_at,
        "due_at": one.due_at,
        "paid_at": one.paid_at,
        "hosted_url": one.hosted_url,
    }


def _owner_of(invoice: StripeInvoice, subscription: Subscription | None) -> UUID | None:
    if subscription is None or not invoice.stripe_subscription_id:
        return None
    is_its = invoice.stripe_subscription_id == subscription.stripe_subscription_id
    return subscription.id if is_its else None
