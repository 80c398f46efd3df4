"""What a customer changes about their plan: a bigger one now, a smaller one later, its end.

A bigger plan is a new period that begins now; a smaller one waits for the turn of the period.
Nothing here changes our own rows' tier or limit: Stripe is changed, and a sync follows it.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as audits
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.mails import MailKind
from openclaw_web.billing import change_rules as rules
from openclaw_web.billing import checkouts, queries, reversals
from openclaw_web.billing import service as billing
from openclaw_web.billing.change_rules import ChangeRefusedError
from openclaw_web.billing.checkouts import Sale
from openclaw_web.billing.models import Subscription, Tier
from openclaw_web.billing.tiers import Plan, plan_of
from openclaw_web.core.clock import REAL_NOW, business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payment_changes
from openclaw_web.integrations.payment_changes import ConfirmationNeededError, LeavingReason, Terms

PAGE = "/billing"
LONGEST_COMMENT = 500
TURN = timedelta(seconds=90)  # of one tab; Stripe is asked for less, so that it never outlives it
TURN_SECONDS = 75
UPGRADED, DOWNGRADED, DOWNGRADE_UNDONE = MOVING = (
    "plan.upgraded",
    "plan.downgrade_set",
    "plan.downgrade_undone",
)
CANCELLED, CANCEL_UNDONE = ENDING = ("plan.cancelled", "plan.cancel_undone")
REASONS: Mapping[LeavingReason, str] = {
    "too_expensive": "It costs too much",
    "unused": "I do not use it enough",
    "missing_features": "It cannot do what I need",
    "low_quality": "It does not answer well enough",
    "too_complex": "It is too complicated",
    "switched_service": "I found something else",
    "customer_service": "I was not helped well",
    "other": "Something else",
}


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Where a click came from, for the audit trail."""

    ip: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was changed at Stripe, and is to be written down here."""

    action: str
    diff: Mapping[str, Any] = field(default_factory=dict)
    mail: MailKind | None = None
    plan: Plan | None = None
    cancel_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChangePreview:
    """What a change of plan means, before it is made; money in cents.

    `proration_date` goes back with the click, so that exactly this amount is charged.
    """

    tier: Tier
    is_upgrade: bool
    due_now_cents: int
    currency: str
    next_charge_cents: int
    next_charge_at: datetime
    takes_effect_at: datetime
    tokens_limit: int
    proration_date: int


async def preview_change(customer_id: UUID, tier: Tier) -> ChangePreview:
    """Return what another plan costs and when it begins; no transaction is open while Stripe works.

    Nothing is changed, but a change that waits for a bank's confirmation is given up.

    Raises:
        ChangeRefusedError: it cannot be changed now, or it is the plan of today.
        VendorError: Stripe did not answer.
    """
    async with session_scope() as session:
        now = await business_now(session)
        row = await _live(session, customer_id)
        rules.refuse_unless_changeable(row, tier)
        await _refuse_while_reversed(session, row)
    terms = await _terms(row)
    plan = plan_of(tier)
    price_id = await payment_changes.price_named(plan.lookup_key)
    date = _proration_date(terms, now)
    is_upgrade = _is_bigger(plan, row)
    if is_upgrade:
        rules.refuse_unpaid(terms)
        quote = await payment_changes.quote_now(terms, price_id, proration_date=date)
    else:
        quote = await payment_changes.quote_at_turn(terms, price_id)
    return ChangePreview(
        tier=tier,
        is_upgrade=is_upgrade,
        due_now_cents=quote.due_now_cents,
        currency=quote.currency,
        next_charge_cents=quote.next_charge_cents,
        next_charge_at=quote.next_charge_at,
        takes_effect_at=now if is_upgrade else terms.period_end,
        tokens_limit=plan.tokens_limit,
        proration_date=date,
    )


async def change_plan(
    customer_id: UUID, tier: Tier, *, proration_date: int, asker: Asker | None = None
) -> None:
    """Change the plan as it was previewed; a second click finds it done and changes nothing.

    Raises:
        ChangeRefusedError: it cannot be changed now, or the card was refused: all is as it was.
        ConfirmationNeededError: the bank asks its customer first; Stripe waits for 23 hours.
        VendorError: Stripe did not answer; trying again cannot charge twice.
    """
    plan = plan_of(tier)
    async with _turn(customer_id) as row:
        now = await _time_of_change(row, tier)
        price_id = await payment_changes.price_named(plan.lookup_key)
        terms = await _terms(row, wanted=price_id)
        is_upgrade, is_new = _is_bigger(plan, row), terms.price_id != price_id
        if is_new and is_upgrade:
            rules.refuse_old_quote(proration_date, now)
            rules.refuse_unpaid(terms)
            await _upgrade(row, terms, price_id, tier=tier, proration_date=proration_date)
        elif is_new:
            await payment_changes.change_at_turn(
                terms, price_id, price_before=_price_of_today(row, terms)
            )
        done = Done(
            action=UPGRADED if is_upgrade else DOWNGRADED,
            diff={"tier": [row.tier.value, tier.value]},
            mail=None if is_upgrade else MailKind.PLAN_CHANGE_SCHEDULED,
            plan=plan,
        )
        await _write(row, done, asker, is_new=is_new)


async def undo_change(customer_id: UUID, *, asker: Asker | None = None) -> None:
    """Keep the plan of today after all; without a change that waits, nothing happens.

    Raises:
        ChangeRefusedError: there is no plan, or the change has been made already.
        VendorError: Stripe did not answer.
    """
    async with _turn(customer_id) as row:
        terms = await _terms(row)
        is_new = terms.price_tier != row.tier.value
        if is_new:
            name = plan_of(row.tier).lookup_key
            price_id = terms.price_before or await payment_changes.price_named(name)
            await payment_changes.change_at_turn(terms, price_id, price_before=price_id)
        done = Done(action=DOWNGRADE_UNDONE, diff={"tier": row.tier.value})
        await _write(row, done, asker, is_new=is_new)


async def cancel(
    customer_id: UUID, *, reason: LeavingReason, comment: str = "", asker: Asker | None = None
) -> None:
    """End the plan with the period that is paid; a second click changes nothing.

    Raises:
        ChangeRefusedError: there is no plan, or no such reason.
        VendorError: Stripe did not answer.
    """
    if reason not in REASONS:
        raise ChangeRefusedError("Choose one of the reasons from the list.")
    said = comment.strip()[:LONGEST_COMMENT]
    async with _turn(customer_id) as row:
        terms = await _running(row)
        is_new = not terms.cancel_at_period_end
        if is_new:
            if terms.pending_invoice_id:
                await payment_changes.drop_pending_change(terms.pending_invoice_id)
            await payment_changes.cancel_at_period_end(
                terms.stripe_subscription_id, reason=reason, comment=said
            )
        done = Done(
            action=CANCELLED,
            diff={"reason": reason},
            mail=MailKind.CANCEL_SCHEDULED,
            plan=plan_of(row.tier),
            cancel_reason=f"{reason}: {said}" if said else reason,
        )
        await _write(row, done, asker, is_new=is_new)


async def undo_cancel(customer_id: UUID, *, asker: Asker | None = None) -> None:
    """Take a cancellation back while the plan still runs; a second click changes nothing.

    Raises:
        ChangeRefusedError: the plan has ended; only a new payment brings it back.
        VendorError: Stripe did not answer.
    """
    async with _turn(customer_id) as row:
        terms = await _running(row)
        if terms.cancel_at_period_end:
            await payment_changes.keep_after_period_end(terms.stripe_subscription_id)
        done = Done(
            action=CANCEL_UNDONE,
            mail=MailKind.CANCEL_UNDONE,
            plan=plan_of(row.pending_tier or row.tier),
        )
        await _write(row, done, asker, is_new=terms.cancel_at_period_end)


async def start_again(customer_id: UUID, tier: Tier) -> str:
    """Return where a customer whose plan has ended pays for a new one; the box comes back with it.

    Raises:
        AlreadySubscribedError: there is a plan already.
        VendorError: Stripe did not answer.
    """
    base = f"{settings().public_url}{PAGE}"
    checkout = await checkouts.start_checkout(
        Sale(
            customer_id=customer_id,
            tier=tier,
            onboarding_session_id=None,
            success_url=f"{base}?checkout={{CHECKOUT_SESSION_ID}}",
            cancel_url=base,
        )
    )
    return checkout.url or base


async def _upgrade(
    row: Subscription, terms: Terms, price_id: str, *, tier: Tier, proration_date: int
) -> None:
    key = f"plan:{terms.stripe_subscription_id}:{price_id}:{proration_date}"
    try:
        await payment_changes.change_now(
            terms, price_id, proration_date=proration_date, idempotency_key=key
        )
    except payment_changes.CardRefusedError as error:
        await _note_failure(row, "plan.upgrade_refused", tier=tier.value, told=str(error))
        raise ChangeRefusedError(
            f"{str(error).rstrip('.')}. Nothing has changed and nothing was charged. "
            "Try another card."
        ) from error
    except VendorError as error:  # Stripe may have done it all the same
        await _note_failure(row, "plan.upgrade_failed", tier=tier.value, code=error.code)
        raise


async def _note_failure(row: Subscription, action: str, **diff: str) -> None:
    """Write it down and have Stripe looked at."""
    async with session_scope() as session:
        await _audit(session, row, action, None, **diff)
        await billing.request_sync(session, row.customer_id)


@asynccontextmanager
async def _turn(customer_id: UUID) -> AsyncGenerator[Subscription]:
    """Let one tab at a time change the plan; no transaction is open while Stripe is asked.

    A mark in the row, rather than a lock, says who is at it: nobody queues, a sync that runs
    meanwhile does not wait, and after a crash the mark runs out.

    Raises:
        ChangeRefusedError: another tab is at it, or there is no plan.
        VendorError: Stripe took too long; what it did is found by the next click and by a sync.
    """
    async with session_scope() as session:
        row = await _live(session, customer_id)
        until = await session.scalar(
            sa.update(Subscription)
            .where(
                col(Subscription.id) == row.id,
                sa.func.coalesce(col(Subscription.changing_until) < REAL_NOW, sa.true()),
            )
            .values(changing_until=REAL_NOW + TURN)
            .returning(col(Subscription.changing_until))
            .execution_options(synchronize_session=False)
        )
    if until is None:
        raise ChangeRefusedError(
            "Your plan is being changed in another tab. Try again in a moment."
        )
    try:
        async with asyncio.timeout(TURN_SECONDS):
            yield row
    except TimeoutError as error:
        await _note_failure(row, "plan.change_failed", code="slow")
        raise VendorError(
            "Stripe was too slow for this change.", can_retry=True, code="slow"
        ) from error
    finally:
        async with session_scope() as session:
            await session.exec(
                sa.update(Subscription)
                .where(col(Subscription.id) == row.id, col(Subscription.changing_until) == until)
                .values(changing_until=None)
                .execution_options(synchronize_session=False)
            )


async def _time_of_change(row: Subscription, tier: Tier) -> datetime:
    """Return now, unless this plan cannot be changed."""
    async with session_scope() as session:
        rules.refuse_unless_changeable(row, tier)
        await _refuse_while_reversed(session, row)
        return await business_now(session)


async def _write(row: Subscription, done: Done, asker: Asker | None, *, is_new: bool) -> None:
    """Write down what Stripe has now, once: also what an earlier click did and could not write."""
    async with session_scope() as session:
        if is_new or await _is_unwritten(session, row, done):
            if done.action in (CANCELLED, CANCEL_UNDONE):
                kept = await session.get_one(Subscription, row.id)
                kept.cancel_reason = done.cancel_reason
                session.add(kept)
                await session.flush()
            await _audit(session, row, done.action, asker, **done.diff)
            if done.mail and done.plan:
                await _mail(session, row, done.mail, done.plan)
        await billing.request_sync(session, row.customer_id)


async def _is_unwritten(session: AsyncSession, row: Subscription, done: Done) -> bool:
    """Say whether our own last word on this plan is another one than what Stripe has.

    An undoing needs something that it undoes: without that there was nothing to write.
    """
    kin = ENDING if done.action in ENDING else MOVING
    last = await audits.newest_act(session, row.customer_id, kin, resource_id=str(row.id))
    if done.action == CANCEL_UNDONE:
        return last is not None and last.action == CANCELLED
    if done.action == DOWNGRADE_UNDONE:
        began_at = (last.diff or {}).get("tier", [None])[0] if last else None
        return last is not None and last.action == DOWNGRADED and began_at == row.tier.value
    if last is None or last.action != done.action:
        return True
    return done.action in MOVING and last.diff != done.diff


async def _live(session: AsyncSession, customer_id: UUID) -> Subscription:
    row = await queries.find_live_subscription(session, customer_id)
    if row is None or row.stripe_subscription_id is None:
        raise ChangeRefusedError("You have no plan at the moment. Choose one first.")
    return row


async def _refuse_while_reversed(session: AsyncSession, row: Subscription) -> None:
    """Sell nothing on top of a plan that is being ended or given back."""
    if await reversals.has_open(session, row.stripe_subscription_id or ""):
        raise ChangeRefusedError(
            "A payment for this plan is being given back. Try again in a moment; if this lasts, "
            "ask our support."
        )


async def _running(row: Subscription) -> Terms:
    terms = await payment_changes.terms_of(row.stripe_subscription_id or "")
    if terms.has_ended:
        raise ChangeRefusedError("Your plan has ended. Choose one to start again.")
    return terms


async def _terms(row: Subscription, *, wanted: str = "") -> Terms:
    """Return what Stripe has now, free of an earlier change that nobody paid for.

    Raises:
        ChangeRefusedError: the period has turned at Stripe, and our row does not show it yet.
        ConfirmationNeededError: the wanted price waits for the bank's customer already.
    """
    terms = await _running(row)
    if terms.pending_invoice_id:
        if terms.pending_price_id == wanted and terms.pending_address:
            raise ConfirmationNeededError(address=terms.pending_address)
        await payment_changes.drop_pending_change(terms.pending_invoice_id)
        terms = await _running(row)
    if terms.period_start != row.current_period_start:
        raise ChangeRefusedError("Your plan has just changed. Look at this page again in a moment.")
    return terms


def _is_bigger(plan: Plan, row: Subscription) -> bool:
    return plan.price_cents > plan_of(row.tier).price_cents


def _proration_date(terms: Terms, now: datetime) -> int:
    """Return now in seconds, within the period even where Stripe's clock is a little ahead."""
    first, last = int(terms.period_start.timestamp()), int(terms.period_end.timestamp())
    return min(max(int(now.timestamp()), first), last)


def _price_of_today(row: Subscription, terms: Terms) -> str:
    """Return the price that this period was paid with."""
    if terms.price_tier == row.tier.value or terms.price_before is None:
        return terms.price_id
    return terms.price_before


async def _audit(
    session: AsyncSession, row: Subscription, action: str, asker: Asker | None, **diff: Any
) -> None:
    await accounts.audit(
        session,
        action=action,
        actor_id=str(row.customer_id),
        user_id=row.customer_id,
        resource_type="subscription",
        resource_id=str(row.id),
        diff=diff or None,
        ip=asker.ip if asker else None,
        user_agent=asker.user_agent if asker else None,
    )


async def _mail(session: AsyncSession, row: Subscription, kind: MailKind, plan: Plan) -> None:
    await accounts.queue_mail(
        session,
        kind=kind,
        customer_id=row.customer_id,
        payload={
            "tier_name": plan.name,
            "price_cents": plan.price_cents,
            "currency": plan.currency,
            "period_end": row.current_period_end.isoformat(),
        },
    )
