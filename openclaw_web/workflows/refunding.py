"""Ending a subscription and giving its money back: cancel, refund, write down, each of them once.

The wish is a row, written in the transaction that decides it. The worker carries it out step by
step; killed between any two, it does the same again, and Stripe knows the keys of the first time.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.mails import MailKind
from openclaw_web.accounts.models import Customer
from openclaw_web.billing import arrears, deliveries, queries, reversals
from openclaw_web.billing import service as billing
from openclaw_web.billing.facts import ConcernCode, Verdict
from openclaw_web.billing.models import Reversal, ReversalWhy
from openclaw_web.billing.reversals import Returned, Wish
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError, ValidationError, VendorError
from openclaw_web.integrations import payment_reversals as payments
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription
from openclaw_web.integrations.payment_reversals import InvoicePayment, Reason, StripeRefund
from openclaw_web.jobs import service as jobs
from openclaw_web.workflows import brakes
from openclaw_web.workflows.brakes import Brake, Switch

logger = logging.getLogger(__name__)

ACTOR = "refunding"
FAILED_ALERT = "reversal_failed"
FRAUD_ALERT = "radar.early_fraud_warning.created"
AT_ONCE = 10
PAID = frozenset({"active", "trialing"})
DONE_ALREADY = "charge_already_refunded"
REVERSAL = "reversal"  # in a refund's metadata: which of our wishes it follows
BOUNCED = "refund_failed"
REST_AFTER_BOUNCE = 6 * 3600  # seconds; each try leaves a failed refund at Stripe
DISPUTED = "charge_disputed"  # then the bank has the money, and decides
# What every automatic one but an ending without money has to pass.
BRAKED = (ReversalWhy.UNDELIVERED, ReversalWhy.DUPLICATE, ReversalWhy.FRAUD_WARNING)
STRIPE_REASONS: dict[str, Reason] = {
    ReversalWhy.DUPLICATE: "duplicate",
    ReversalWhy.FRAUD_WARNING: "fraudulent",
    ReversalWhy.ADMIN: "requested_by_customer",
}
# Ends the mail's sentence "We did this because …".
BECAUSE: dict[str, str] = {
    ReversalWhy.UNDELIVERED: "we could not set up your assistant within a day, and we are sorry",
    ReversalWhy.DUPLICATE: "the same plan was paid twice; the first payment counts",
    ReversalWhy.FRAUD_WARNING: "your bank told us that the payment may not have been yours",
    ReversalWhy.ADMIN: "our support decided so",
}
Conclude = Callable[[AsyncSession, Reversal], Awaitable[None]]


async def conclude_nothing(_session: AsyncSession, _reversal: Reversal) -> None:
    """Draw no conclusions."""


async def request(session: AsyncSession, wish: Wish) -> Reversal | None:
    """Write down what shall be ended and given back, if the brakes let it pass.

    `None`: it is under way already, or an admin is asked first.
    """
    if await reversals.has_open(session, wish.stripe_subscription_id):
        return None
    if wish.refunds and wish.why in BRAKED:
        now = await business_now(session)
        if not await brakes.passes(session, Brake.REFUNDS, now=now):
            return None
    made = await reversals.want(session, wish)
    if made is not None:
        await _audit(session, made, "reversal.requested", by=wish.by)
    return made


async def undo_duplicates(
    session: AsyncSession,
    customer_id: UUID,
    verdict: Verdict,
    subscriptions: Iterable[StripeSubscription],
    invoices: Sequence[StripeInvoice],
) -> None:
    """Of several subscriptions keep the one that counts; end the others, give the newer back.

    An older one that is overdue is only ended: what it paid for was used. While the one that is
    kept still waits for its first money, nothing is undone.
    """
    doubled = {one.subject for one in verdict.concerns if one.code is ConcernCode.DUPLICATE}
    if not doubled or verdict.current is None:
        return
    listed = {one.id: one for one in subscriptions}
    kept = listed[verdict.current.stripe_subscription_id]
    is_settled = arrears.has_paid(kept, invoices) or not arrears.owes(kept, invoices)
    if kept.status not in PAID or not is_settled:
        return
    if not await brakes.is_on(session, Switch.REFUND_DUPLICATES):
        return
    for one in (listed[stripe_id] for stripe_id in sorted(doubled)):
        await request(
            session,
            Wish(
                customer_id=customer_id,
                stripe_subscription_id=one.id,
                why=ReversalWhy.DUPLICATE,
                by=ACTOR,
                refunds=one.created >= kept.created,
                checkout_id=await _checkout_of(session, customer_id, one),
            ),
        )


async def request_refund(
    session: AsyncSession, customer_id: UUID, *, by: str, reason: str, ends_now: bool = False
) -> Reversal:
    """Give a customer's latest payment back by an admin's wish; the period is kept, or ended now.

    Raises:
        NotFoundError: the customer never had a subscription.
        ValidationError: no reason was given, or it is under way already.
    """
    brakes.require_reason(reason)
    subscription = await queries.find_subscription(session, customer_id)
    if subscription is None or subscription.stripe_subscription_id is None:
        raise NotFoundError("This customer has paid for nothing.")
    wish = Wish(
        customer_id=customer_id,
        stripe_subscription_id=subscription.stripe_subscription_id,
        why=ReversalWhy.ADMIN,
        by=by,
        cancels=ends_now,
        checkout_id=await deliveries.find_undelivered(
            session, customer_id, subscription.stripe_subscription_id
        )
        if ends_now
        else None,
    )
    made = await reversals.want(session, wish)
    if made is None:
        raise ValidationError("Money is being given back to this customer already.")
    await _audit(session, made, "reversal.requested", by=by, reason=reason.strip())
    return made


async def carry_out_due(*, conclude: Conclude = conclude_nothing) -> int:
    """Do what is due; returns how many were finished. One that fails holds up no other."""
    async with session_scope() as session:
        is_stopped = await brakes.is_tripped(session, Brake.REFUNDS)
        resting = BRAKED if is_stopped else ()
        due = await reversals.claim_due(session, limit=AT_ONCE, resting=resting)
    finished = 0
    for reversal in due:
        fields = {"customer_id": reversal.customer_id}
        try:
            await _carry_out(reversal, conclude)
            finished += 1
        except OpenClawError as error:
            logger.warning("Money could not be given back: %s", error, extra=fields)
            await _note_failure(reversal, error)
        except Exception as error:
            logger.exception("Money could not be given back.", extra=fields)
            await _note_failure(reversal, error)
    return finished


async def _carry_out(reversal: Reversal, conclude: Conclude) -> None:
    if reversal.cancels and reversal.cancelled_at is None:
        await _end(reversal)
    returned = await _give_back(reversal) if reversal.refunds else Returned()
    async with session_scope() as session:
        await _write_down(session, reversal.id, returned, conclude)


async def _end(reversal: Reversal) -> None:
    await payments.cancel_now(reversal.stripe_subscription_id)
    async with session_scope() as session:
        await reversals.note_cancelled(session, reversal.id)


async def _give_back(reversal: Reversal) -> Returned:
    """Give back what was paid for the subscription, and has not been given back yet.

    Raises:
        VendorError: Stripe refused or did not answer.
    """
    async with session_scope() as session:
        customer = await session.get_one(Customer, reversal.customer_id)
    found = await payments.invoice_payments_of(customer.stripe_customer_id or "")
    mine = [one for one in found if one.stripe_subscription_id == reversal.stripe_subscription_id]
    if reversal.payment_intent_id is not None:
        mine = [one for one in mine if one.payment_intent_id == reversal.payment_intent_id]
    elif reversal.why == ReversalWhy.ADMIN:
        mine = mine[:1]  # the newest comes first; a later try must not find a newer one
        if mine:
            async with session_scope() as session:
                await reversals.note_payment(session, reversal.id, mine[0].payment_intent_id)
    cents, own_cents, refund_id = [], 0, None
    for one in mine:
        given = await _give_one_back(reversal, one)
        cents.append((one.invoice_id, _sum(given)))
        own_cents += _sum([refund for refund in given if _is_of(refund, reversal)])
        refund_id = given[0].id if given else refund_id
    return Returned(
        refund_id=refund_id,
        currency=mine[-1].currency if mine else None,
        cents_of_invoices=tuple(cents),
        own_cents=own_cents,
    )


async def _give_one_back(reversal: Reversal, payment: InvoicePayment) -> list[StripeRefund]:
    """Return what was given back of a payment, by now, the newest refund first."""
    intent = payment.payment_intent_id
    before = await payments.refunds_of_payment(intent)
    given = [one for one in before if one.is_given_back]
    if _sum(given) >= payment.paid_cents:
        return given
    try:
        made = await payments.refund_payment(
            intent,
            idempotency_key=_key(intent, before),
            metadata={"why": reversal.why, REVERSAL: str(reversal.id)},
            reason=STRIPE_REASONS.get(reversal.why),
        )
    except VendorError as error:
        if error.code not in {DISPUTED, DONE_ALREADY}:
            raise
        return given
    if not made.is_given_back:
        raise VendorError(
            f"Stripe says that the refund {made.id} is {made.status}.",
            can_retry=False,
            code=BOUNCED,
        )
    return [made, *given]


def _sum(refunds: Iterable[StripeRefund]) -> int:
    return sum(one.amount_cents for one in refunds)


def _is_of(refund: StripeRefund, reversal: Reversal) -> bool:
    return refund.metadata.get(REVERSAL) == str(reversal.id)


def _key(payment_intent_id: str, before: Sequence[StripeRefund]) -> str:
    """Return the same key for the same try: one that a bank rejected is followed by another."""
    return ":".join(["refund", payment_intent_id, *([str(len(before))] if before else [])])


async def _write_down(
    session: AsyncSession, reversal_id: UUID, returned: Returned, conclude: Conclude
) -> None:
    row = await reversals.finish(session, reversal_id, returned, now=await business_now(session))
    if row is None:
        return
    await conclude(session, row)
    await _audit(session, row, "reversal.finished", by=ACTOR)
    customer = await account_queries.find_customer(session, row.customer_id)
    if returned.own_cents and customer is not None:
        await accounts.queue_mail(
            session,
            kind=MailKind.REFUNDED,
            customer_id=row.customer_id,
            payload={
                "amount_cents": returned.own_cents,
                "currency": returned.currency,
                "reason": BECAUSE.get(row.why, ""),
            },
            dedupe_key=f"refunded:{returned.refund_id}",
        )
    await jobs.resolve_alert(
        session, code=ConcernCode.DUPLICATE.value, subject=row.stripe_subscription_id
    )
    if returned.cents or not row.refunds or row.why == ReversalWhy.DUPLICATE:
        await jobs.resolve_alert(session, code=FAILED_ALERT, subject=str(row.id))
    else:
        await _alert(session, row, "Nothing could be given back; a bank may have the money.")
    await billing.request_sync(session, row.customer_id)


async def _note_failure(reversal: Reversal, error: Exception) -> None:
    """Try again later; what trying again cannot mend is told to an admin."""
    is_ours = isinstance(error, OpenClawError)
    sentence = str(error) if is_ours else type(error).__name__
    async with session_scope() as session:
        code = error.code if isinstance(error, VendorError) else None
        pause = REST_AFTER_BOUNCE if code == BOUNCED else None
        await reversals.fail(session, reversal, error=sentence, pause_seconds=pause)
        if not (isinstance(error, VendorError) and error.can_retry):
            await _alert(session, reversal, sentence)


async def _alert(session: AsyncSession, reversal: Reversal, sentence: str) -> None:
    await jobs.raise_alert(
        session,
        code=FAILED_ALERT,
        subject=str(reversal.id),
        detail={"customer_id": str(reversal.customer_id), "error": sentence},
    )


async def _checkout_of(
    session: AsyncSession, customer_id: UUID, subscription: StripeSubscription
) -> UUID | None:
    """Return our checkout that a subscription came from, by what it says of itself."""
    return await reversals.find_checkout_id(
        session, customer_id, subscription.metadata.get("checkout_id", "")
    )


async def _audit(
    session: AsyncSession, row: Reversal, action: str, *, by: str, reason: str | None = None
) -> None:
    await accounts.audit(
        session,
        action=action,
        actor_type="admin" if by.startswith("admin:") else "system",
        actor_id=by,
        user_id=row.customer_id,
        resource_type="reversal",
        resource_id=str(row.id),
        reason=reason,
        diff={
            "why": str(row.why),
            "cancels": row.cancels,
            "refunds": row.refunds,
            "refunded_cents": row.refunded_cents,
        },
    )
