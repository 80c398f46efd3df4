"""What a customer's first page shows: their box, what happened, and how much is used."""

import contextlib
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.state import CUSTOMER, AuthState
from openclaw_web.billing import deliveries
from openclaw_web.billing import queries as billing
from openclaw_web.billing.models import Subscription, SubscriptionStatus
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import incidents, waiting
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes import service as box_service
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.queries import BoxView
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError
from openclaw_web.dashboard import promises
from openclaw_web.dashboard.loading import Loaded
from openclaw_web.integrations import telegram
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs.leases import SUPERSEDED
from openclaw_web.jobs.models import OperatorJob
from openclaw_web.jobs.service import CANCELLED
from openclaw_web.metering import forecast
from openclaw_web.metering import queries as metering
from openclaw_web.metering.queries import CurrentUsage
from openclaw_web.ui import format as fmt
from openclaw_web.ui.showing import show

JOBS_SHOWN = 6
ALMOST_USED = 75.0
UNWANTED = frozenset({CANCELLED, SUPERSEDED})
HEADLINES = {
    BoxStatus.PENDING: ("Waiting", "busy"),
    BoxStatus.PROVISIONING: ("Starting", "busy"),
    BoxStatus.ACTIVE: ("Answering", "good"),
    BoxStatus.UPDATING: ("Restarting", "busy"),
    BoxStatus.SUSPENDED: ("Paused", "warning"),
    BoxStatus.UNHEALTHY: ("Not answering", "bad"),
    BoxStatus.DESTROYING: ("Being deleted", "busy"),
    BoxStatus.DESTROYED: ("Deleted", "quiet"),
}
# What an active box is called while something keeps it from answering.
BROKEN_HEADLINES = {
    "pod": ("Not ready", "warning"),
    "gateway": ("Not ready", "warning"),
    "telegram": ("Not connected", "bad"),
    "model": ("Not answering", "bad"),
    "tokens": ("Out of tokens", "warning"),
}
UNSEEN_HEADLINE = ("Not seen", "warning")
LINK_NAMES = {
    "pod": "Its process",
    "gateway": "Its inbox",
    "telegram": "Telegram",
    "model": "The model",
}
JOB_NAMES = {
    "provision": "Setting up your assistant",
    "update": "Changing your assistant",
    "destroy": "Removing your assistant",
    "suspend": "Pausing your assistant",
    "reactivate": "Waking your assistant",
    "resize": "Changing the size of the box",
    "health_check": "Checking your assistant",
}


class UsageStrip(AuthState):
    """How much of the period is used; the same on every page of a customer."""

    requires: ClassVar[str] = CUSTOMER

    used: str = ""
    limit: str = ""
    left: str = ""
    percent: float = 0.0
    tone: str = ""
    resets: str = ""
    outlook: str = ""
    has_period: bool = False

    def _show_period(self, usage: CurrentUsage | None, now: datetime) -> None:
        show(self, has_period=usage is not None)
        if usage is None:
            return
        show(
            self,
            used=fmt.tokens(usage.used),
            limit=fmt.tokens(usage.limit),
            left=fmt.tokens(usage.left),
            percent=float(usage.percent),
            tone=_tone(usage),
            resets=fmt.day(usage.period_end),
            outlook=_outlook(usage, now),
        )


class HomeState(Loaded, UsageStrip):
    """The page that says whether the assistant answers."""

    has_box: bool = False
    status: str = ""
    status_tone: str = "quiet"
    sentence: str = ""
    since: str = ""
    queue_note: str = ""
    memory_lost: str = ""
    links: list[dict[str, str]] = []
    bot_name: str = ""
    bot_link: str = ""
    plan: str = ""
    renews: str = ""
    payment_note: str = ""
    promise_note: str = ""
    incident_note: str = ""
    story: list[dict[str, str]] = []

    @rx.event
    async def dismiss_memory_notice(self) -> None:
        """Stop telling that the memory was lost."""
        principal = await self.principal()
        if principal is None:
            return
        with contextlib.suppress(NotFoundError):  # the box went away meanwhile; so does its notice
            async with session_scope() as session:
                await box_service.dismiss_memory_notice(session, principal.customer_id)
        await self._look()

    async def _show(self, session: AsyncSession, customer_id: UUID) -> None:
        now = await business_now(session)
        self._show_period(await metering.current_usage(session, customer_id), now)
        view = await boxes.box_status_view(session, customer_id)
        self._show_box(view, now)
        subscription = await billing.find_live_subscription(session, customer_id)
        newest = await jobs.jobs_of_customer(session, customer_id, limit=JOBS_SHOWN)
        show(
            self,
            plan=_plan(subscription),
            renews=_renews(subscription),
            payment_note=_payment_note(subscription),
            promise_note=promises.sentence_of(
                await deliveries.find_promise(session, customer_id, now)
            ),
            incident_note=await incidents.banner(session, customer_id),
            queue_note=await _queue_note(session, customer_id, view),
            story=[_story_line(job, now) for job in newest],
        )

    def _show_box(self, view: BoxView | None, now: datetime) -> None:
        show(self, has_box=view is not None)
        if view is None:
            return
        status, tone = headline(view)
        bot_name = view.bot_username or ""
        show(
            self,
            status=status,
            status_tone=tone,
            sentence=view.sentence,
            memory_lost=fmt.day_and_time(view.memory_lost_at) if view.memory_lost_at else "",
            since=f"for {fmt.duration(now - view.since)}" if view.since else "",
            bot_name=bot_name,
            bot_link=telegram.bot_link(bot_name) if bot_name else "",
            links=[
                {
                    "name": LINK_NAMES[link.name],
                    "sentence": link.sentence,
                    "state": _link_state(link.is_ok),
                }
                for link in view.links
            ],
        )


async def _queue_note(session: AsyncSession, customer_id: UUID, view: BoxView | None) -> str:
    """Return where the work stands that a box waits for, and why; '' for one that answers."""
    if view is None or view.status is BoxStatus.ACTIVE:
        return ""
    standing = await jobs.queue_standing(session, customer_id, view.box_id)
    return waiting.sentence_of(standing, real_now()) if standing else ""


def headline(view: BoxView) -> tuple[str, str]:
    """Return the word for how a box is, by the worst that is known, and its tone."""
    if view.broken:
        return BROKEN_HEADLINES[view.broken]
    if view.is_unseen and view.status is BoxStatus.ACTIVE:
        return UNSEEN_HEADLINE
    return HEADLINES[view.status]


def _plan(subscription: Subscription | None) -> str:
    if subscription is None:
        return "You have no plan at the moment."
    plan = plan_of(subscription.tier)
    return f"{plan.name}, {fmt.money(plan.price_cents, plan.currency)} a month"


def _payment_note(subscription: Subscription | None) -> str:
    """Return what a customer must do about a payment; nothing while all is well."""
    status = subscription.status if subscription is not None else None
    if status not in {SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED}:
        return ""
    return _renews(subscription)


def _renews(subscription: Subscription | None) -> str:
    """Return what happens to the plan next."""
    if subscription is None:
        return ""
    ends = fmt.day(subscription.current_period_end)
    grace = fmt.day(subscription.grace_until) if subscription.grace_until else "the last day"
    special = {
        SubscriptionStatus.PAST_DUE: (
            f"The payment is overdue. Without it your assistant is suspended on {grace}."
        ),
        SubscriptionStatus.SUSPENDED: "Suspended, because a payment is missing.",
    }
    if subscription.status in special:
        return special[subscription.status]
    if subscription.cancel_at_period_end:
        return f"Ends on {ends}"
    if subscription.pending_tier is not None:
        return f"Becomes {plan_of(subscription.pending_tier).name} on {ends}"
    if subscription.status is SubscriptionStatus.TRIALING:
        return (
            f"On trial until {fmt.day(subscription.trial_end or subscription.current_period_end)}"
        )
    return f"Renews on {ends}"


def _tone(usage: CurrentUsage) -> str:
    if usage.used >= usage.limit:
        return "bad"
    return "warning" if usage.percent >= ALMOST_USED else ""


def _outlook(usage: CurrentUsage, now: datetime) -> str:
    reached = forecast.limit_reached_at(
        used=usage.used,
        limit=usage.limit,
        period_start=usage.period_start,
        period_end=usage.period_end,
        now=now,
    )
    if usage.used >= usage.limit:
        return f"The limit is reached. It resets on {fmt.day(usage.period_end)}."
    if usage.used == 0:
        return "Nothing has been used in this period yet."
    if now - usage.period_start < forecast.SHORTEST_LOOK:
        return "It is too early to say how long the tokens last."
    if reached is None:
        return "At this pace the tokens last until the period turns."
    return f"At this pace the limit is reached on {fmt.day(reached)}."


def _story_line(job: OperatorJob, now: datetime) -> dict[str, str]:
    """Return one line of what happened; a job that a newer one replaced did not fail."""
    is_unwanted = job.error_code in UNWANTED
    tone = {"complete": "good", "failed": "" if is_unwanted else "bad"}.get(job.status, "")
    return {
        "text": _job_sentence(job.job_type, "unwanted" if is_unwanted else job.status),
        "tone": tone,
        "when": fmt.ago(job.created_at, now) if job.created_at else "",
    }


def _job_sentence(job_type: str, status: str) -> str:
    name = JOB_NAMES.get(job_type, "Working on your assistant")
    ending = {
        "queued": "waits for its turn",
        "running": "in progress",
        "complete": "done",
        "failed": "failed",
        "unwanted": "no longer needed",
    }
    return f"{name}: {ending.get(status, status)}"


def _link_state(is_ok: Any) -> str:
    return "unknown" if is_ok is None else "ok" if is_ok else "bad"
