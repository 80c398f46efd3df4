"""Money that banks and admins take back: what a fresh list of a customer's charges means to us.

An open dispute is a hold: the proxy closes, the box sleeps, nothing is deleted. Won, the hold ends;
lost, the subscription that it paid for ends first, and its memory is kept as after any end.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.mails import MailKind
from openclaw_web.billing import deliveries, holds, reversals
from openclaw_web.billing.models import HoldKind, ReversalWhy
from openclaw_web.billing.reversals import Wish
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations import payment_reversals as payments
from openclaw_web.integrations.payment_reversals import (
    ENDED,
    InvoicePayment,
    StripeCharge,
    StripeDispute,
)
from openclaw_web.jobs import queries as job_queries
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import Alert
from openclaw_web.workflows import brakes, refunding
from openclaw_web.workflows.brakes import Switch
from openclaw_web.workflows.looking import Found

logger = logging.getLogger(__name__)

ACTOR = "disputes"
DISPUTE_ALERT = "charge.dispute.created"
WARNING_ALERT = "radar.early_fraud_warning.created"
BOUNCED_ALERT = "refund.failed"  # a bank rejects a refund days later, and we have the money again
# Events about a charge; they do not say whose it is.
CHARGE_EVENTS = frozenset({DISPUTE_ALERT, "charge.dispute.closed", WARNING_ALERT, BOUNCED_ALERT})
MOST_WARNINGS = 20
MOST_BOUNCED = 100


async def payer_of(event_type: str, thing: Mapping[str, Any]) -> str | None:
    """Return the Stripe customer behind an event about a charge, who is not named in it.

    Raises:
        VendorError: Stripe did not answer.
    """
    charge_id = thing.get("charge")
    if event_type not in CHARGE_EVENTS or not isinstance(charge_id, str):
        return None
    charge = await payments.find_charge(charge_id)
    return charge.stripe_customer_id if charge else None


async def settle_holds(
    session: AsyncSession, customer_id: UUID, found: Found, held: Collection[str]
) -> bool:
    """Hold a customer while a dispute is open, or while what a lost one paid for still runs.

    `held` are the kinds of the holds of now; returns whether they changed. Where Stripe says
    nothing of the payments any more, a hold stays until an admin releases it.
    """
    if not found.are_charges_known:
        return False
    is_held = HoldKind.DISPUTE.value in held
    still_open = [one for one in found.disputes if one.is_open]
    for at, dispute in enumerate(still_open):
        await _hold(session, customer_id, dispute, is_new=not is_held and at == 0)
    for dispute in found.disputes:
        if not dispute.is_open:
            await jobs.resolve_alert(session, code=DISPUTE_ALERT, subject=dispute.id)
    live = {one.id for one in found.subscriptions if one.status not in ENDED}
    lost = {found.paid_by(one.payment_intent_id) for one in found.disputes if one.is_lost}
    to_end = sorted(one for one in lost if one in live)
    for stripe_id in to_end:
        await refunding.request(
            session,
            Wish(
                customer_id=customer_id,
                stripe_subscription_id=stripe_id,
                why=ReversalWhy.DISPUTE_LOST,
                by=ACTOR,
                refunds=False,
            ),
        )
    if still_open:
        return not is_held
    if to_end or not is_held:
        return False
    return await holds.release(
        session,
        customer_id=customer_id,
        kind=HoldKind.DISPUTE,
        by=ACTOR,
        reason="No dispute is open any more.",
    )


async def note_refunds(
    session: AsyncSession, customer_id: UUID, found: Found, known: Mapping[str, int]
) -> None:
    """Copy what was given back of each invoice, by whomever; the period is kept all the same.

    That can become less again: a bank rejects a refund, and the money is ours once more. `known`
    is what our copies of the invoices say.
    """
    if not found.are_charges_known:
        return
    await _close_bounced(session, found)
    for invoice in found.invoices:
        charges = found.charges_for(invoice)
        cents = sum(one.refunded_cents for one in charges)
        if known.get(invoice.id, cents) == cents:
            continue
        await reversals.note_refunded(session, customer_id, invoice.id, cents)
        await accounts.audit(
            session,
            action="invoice.refunded",
            actor_type="system",
            actor_id=ACTOR,
            user_id=customer_id,
            resource_type="invoice",
            resource_id=invoice.id,
            diff={
                "refunded_cents": cents,
                "is_full": cents > 0 and cents >= sum(one.amount_cents for one in charges),
            },
        )


async def _close_bounced(session: AsyncSession, found: Found) -> None:
    """Close the alerts of refunds that a bank rejected and that came through at a later try."""
    returned = {one.id for one in found.charges if one.refunded_cents >= one.amount_cents > 0}
    if not returned:
        return
    told = await job_queries.any_customers_alerts_of(session, BOUNCED_ALERT, limit=MOST_BOUNCED)
    for alert in told:
        if alert.detail.get("charge") in returned:
            await jobs.resolve_alert(session, code=BOUNCED_ALERT, subject=alert.subject)


async def refund_warned() -> int:
    """Give back what a bank warned us of, if an admin switched that on; returns how many."""
    async with session_scope() as session:
        if not await brakes.is_on(session, Switch.REFUND_FRAUD_WARNINGS):
            return 0
        warned = await job_queries.any_customers_alerts_of(
            session, WARNING_ALERT, limit=MOST_WARNINGS
        )
    count = 0
    for alert in warned:
        try:
            count += await _refund_warned(alert)
        except Exception as error:
            is_ours = isinstance(error, OpenClawError)
            logger.warning("A fraud warning could not be followed: %s", error, exc_info=not is_ours)
    return count


async def _refund_warned(alert: Alert) -> bool:
    charge_id = str(alert.detail.get("charge", ""))
    customer_id = str(alert.detail.get("customer_id", ""))
    if not charge_id or not customer_id:
        return False
    warnings = await payments.fraud_warnings_of(charge_id)
    charge = await payments.find_charge(charge_id)
    is_wanted = any(one.is_actionable for one in warnings) and not (
        charge is None or charge.is_disputed or charge.refunded_cents >= charge.amount_cents
    )
    payment = await _payment_of(charge) if charge and is_wanted else None
    async with session_scope() as session:
        if payment is None or payment.stripe_subscription_id is None:
            await jobs.resolve_alert(session, code=WARNING_ALERT, subject=alert.subject)
            return False
        made = await refunding.request(
            session,
            Wish(
                customer_id=UUID(customer_id),
                stripe_subscription_id=payment.stripe_subscription_id,
                why=ReversalWhy.FRAUD_WARNING,
                by=ACTOR,
                payment_intent_id=payment.payment_intent_id,
                checkout_id=await deliveries.find_undelivered(
                    session, UUID(customer_id), payment.stripe_subscription_id
                ),
            ),
        )
    return made is not None


async def _payment_of(charge: StripeCharge) -> InvoicePayment | None:
    found = await payments.invoice_payments_of(charge.stripe_customer_id or "")
    return next((one for one in found if one.payment_intent_id == charge.payment_intent_id), None)


async def _hold(
    session: AsyncSession, customer_id: UUID, dispute: StripeDispute, *, is_new: bool
) -> None:
    await holds.place(
        session,
        customer_id=customer_id,
        kind=HoldKind.DISPUTE,
        reason=f"The cardholder disputes a payment ({dispute.id}).",
        by=ACTOR,
    )
    await jobs.raise_alert(
        session,
        code=DISPUTE_ALERT,
        subject=dispute.id,
        detail={
            "customer_id": str(customer_id),
            "charge": dispute.charge_id,
            "amount_cents": dispute.amount_cents,
            "reason": dispute.reason,
        },
    )
    if is_new and await account_queries.find_customer(session, customer_id) is not None:
        await accounts.queue_mail(
            session,
            kind=MailKind.DISPUTE_OPENED,
            customer_id=customer_id,
            payload={"amount_cents": dispute.amount_cents, "currency": dispute.currency},
            dedupe_key=f"dispute_opened:{dispute.id}",
        )
