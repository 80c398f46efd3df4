"""From what Stripe says to what a customer has: subscription, period, box, jobs and mails.

Everything that hears of a payment only asks for a sync; this is the one place that acts.
"""

import logging
import socket
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

from sqlalchemy.exc import OperationalError
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import entitlement, leases, mapping, queries, records
from openclaw_web.billing import service as billing
from openclaw_web.billing.facts import Decision, Facts
from openclaw_web.billing.models import Subscription
from openclaw_web.billing.standing import FAILED_ALERT, Standing, standing_of
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit, session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.integrations import redis
from openclaw_web.integrations.payment_objects import CheckoutSession, StripeInvoice
from openclaw_web.jobs import service as jobs
from openclaw_web.metering import queries as metering_queries
from openclaw_web.metering import service as metering
from openclaw_web.workflows import brakes, disputes, looking, refunding
from openclaw_web.workflows import subscription_effects as effects
from openclaw_web.workflows.looking import Found
from openclaw_web.workflows.stripe_events import uuid_from
from openclaw_web.workflows.subscription_mails import RENEWAL, Before

logger = logging.getLogger(__name__)

PAID_HELD_ALERT = "paid_under_hold"
MOST_TURNS = 10  # of one call; whoever asks more often is served by the next


async def sync(customer_id: UUID) -> None:
    """Make what we have of a customer equal to what Stripe says; repeat while somebody asks for it.

    Safe to call at any time and from any number of workers: one of them works, the others return.
    An error keeps the request, is written down, and `due_syncs` brings the customer back.
    """
    owner = f"{socket.gethostname()}:{uuid4().hex}"
    try:
        for _ in range(MOST_TURNS):
            if await _turn(customer_id, owner=owner):
                return
    except leases.LeaseLostError:
        logger.warning(
            "A sync took too long and was taken over.", extra={"customer_id": customer_id}
        )
    except Exception as error:
        is_ours = isinstance(error, OpenClawError)
        logger.warning(
            "A sync failed: %s", error, exc_info=not is_ours, extra={"customer_id": customer_id}
        )
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


async def _turn(customer_id: UUID, *, owner: str) -> bool:
    """Look at Stripe once and write what follows; `True`: nobody asks for another look.

    The lease comes first: an answer that was read before it could overwrite a newer one.
    """
    taken = await _take(customer_id, owner=owner)
    if taken is None:
        return True
    served, (stripe_id, page_id) = taken
    found = await looking.look(stripe_id, page_id)
    async with session_scope() as session:
        await leases.check(session, customer_id, owner=owner)
        now = await business_now(session)
        await _write(session, customer_id, found, now)
        after_commit(session, partial(redis.announce_change, customer_id))
        after_commit(session, partial(redis.announce_access, customer_id))
        return await leases.finish(session, customer_id, owner=owner, served=served, now=now)


async def _take(
    customer_id: UUID, *, owner: str
) -> tuple[int, tuple[str | None, str | None]] | None:
    """Take the lease; return the request that it serves, and where to look at Stripe."""
    async with session_scope() as session:
        served = await leases.take(session, customer_id, owner=owner)
        if served is None:
            return None
        return served, await queries.stripe_ids(session, customer_id)


async def _write(session: AsyncSession, customer_id: UUID, found: Found, now: datetime) -> None:
    """Write everything that follows from one look at Stripe; the second time changes nothing."""
    if found.page is not None:
        await _note_page(session, customer_id, found.page, now)
    known = await queries.find_subscription(session, customer_id)
    standing = await standing_of(session, customer_id, now)
    if standing.has_failed:
        await jobs.resolve_alert(session, code=FAILED_ALERT, subject=str(customer_id))
    if await disputes.settle_holds(session, customer_id, found, standing.holds):
        standing = await standing_of(session, customer_id, now)
    verdict = mapping.decide(_facts(known, found, standing, now))
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
    decision = verdict.current
    subscription = await _write_subscription(
        session, customer_id, known, decision, found=found, now=now
    )
    copied = await records.copy_invoices(
        session, customer_id, found.invoices, subscription=subscription, now=now
    )
    await disputes.note_refunds(session, customer_id, found, copied.refunded_cents)
    await _tell_of_paid_holds(session, customer_id, copied.paid, standing)
    if decision is None or subscription is None:
        return
    await _open_period(session, subscription, decision)
    await effects.carry_out(
        session,
        subscription,
        decision,
        before=before,
        checkout_ids=_checkouts_of(found, decision),
        paid=copied.paid,
    )


async def _tell_of_paid_holds(
    session: AsyncSession,
    customer_id: UUID,
    paid: Sequence[StripeInvoice],
    standing: Standing,
) -> None:
    """Tell an admin of a renewal that was paid under a hold: Stripe goes on collecting meanwhile.

    Most holds are released within days, and then the time is paid for. Whether money for a time
    that was not served goes back is for a person to decide.
    """
    for invoice in paid if standing.holds else ():
        if invoice.billing_reason != RENEWAL or not invoice.paid_cents:
            continue
        await jobs.raise_alert(
            session,
            code=PAID_HELD_ALERT,
            subject=invoice.id,
            detail={
                "customer_id": str(customer_id),
                "paid_cents": invoice.paid_cents,
                "sentence": f"A renewal was paid under a hold ({', '.join(standing.holds)}).",
            },
        )


async def _note_page(
    session: AsyncSession, customer_id: UUID, page: CheckoutSession, now: datetime
) -> None:
    checkout = await queries.find_checkout_of_page(session, customer_id, page.id)
    if checkout is not None:
        await records.note_checkout(session, checkout, page, now=now)


def _facts(known: Subscription | None, found: Found, standing: Standing, now: datetime) -> Facts:
    return Facts(
        subscriptions=found.subscriptions,
        invoices=found.invoices,
        holds=standing.holds,
        extra_grace=standing.extra_grace,
        extra_tokens=standing.extra_tokens,
        known=records.known_from(known),
        released_at=standing.released_at,
        is_customer_deleted=found.is_customer_deleted,
        now=now,
    )


async def _write_subscription(
    session: AsyncSession,
    customer_id: UUID,
    known: Subscription | None,
    decision: Decision | None,
    *,
    found: Found,
    now: datetime,
) -> Subscription | None:
    """Update our row, or add one when the subscription is another; the old one then ends.

    One that we had ended comes back with its old row: of two that were paid, the other lapsed.
    """
    if decision is None:
        return known
    if known is not None:
        if known.stripe_subscription_id == decision.stripe_subscription_id:
            return await records.update_subscription(session, known, decision, now=now)
        status = found.status_of(known.stripe_subscription_id)
        await records.close_subscription(session, known, stripe_status=status, now=now)
    stripe_id = decision.stripe_subscription_id
    old = await queries.find_subscription_of_stripe(session, customer_id, stripe_id)
    if old is not None:
        return await records.update_subscription(session, old, decision, now=now)
    return await records.add_subscription(session, customer_id, decision, now=now)


async def _open_period(
    session: AsyncSession, subscription: Subscription, decision: Decision
) -> None:
    """Ensure the usage period, with the end and the limit that it has now."""
    if subscription.status not in entitlement.SERVED:
        return
    is_provisional = not decision.is_period_paid
    if await metering_queries.is_only_period(
        session,
        subscription.customer_id,
        period_start=decision.period_start,
        period_end=decision.period_end,
        tokens_limit=decision.period_limit,
        is_provisional=is_provisional,
    ):
        return
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


def _checkouts_of(found: Found, decision: Decision) -> list[UUID]:
    """Return our own checkouts that the subscriptions came from: never judged by an address.

    The one of this payment comes first, then the newest: who comes back may pay without a chat,
    and then the chat of an earlier payment says what to start.
    """
    wanted = decision.stripe_subscription_id
    ordered = sorted(found.subscriptions, key=lambda one: (one.id == wanted, one.created))
    named = (uuid_from(one.metadata.get("checkout_id")) for one in reversed(ordered))
    return [one for one in named if one is not None]


async def _note_failure(customer_id: UUID, *, owner: str, error: Exception) -> None:
    """Keep the request for later; what trying again cannot mend is told to an admin.

    Of an error that nobody foresaw only the kind is told: its text may hold people's values.
    """
    is_ours = isinstance(error, OpenClawError)
    can_retry = error.can_retry if isinstance(error, VendorError) else _is_passing(error)
    told = str(error) if is_ours else f"{type(error).__name__}: the worker's log says more."
    async with session_scope() as session:
        if not can_retry:
            await jobs.raise_alert(
                session,
                code=FAILED_ALERT,
                subject=str(customer_id),
                detail={"error": told, "customer_id": str(customer_id)},
            )
        await leases.fail(session, customer_id, owner=owner, error=told, can_retry=can_retry)


def _is_passing(error: Exception) -> bool:
    """Say whether the database was only away, or had two of us wait for each other."""
    return isinstance(error, OperationalError)
