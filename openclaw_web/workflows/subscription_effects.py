"""What a change of a subscription brings about: the box, its jobs, the audit trail, a mail."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.billing import queries
from openclaw_web.billing.entitlement import desired_of
from openclaw_web.billing.facts import Decision, Desired
from openclaw_web.billing.models import Subscription
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import fitting
from openclaw_web.boxes import queries as box_queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations.payment_objects import StripeInvoice
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType
from openclaw_web.workflows import provisioning
from openclaw_web.workflows import subscription_mails as mails
from openclaw_web.workflows.subscription_mails import Before

ACTOR = "sync"
GONE = frozenset({BoxStatus.DESTROYING, BoxStatus.DESTROYED})
NO_BOX_ALERT = "paid_without_box"


async def carry_out(
    session: AsyncSession,
    subscription: Subscription,
    decision: Decision,
    *,
    before: Before,
    checkout_ids: Sequence[UUID] = (),
    paid: tuple[StripeInvoice, ...] = (),
) -> None:
    """Bring the box and the customer up to date; without a change there is nothing to do.

    A served customer without a box gets one, however long ago the payment was: a box that could
    not be started is tried again at each sync, and an admin knows.
    """
    is_new = before.subscription_id != subscription.id
    box = await _live_box(session, subscription.customer_id)
    if box is not None:
        await _adjust_box(session, box, subscription, decision, before)
    elif decision.desired is Desired.ACTIVE:
        await _start_box(session, subscription, checkout_ids)
    if is_new or before.status != subscription.status or before.tier != subscription.tier:
        await _write_audit(session, subscription, before)
    await mails.write(
        session, subscription, decision, before=before, had_box=box is not None, paid=paid
    )


async def _live_box(session: AsyncSession, customer_id: UUID) -> Box | None:
    """Return the customer's box, which the worker cannot destroy until we are done with it."""
    box = await box_queries.find_box_of_customer(session, customer_id, lock=True)
    return None if box is None or box.status in GONE else box


async def _start_box(
    session: AsyncSession, subscription: Subscription, checkout_ids: Sequence[UUID]
) -> None:
    """Make the box of a chat; what was paid is written down even if that fails."""
    onboarding_session_id = await _chat_of(session, subscription.customer_id, checkout_ids)
    if onboarding_session_id is None:
        await _alert_no_box(
            session, subscription, "The payment belongs to no chat; nothing says what to start."
        )
        return
    try:
        async with session.begin_nested():
            await provisioning.start_box(
                session, subscription=subscription, onboarding_session_id=onboarding_session_id
            )
    except OpenClawError as error:
        await _alert_no_box(session, subscription, str(error))
    except IntegrityError:
        await _alert_no_box(
            session, subscription, "The database refused the box; its bot may be in use already."
        )
    else:
        await jobs.resolve_alert(session, code=NO_BOX_ALERT, subject=str(subscription.id))


async def _chat_of(
    session: AsyncSession, customer_id: UUID, checkout_ids: Sequence[UUID]
) -> UUID | None:
    """Return the chat that says what to start: the one of the first checkout that has one."""
    for checkout_id in checkout_ids:
        checkout = await queries.find_checkout(session, customer_id, checkout_id)
        if checkout is not None and checkout.onboarding_session_id is not None:
            return checkout.onboarding_session_id
    return None


async def _alert_no_box(session: AsyncSession, subscription: Subscription, why: str) -> None:
    await jobs.raise_alert(
        session,
        code=NO_BOX_ALERT,
        subject=str(subscription.id),
        detail={"customer_id": str(subscription.customer_id), "error": why},
    )


async def _adjust_box(
    session: AsyncSession,
    box: Box,
    subscription: Subscription,
    decision: Decision,
    before: Before,
) -> None:
    """Give a kept box to a new subscription, and queue what the change asks of it."""
    if before.tier not in {None, subscription.tier}:
        await fitting.fit(session, box, plan_of(subscription.tier), requested_by=ACTOR)
    if box.subscription_id != subscription.id and decision.desired is Desired.ACTIVE:
        await boxes.attach_subscription(session, box, subscription, requested_by=ACTOR)
        return
    now = subscription.synced_at or await business_now(session)
    if moves_deletion(box.delete_after, decision, now):
        box.delete_after = decision.delete_after
        session.add(box)
        await session.flush()
    job_type = _job_for(subscription, decision, before)
    if job_type is not None:
        await boxes.request_converge(session, box, job_type=job_type, requested_by=ACTOR)


def moves_deletion(planned: datetime | None, decision: Decision, now: datetime) -> bool:
    """Say whether a box gets a date, or another one, on which it may be deleted.

    Without a new date the old one stays: a hold froze it, or an admin set it. No date comes nearer,
    and one that has come is moved only by the release of a hold that stood in its way.
    """
    if decision.delete_after is None or planned is None:
        return decision.delete_after is not None
    if decision.delete_after <= planned:
        return False
    was_held = decision.released_at is not None and planned <= decision.released_at
    return planned > now or was_held


def _job_for(subscription: Subscription, decision: Decision, before: Before) -> JobType | None:
    was = desired_of(before.status) if before.status else None
    if decision.desired is not was:
        is_wanted = decision.desired is Desired.ACTIVE
        return JobType.REACTIVATE if is_wanted else JobType.SUSPEND
    return JobType.RESIZE if before.tier != subscription.tier else None


async def _write_audit(session: AsyncSession, subscription: Subscription, before: Before) -> None:
    await accounts.audit(
        session,
        action=f"subscription.{subscription.status.value}",
        actor_type="system",
        actor_id=ACTOR,
        user_id=subscription.customer_id,
        resource_type="subscription",
        resource_id=str(subscription.id),
        diff={
            "status": [before.status and before.status.value, subscription.status.value],
            "tier": [before.tier and before.tier.value, subscription.tier.value],
        },
    )
