"""From what Stripe says to what a customer has: subscription, period, box, jobs and mails.

Everything that hears of a payment only asks for a sync; this is the one place that acts.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts.models import Customer
from openclaw_web.billing import entitlement, leases, mapping, queries, records
from openclaw_web.billing import service as billing
from openclaw_web.billing.facts import Decision, Facts, Verdict
from openclaw_web.billing.models import Subscription
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit, session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.integrations import payments, redis
from openclaw_web.integrations.payment_objects import (
    CheckoutSession,
    StripeInvoice,
    StripeSubscription,
)
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import WebhookEvent, WebhookOutcome
from openclaw_web.metering import service as metering
from openclaw_web.workflows import brakes, disputes, refunding
from openclaw_web.workflows import subscription_effects as effects
from openclaw_web.workflows.disputes import Taken
from openclaw_web.workflows.subscription_mails import Before

logger = logging.getLogger(__name__)

STRIPE_SECONDS = 45  # less than the lease, so that an answer still counts when it comes
MOST_TURNS = 10  # of one call; whoever asks more often is served by the next
FAILED_ALERT = "billing_sync_failed"
STRANGER_ATTEMPTS = 6  # an event of somebody who is not our customer waits for about six minutes
ADMIN_EVENTS = frozenset({disputes.DISPUTE_ALERT, disputes.WARNING_ALERT, disputes.BOUNCED_ALERT})

NOTHING_TAKEN = Taken()


@dataclass(frozen=True, kw_only=True)
class Found:
    """One look at Stripe, taken after the lease."""

    subscriptions: tuple[StripeSubscription, ...]
    invoices: tuple[StripeInvoice, ...]
    page: CheckoutSession | None
    is_customer_deleted: bool = False
    taken: Taken = NOTHING_TAKEN


async def sync(customer_id: UUID) -> None:
    """Make what we have of a customer equal to what Stripe says; repeat while somebody asks for it.

    Safe to call at any time and from any number of workers: one of them works, the others return.
    An error keeps the request, is written down, and `due_syncs` brings the customer back.
    """
    owner = f"{socket.gethostname()}:{uuid4().hex}"
    try:
        for _ in range(MOST_TURNS):
            async with session_scope() as session:
                served = await leases.take(session, customer_id, owner=owner)
            if served is None or await _turn(customer_id, owner=owner, served=served):
                return
    except leases.LeaseLostError:
        logger.warning(
            "A sync took too long and was taken over.", extra={"customer_id": customer_id}
        )
    except OpenClawError as error:
        logger.warning("A sync failed: %s", error, extra={"customer_id": customer_id})
        await _note_failure(customer_id, owner=owner, error=error)


async def due_syncs(*, limit: int = 20) -> Sequence[UUID]:
    """Return who waits for a sync that nobody rang for, or that failed a while ago."""
    async with session_scope() as session:
        return await queries.any_customers_due_for_sync(session, limit=limit)


async def request_overdue_syncs() -> int:
    """Ask for the syncs that a date of ours or a lost webhook calls for; returns how many."""
    async with session_scope() as session:
        customers = await queries.any_customers_to_sync(session, await business_now(session))
        for customer_id in sorted(customers):
            await billing.request_sync(session, customer_id)
    return len(customers)


async def apply_webhook_events(*, limit: int = 50) -> int:
    """Turn stored events into requests for a sync, and return how many were looked at.

    One that breaks is tried again later and, after enough tries, told to an admin; those behind it
    do not wait for that.
    """
    owner = f"{socket.gethostname()}:{uuid4().hex}"
    async with session_scope() as session:
        events = await jobs.claim_webhook_events(session, owner=owner, limit=limit)
    for event in events:
        await apply_claimed_event(event)
    return len(events)


async def apply_claimed_event(event: WebhookEvent) -> UUID | None:
    """Ask for the sync that an event of ours calls for; returns whose, once it was applied."""
    try:
        payer = await disputes.payer_of(event.event_type, _object_of(event))
        async with session_scope() as session:
            return await _apply_event(session, event, payer=payer)
    except Exception as error:
        logger.exception("The event %s could not be applied.", event.event_id)
        async with session_scope() as session:
            await jobs.retry_webhook_event(session, event, error=type(error).__name__)
    return None


async def _turn(customer_id: UUID, *, owner: str, served: int) -> bool:
    """Look at Stripe once and write what follows; `False` means that another look was asked for."""
    async with session_scope() as session:
        stripe_id, page_id = await _what_to_ask(session, customer_id)
    found = await _ask_stripe(stripe_id, page_id)
    async with session_scope() as session:
        await leases.check(session, customer_id, owner=owner)
        now = await business_now(session)
        await _write(session, customer_id, found, now)
        await jobs.resolve_alert(session, code=FAILED_ALERT, subject=str(customer_id))
        after_commit(session, partial(redis.announce_change, customer_id))
        after_commit(session, partial(redis.announce_access, customer_id))
        return await leases.finish(session, customer_id, owner=owner, served=served, now=now)


async def _what_to_ask(session: AsyncSession, customer_id: UUID) -> tuple[str | None, str | None]:
    customer = await session.get(Customer, customer_id)
    checkout = await queries.find_unsettled_checkout(session, customer_id)
    return (
        customer.stripe_customer_id if customer else None,
        checkout.stripe_session_id if checkout else None,
    )


async def _ask_stripe(stripe_customer_id: str | None, page_id: str | None) -> Found:
    """Read everything at once.

    Raises:
        VendorError: Stripe refused, or did not answer while our lease holds.
    """
    if stripe_customer_id is None:
        return Found(subscriptions=(), invoices=(), page=None)
    try:
        async with asyncio.timeout(STRIPE_SECONDS), asyncio.TaskGroup() as group:
            subscriptions = group.create_task(_subscriptions(stripe_customer_id))
            invoices = group.create_task(_invoices(stripe_customer_id))
            taken = group.create_task(_taken(stripe_customer_id))
            page = group.create_task(_page(page_id))
    except TimeoutError as error:
        raise VendorError(
            "Stripe was too slow for one sync.", can_retry=True, code="slow"
        ) from error
    except ExceptionGroup as group:
        vendor_error = next((one for one in group.exceptions if isinstance(one, VendorError)), None)
        if vendor_error is None:
            raise
        raise vendor_error from group
    listed, is_customer_deleted = subscriptions.result()
    return Found(
        subscriptions=listed,
        invoices=invoices.result(),
        page=page.result(),
        is_customer_deleted=is_customer_deleted,
        taken=taken.result(),
    )


async def _subscriptions(stripe_customer_id: str) -> tuple[tuple[StripeSubscription, ...], bool]:
    """Return what Stripe lists; where nothing runs, also whether the customer was deleted there."""
    try:
        listed = await payments.subscriptions_of(stripe_customer_id)
    except VendorError as error:
        await _raise_unless_deleted(error, stripe_customer_id)
        return (), True
    if any(one.status not in mapping.ENDED for one in listed):
        return listed, False
    return listed, await payments.is_customer_deleted(stripe_customer_id)


async def _invoices(stripe_customer_id: str) -> tuple[StripeInvoice, ...]:
    try:
        return await payments.invoices_of(stripe_customer_id)
    except VendorError as error:
        await _raise_unless_deleted(error, stripe_customer_id)
        return ()


async def _taken(stripe_customer_id: str) -> Taken:
    try:
        return await disputes.look(stripe_customer_id)
    except VendorError as error:
        await _raise_unless_deleted(error, stripe_customer_id)
        return NOTHING_TAKEN


async def _raise_unless_deleted(error: VendorError, stripe_customer_id: str) -> None:
    """Raise an error again, unless Stripe only says that it has deleted this customer."""
    is_missing = error.code == "resource_missing"
    if not is_missing or not await payments.is_customer_deleted(stripe_customer_id):
        raise error


async def _page(page_id: str | None) -> CheckoutSession | None:
    return await payments.retrieve_checkout_session(page_id) if page_id else None


async def _write(session: AsyncSession, customer_id: UUID, found: Found, now: datetime) -> None:
    """Write everything that follows from one look at Stripe; the second time changes nothing."""
    if found.page is not None:
        await _note_page(session, customer_id, found.page, now)
    known = await queries.find_subscription(session, customer_id)
    await disputes.settle_holds(session, customer_id, found.taken, found.subscriptions)
    verdict = await _verdict(session, customer_id, known, found, now)
    await refunding.undo_duplicates(
        session, customer_id, verdict, found.subscriptions, found.invoices
    )
    if await brakes.holds_back_suspension(session, known, verdict.current, now=now):
        return
    for concern in verdict.concerns:
        await jobs.raise_alert(
            session,
            code=concern.code.value,
            subject=concern.subject,
            detail={"customer_id": str(customer_id), "sentence": concern.sentence},
        )
    before = Before.of(known)
    subscription = await _write_subscription(
        session, customer_id, known, verdict, found=found, now=now
    )
    paid = await records.copy_invoices(
        session, customer_id, found.invoices, subscription=subscription, now=now
    )
    await disputes.note_refunds(session, customer_id, found.taken, found.invoices)
    if verdict.current is None or subscription is None:
        return
    await _open_period(session, subscription, verdict.current)
    await effects.carry_out(
        session,
        subscription,
        verdict.current,
        before=before,
        onboarding_session_id=await _onboarding_of(session, customer_id, found, verdict.current),
        paid=tuple(paid),
    )


async def _note_page(
    session: AsyncSession, customer_id: UUID, page: CheckoutSession, now: datetime
) -> None:
    checkout = await queries.find_checkout_of_page(session, customer_id, page.id)
    if checkout is not None:
        await records.note_checkout(session, checkout, page, now=now)


async def _verdict(
    session: AsyncSession,
    customer_id: UUID,
    known: Subscription | None,
    found: Found,
    now: datetime,
) -> Verdict:
    allowances = await queries.live_allowances(session, customer_id, now)
    holds = await queries.open_holds(session, customer_id)
    return mapping.decide(
        Facts(
            subscriptions=found.subscriptions,
            invoices=found.invoices,
            holds=tuple(hold.kind for hold in holds),
            extra_grace=allowances.grace,
            extra_tokens=allowances.tokens,
            known=records.known_from(known),
            released_at=await queries.find_last_release(session, customer_id),
            is_customer_deleted=found.is_customer_deleted,
            now=now,
        )
    )


async def _write_subscription(
    session: AsyncSession,
    customer_id: UUID,
    known: Subscription | None,
    verdict: Verdict,
    *,
    found: Found,
    now: datetime,
) -> Subscription | None:
    """Update our row, or add one when the subscription is another; the old one then ends.

    One that we had ended comes back with its old row: of two that were paid, the other lapsed.
    """
    decision = verdict.current
    if decision is None:
        return known
    if known is not None:
        if known.stripe_subscription_id == decision.stripe_subscription_id:
            return await records.update_subscription(session, known, decision, now=now)
        status = _status_of(found, known.stripe_subscription_id)
        await records.close_subscription(session, known, stripe_status=status, now=now)
    stripe_id = decision.stripe_subscription_id
    old = await queries.find_subscription_of_stripe(session, customer_id, stripe_id)
    if old is not None:
        return await records.update_subscription(session, old, decision, now=now)
    return await records.add_subscription(session, customer_id, decision, now=now)


def _status_of(found: Found, stripe_subscription_id: str | None) -> str | None:
    return next(
        (one.status for one in found.subscriptions if one.id == stripe_subscription_id), None
    )


async def _open_period(
    session: AsyncSession, subscription: Subscription, decision: Decision
) -> None:
    """Ensure the usage period, with the end and the limit that it has now."""
    if subscription.status not in entitlement.SERVED:
        return
    is_provisional = not decision.is_period_paid
    row = await metering.open_period(
        session,
        customer_id=subscription.customer_id,
        period_start=decision.period_start,
        period_end=decision.period_end,
        tokens_limit=decision.period_limit,
        is_provisional=is_provisional,
    )
    if row.is_provisional == is_provisional:
        await metering.correct_period(
            session, row, period_end=decision.period_end, tokens_limit=decision.period_limit
        )


async def _onboarding_of(
    session: AsyncSession, customer_id: UUID, found: Found, decision: Decision
) -> UUID | None:
    """Return the chat that this payment came from: by our own checkout, never by an address.

    Who comes back may pay without a chat; then the chat of an earlier payment says what to start.
    """
    wanted = decision.stripe_subscription_id
    for one in sorted(found.subscriptions, key=lambda one: (one.id == wanted, one.created))[::-1]:
        checkout_id = _uuid(one.metadata.get("checkout_id"))
        if checkout_id is None:
            continue
        checkout = await queries.find_checkout(session, customer_id, checkout_id)
        if checkout is not None and checkout.onboarding_session_id is not None:
            return checkout.onboarding_session_id
    return None


async def _note_failure(customer_id: UUID, *, owner: str, error: OpenClawError) -> None:
    """Keep the request for later; what trying again cannot mend is told to an admin."""
    can_retry = isinstance(error, VendorError) and error.can_retry
    async with session_scope() as session:
        if not can_retry:
            await jobs.raise_alert(
                session,
                code=FAILED_ALERT,
                subject=str(customer_id),
                detail={"error": str(error), "customer_id": str(customer_id)},
            )
        await leases.fail(session, customer_id, owner=owner, error=str(error), can_retry=can_retry)


async def _apply_event(
    session: AsyncSession, event: WebhookEvent, *, payer: str | None = None
) -> UUID | None:
    """Find out whose event this is and ask for a sync; what it says is not believed.

    `payer` is the Stripe customer of an event that names none.
    """
    if event.provider != "stripe" or event.event_type not in payments.EVENTS:
        await jobs.finish_webhook_event(session, event, outcome=WebhookOutcome.IGNORED)
        return None
    thing = _object_of(event)
    customer_id = await _customer_of(session, {**thing, "customer": payer} if payer else thing)
    if event.event_type in ADMIN_EVENTS:
        await jobs.raise_alert(
            session,
            code=event.event_type,
            subject=event.object_id or event.event_id,
            detail={"customer_id": str(customer_id or ""), "charge": str(thing.get("charge", ""))},
        )
    if customer_id is not None and await account_queries.find_customer(session, customer_id):
        await jobs.finish_webhook_event(session, event, outcome=WebhookOutcome.APPLIED)
        await billing.request_sync(session, customer_id)
        return customer_id
    if event.attempt < STRANGER_ATTEMPTS and customer_id is None:
        # Stripe can be faster than our own commit.
        await jobs.retry_webhook_event(session, event, error="This customer is not known yet.")
    else:
        await jobs.finish_webhook_event(
            session, event, outcome=WebhookOutcome.IGNORED, error="This is no customer of ours."
        )
    return None


def _object_of(event: WebhookEvent) -> Mapping[str, Any]:
    data = event.payload.get("data")
    thing = data.get("object") if isinstance(data, dict) else None
    return thing if isinstance(thing, dict) else {}


async def _customer_of(session: AsyncSession, thing: Mapping[str, Any]) -> UUID | None:
    """Return our customer, by Stripe's customer id, else by our own checkout's id."""
    stripe_id = thing.get("id") if thing.get("object") == "customer" else thing.get("customer")
    if isinstance(stripe_id, dict):
        stripe_id = stripe_id.get("id")
    if isinstance(stripe_id, str):
        customer_id = await queries.any_customer_of_stripe(session, stripe_id)
        if customer_id is not None:
            return customer_id
    checkout_id = _uuid(thing.get("client_reference_id"))
    return await queries.any_customer_of_checkout(session, checkout_id) if checkout_id else None


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError):
        return None
