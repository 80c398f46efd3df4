"""Paid, but no assistant: keep trying, say so, and after a day give the money back.

The order is what makes it safe: a hold first, under the box's lock, so that nothing is provisioned
any more; then the end at Stripe; then the money; then the words.
"""

import logging
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.mails import MailKind
from openclaw_web.billing import deliveries, holds, queries, reversals
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import Checkout, HoldKind, Reversal, ReversalWhy, Subscription
from openclaw_web.billing.reversals import Wish
from openclaw_web.boxes import health, incidents
from openclaw_web.boxes import queries as box_queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.jobs import queries as job_queries
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobStatus, JobType
from openclaw_web.metering.models import UsageEvent
from openclaw_web.onboarding import chats, conversation
from openclaw_web.onboarding.models import OnboardingSession, OnboardingState
from openclaw_web.workflows import brakes, disputes, refunding
from openclaw_web.workflows.brakes import Brake, Switch

logger = logging.getLogger(__name__)

ACTOR = "delivery"
ALERT = "undelivered"
AT_ONCE = 100
GONE = frozenset({BoxStatus.DESTROYING, BoxStatus.DESTROYED})
# What only the customer can mend: their bot's token was revoked.
CUSTOMERS_FAULTS = frozenset({health.TELEGRAM})
WAITING_STATES = frozenset({OnboardingState.AWAITING_PAYMENT, OnboardingState.PROVISIONING})


async def turn_timers() -> None:
    """Do everything about money that is due: tell, give up, give back. Safe to run twice."""
    await watch_promises()
    await disputes.refund_warned()
    await refunding.carry_out_due(conclude=given_back)


async def watch_promises() -> int:
    """Look after every payment that has not led to an assistant; returns how many there are."""
    async with session_scope() as session:
        now = await business_now(session)
        late = await deliveries.any_customers_undelivered(session, now, limit=AT_ONCE)
    for checkout in late:
        try:
            async with session_scope() as session:
                await _look_after(session, checkout.id)
        except Exception as error:
            fields = {"customer_id": checkout.customer_id}
            is_ours = isinstance(error, OpenClawError)
            logger.warning(
                "A late delivery could not be seen to: %s",
                error,
                exc_info=not is_ours,
                extra=fields,
            )
    return len(late)


async def given_back(session: AsyncSession, reversal: Reversal) -> None:
    """After the money went back: let go of the customer, and of a box that never lived.

    If none went back, as a bank has it already, an admin decides, and nothing is destroyed.
    """
    if reversal.checkout_id is None:
        return
    is_ours = reversal.why == ReversalWhy.UNDELIVERED
    if is_ours:
        await holds.release(
            session,
            customer_id=reversal.customer_id,
            kind=HoldKind.REFUNDING,
            by=ACTOR,
            reason="What could be given back was given back.",
        )
    checkout = await session.get_one(Checkout, reversal.checkout_id)
    box = await _locked_box(session, reversal.customer_id)  # before the chat, as everywhere
    if reversal.refunded_cents or reversal.why == ReversalWhy.DUPLICATE:
        await jobs.resolve_alert(session, code=ALERT, subject=str(checkout.id))
    if not reversal.refunded_cents and is_ours:
        await _say(session, checkout, {"refund": "by_hand"}, conversation.MONEY_BY_HAND)
    if not reversal.refunded_cents or reversal.why == ReversalWhy.DUPLICATE:
        return
    await _say(session, checkout, {"refund": "done"}, conversation.REFUNDED)
    if is_ours and box is not None and box.activated_at is None:
        await _free_bot(session, reversal, box)


async def _free_bot(session: AsyncSession, reversal: Reversal, box: Box) -> None:
    """Remove a box that never answered, unless another, paid plan has it by now."""
    live = await queries.find_live_subscription(session, reversal.customer_id)
    if live is None or live.stripe_subscription_id == reversal.stripe_subscription_id:
        # It never answered, so it remembers nothing; and its bot is free for another try.
        await boxes.request_converge(session, box, job_type=JobType.DESTROY, requested_by=ACTOR)


async def _look_after(session: AsyncSession, checkout_id: UUID) -> None:
    """See what became of one late delivery; locks the checkout first, then the box, as a sync."""
    checkout = await deliveries.lock_checkout(session, checkout_id)
    if checkout.delivered_at is not None or checkout.refunded_at is not None:
        return
    now = await business_now(session)
    box = await _locked_box(session, checkout.customer_id)
    if _has_arrived(box, checkout):
        checkout.delivered_at = now
        session.add(checkout)
        await jobs.resolve_alert(session, code=ALERT, subject=str(checkout.id))
        return
    sold = await deliveries.find_sold(session, checkout)
    if box is None and sold is not None:
        await _tell_that_it_takes_longer(session, checkout)
    if checkout.deliver_by is None or now < checkout.deliver_by or sold is None:
        return
    if await reversals.has_open(session, sold.stripe_subscription_id or ""):
        return  # its money is on its way back already, for another reason
    why_not = await _why_not(session, checkout, box) or await _who_stops_us(session, now)
    await jobs.raise_alert(
        session,
        code=ALERT,
        subject=str(checkout.id),
        detail={
            "customer_id": str(checkout.customer_id),
            "sentence": why_not or "It is not delivered after a day; the money goes back.",
        },
    )
    if not why_not:
        await _give_up(session, checkout, sold, box)


async def _why_not(session: AsyncSession, checkout: Checkout, box: Box | None) -> str:
    """Return why this customer's money stays for now, in a sentence for an admin, or nothing."""
    held = await queries.open_holds(session, checkout.customer_id)
    if held:
        return f"Nothing is given back while there is a hold ({held[0].kind})."
    if box is not None and box.user_paused_at is not None:
        return "Its customer has paused it; that is no failure of ours."
    if box is not None and await _is_customers_fault(session, box):
        return (
            "It cannot connect to Telegram. If Telegram is not down, its bot token was revoked, and"
            " only its customer can mend that."
        )
    if await _has_used(session, checkout):
        return "Tokens were used since the payment, so something answered; look at it by hand."
    return ""


async def _who_stops_us(session: AsyncSession, now: datetime) -> str:
    """Return which switch or brake keeps all money here, or nothing; then one more is counted."""
    if not await brakes.is_on(session, Switch.REFUND_UNDELIVERED):
        return "Refunds of what is not delivered are switched off."
    if await _is_paused(session):
        return "Provisioning is paused, or many boxes fail at once; decide about refunds by hand."
    if await brakes.is_tripped(session, Brake.REFUNDS):
        return "Too much was given back within an hour; release the brake to go on."
    if not await brakes.passes(session, Brake.UNDELIVERED, now=now):
        return "Too many could not be delivered within a day; release the brake to go on."
    return ""


async def _give_up(
    session: AsyncSession, checkout: Checkout, sold: Subscription, box: Box | None
) -> None:
    """Stop the set-up and have the money given back, or leave all as it is for an admin."""
    wanted = await refunding.request(
        session,
        Wish(
            customer_id=checkout.customer_id,
            stripe_subscription_id=sold.stripe_subscription_id or "",
            why=ReversalWhy.UNDELIVERED,
            by=ACTOR,
            checkout_id=checkout.id,
        ),
    )
    if wanted is None:
        return
    await holds.place(
        session,
        customer_id=checkout.customer_id,
        kind=HoldKind.REFUNDING,
        reason="It could not be set up within a day; the money goes back.",
        by=ACTOR,
    )
    if box is not None:
        await boxes.request_converge(session, box, job_type=JobType.SUSPEND, requested_by=ACTOR)
    await _say(session, checkout, {"refund": "underway"}, conversation.REFUNDING)
    await billing.request_sync(session, checkout.customer_id)


async def _tell_that_it_takes_longer(session: AsyncSession, checkout: Checkout) -> None:
    """A payment without a box: its customer hears of it, and may press the button to try again."""
    chat = await _chat_of(session, checkout)
    if chat is not None and chat.state in WAITING_STATES:
        chats.apply(chat, OnboardingState.FAILED, {}, conversation.FAILED)
        await chats.touch(session, chat)
    if await account_queries.find_customer(session, checkout.customer_id) is not None:
        await accounts.queue_mail(
            session,
            kind=MailKind.PROVISIONING_FAILED,
            customer_id=checkout.customer_id,
            dedupe_key=f"provisioning_failed:{checkout.id}",
        )


async def _say(
    session: AsyncSession, checkout: Checkout, config: dict[str, Any], text: str
) -> None:
    chat = await _chat_of(session, checkout)
    if chat is not None and chat.state is not OnboardingState.COMPLETE:
        chats.apply(chat, OnboardingState.FAILED, config, text)
        await chats.touch(session, chat)


async def _chat_of(session: AsyncSession, checkout: Checkout) -> OnboardingSession | None:
    if checkout.onboarding_session_id is None:
        return None
    return await session.get(
        OnboardingSession,
        checkout.onboarding_session_id,
        with_for_update={"key_share": True},
        populate_existing=True,
    )


async def _locked_box(session: AsyncSession, customer_id: UUID) -> Box | None:
    found = await box_queries.find_box_of_customer(session, customer_id)
    if found is None:
        return None
    box = await box_queries.get_any_box(session, found.id, lock=True)
    return None if box.status in GONE else box


def _has_arrived(box: Box | None, checkout: Checkout) -> bool:
    """Say whether the assistant answers, or did since it was paid for."""
    if box is None or checkout.paid_at is None:
        return False
    was_activated = box.activated_at is not None and box.activated_at >= checkout.paid_at
    return was_activated or box.status is BoxStatus.ACTIVE


async def _is_customers_fault(session: AsyncSession, box: Box) -> bool:
    if CUSTOMERS_FAULTS & set(box.health.get(health.FAILING) or ()):
        return True
    newest = await job_queries.jobs_of_customer(session, box.customer_id, limit=AT_ONCE)
    failed = (one for one in newest if one.box_id == box.id and one.status is JobStatus.FAILED)
    codes = (one.error_code for one in failed if one.error_code != jobs.CANCELLED)
    return next(codes, None) in CUSTOMERS_FAULTS


async def _has_used(session: AsyncSession, checkout: Checkout) -> bool:
    found = await session.exec(
        select(UsageEvent.id)
        .where(
            UsageEvent.customer_id == checkout.customer_id,
            col(UsageEvent.timestamp) >= checkout.paid_at,
        )
        .limit(1)
    )
    return found.first() is not None


async def _is_paused(session: AsyncSession) -> bool:
    if await brakes.is_on(session, Switch.PROVISIONING_PAUSED):
        return True
    return bool(await job_queries.any_customers_alerts_of(session, incidents.ALERT))
