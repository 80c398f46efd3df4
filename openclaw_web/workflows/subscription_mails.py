"""Which mail a change of a subscription calls for, and those that only a date calls for."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.mails import MailKind
from openclaw_web.billing import queries
from openclaw_web.billing.entitlement import SERVED
from openclaw_web.billing.facts import Decision
from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import queries as box_queries
from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.payment_objects import StripeInvoice
from openclaw_web.workflows import brakes
from openclaw_web.workflows.brakes import Brake

GRACE_ENDING = timedelta(days=2)
DESTROY_SOON = (timedelta(days=1), timedelta(days=3))  # before the day, the nearest first
RENEWAL = "subscription_cycle"
THANKFUL = frozenset({MailKind.PAYMENT_THANKS, MailKind.REACTIVATED, MailKind.WELCOME})


@dataclass(frozen=True, kw_only=True)
class Before:
    """What our row said before this sync; without a row everything is `None`."""

    subscription_id: UUID | None = None
    status: SubscriptionStatus | None = None
    tier: Tier | None = None

    @classmethod
    def of(cls, row: Subscription | None) -> "Before":
        if row is None:
            return cls()
        return cls(subscription_id=row.id, status=row.status, tier=row.tier)


@dataclass(frozen=True, kw_only=True)
class Reminder:
    """A mail that a date calls for: it is written once for that date."""

    customer_id: UUID
    kind: MailKind
    payload: dict[str, Any]
    key: str


async def write(
    session: AsyncSession,
    subscription: Subscription,
    decision: Decision,
    *,
    before: Before,
    had_box: bool,
    paid: tuple[StripeInvoice, ...] = (),
) -> None:
    """Queue the mails of this change; `paid` are the invoices that were paid since the last look.

    A payment that brings somebody back is thanked for once, without a receipt besides.
    """
    kind = _kind_for(subscription, before, had_box=had_box)
    payload = _payload(subscription, decision)
    receipts = [one for one in paid if _is_renewal(one, subscription)]
    if kind is MailKind.PAYMENT_THANKS and receipts:
        payload |= {"amount_cents": sum(one.paid_cents for one in receipts)}
    if kind is not None:
        await _queue(session, subscription, kind, payload, _key(kind, subscription, decision))
    if kind in THANKFUL:
        return
    for invoice in receipts:
        key = f"{MailKind.RENEWAL_RECEIPT.value}:{invoice.id}"
        filled = payload | _receipt(invoice)
        await _queue(session, subscription, MailKind.RENEWAL_RECEIPT, filled, key)


def _is_renewal(invoice: StripeInvoice, subscription: Subscription) -> bool:
    is_its = invoice.stripe_subscription_id == subscription.stripe_subscription_id
    return is_its and invoice.billing_reason == RENEWAL and invoice.paid_cents > 0


async def send_reminders() -> int:
    """Write the mails whose day has come, each once for its date, and return how many.

    That is a grace that ends in two days, and a box that is deleted in three days, and in one.
    While the brake on suspensions is on, graces are prolonged again and again, and nobody hears it.
    """
    async with session_scope() as session:
        now = await business_now(session)
        due = {one.key: one for one in await _due(session, now)}
        known = await account_queries.known_mail_keys(session, list(due))
        news = [one for key, one in due.items() if key not in known]
        for one in news:
            await accounts.queue_mail(
                session,
                kind=one.kind,
                customer_id=one.customer_id,
                payload=one.payload,
                dedupe_key=one.key,
            )
    return len(news)


async def _due(session: AsyncSession, now: datetime) -> list[Reminder]:
    is_braked = await brakes.is_tripped(session, Brake.SUSPENSIONS)
    until = now if is_braked else now + GRACE_ENDING
    graces = await queries.any_customers_grace_ending(session, now, until)
    boxes = await box_queries.any_customers_boxes_ending(session, now, now + max(DESTROY_SOON))
    return [
        *(_of_grace(row, row.grace_until) for row in graces if row.grace_until),
        *(_of_box(box, box.delete_after, now) for box in boxes if box.delete_after),
    ]


def _of_grace(row: Subscription, until: datetime) -> Reminder:
    kind = MailKind.GRACE_ENDING
    return Reminder(
        customer_id=row.customer_id,
        kind=kind,
        payload=_plan_payload(row) | {"grace_until": until.isoformat()},
        key=f"{kind.value}:{row.id}:{until.isoformat()}",
    )


def _of_box(box: Box, until: datetime, now: datetime) -> Reminder:
    """Return the nearest of a box's two reminders: one that is late is not sent beside it."""
    kind = MailKind.DESTROY_SOON
    days = next(within.days for within in DESTROY_SOON if until - within <= now)
    return Reminder(
        customer_id=box.customer_id,
        kind=kind,
        payload={"delete_after": until.isoformat()},
        key=f"{kind.value}:{box.id}:{until.isoformat()}:{days}",
    )


def _kind_for(subscription: Subscription, before: Before, *, had_box: bool) -> MailKind | None:
    if before.subscription_id != subscription.id:
        return _kind_for_new(subscription, had_box=had_box)
    if subscription.status == before.status:
        return MailKind.PLAN_CHANGED if subscription.tier != before.tier else None
    if subscription.status is SubscriptionStatus.PAST_DUE:
        return MailKind.PAYMENT_FAILED
    if subscription.status not in SERVED:
        return MailKind.SUSPENDED
    if before.status is SubscriptionStatus.PAST_DUE:
        return MailKind.PAYMENT_THANKS
    return None if before.status in SERVED else MailKind.REACTIVATED


def _kind_for_new(subscription: Subscription, *, had_box: bool) -> MailKind | None:
    if subscription.status not in SERVED:
        return MailKind.SUSPENDED if had_box else None
    return MailKind.REACTIVATED if had_box else MailKind.WELCOME


def _key(kind: MailKind, subscription: Subscription, decision: Decision) -> str | None:
    """Return what makes a mail one of a kind: its subscription, or the start of its lapse."""
    if kind is MailKind.WELCOME:
        return f"{kind.value}:{subscription.id}"
    if kind is MailKind.PLAN_CHANGED:
        start = decision.period_start.isoformat()
        return f"{kind.value}:{subscription.id}:{decision.tier.value}:{start}"
    if kind is MailKind.PAYMENT_FAILED and decision.past_due_since:
        return f"{kind.value}:{subscription.id}:{decision.past_due_since.isoformat()}"
    return None


def _payload(subscription: Subscription, decision: Decision) -> dict[str, Any]:
    payload = _plan_payload(subscription)
    for name, moment in (
        ("grace_until", decision.grace_until),
        ("delete_after", decision.delete_after),
    ):
        if moment is not None:
            payload[name] = moment.isoformat()
    if subscription.status is SubscriptionStatus.CANCELLED:
        payload["reason"] = "your subscription has ended"
    return payload


def _plan_payload(subscription: Subscription) -> dict[str, Any]:
    plan = plan_of(subscription.tier)
    return {
        "tier_name": plan.name,
        "price_cents": plan.price_cents,
        "currency": plan.currency,
        "tokens_limit": subscription.tokens_limit,
        "period_end": subscription.current_period_end.isoformat(),
    }


def _receipt(invoice: StripeInvoice) -> dict[str, Any]:
    found: dict[str, Any] = {"amount_cents": invoice.paid_cents, "currency": invoice.currency}
    if invoice.number:
        found["invoice_number"] = invoice.number
    if invoice.hosted_url:
        found["invoice_url"] = invoice.hosted_url
    return found


async def _queue(
    session: AsyncSession,
    subscription: Subscription,
    kind: MailKind,
    payload: dict[str, Any],
    key: str | None,
) -> None:
    await accounts.queue_mail(
        session,
        kind=kind,
        customer_id=subscription.customer_id,
        payload=payload,
        dedupe_key=key,
    )
