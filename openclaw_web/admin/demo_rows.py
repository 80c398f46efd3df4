"""A made-up customer as rows: account, subscription, box, jobs and chat."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlmodel import SQLModel

from openclaw_web.accounts.models import Customer, CustomerAuth, CustomerProfile
from openclaw_web.admin.demo_people import Story, tell
from openclaw_web.billing.models import BillingSync, Subscription
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes.models import Box, BoxRevision, BoxSecret, BoxStatus, RevisionOutcome
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.core.security import new_token, token_hash
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.metering import periods
from openclaw_web.metering.ledger import Event
from openclaw_web.onboarding import chats, conversation
from openclaw_web.onboarding.models import OnboardingSession, OnboardingState

CLUSTER = "demo"  # no worker serves a cluster of this name, so nobody acts on these boxes
PROVIDER = "kimi-coding"
# Stripe knows nothing of these subscriptions: as if it had been asked in the far future already, so
# that no date of theirs makes a worker ask.
ASKED_AT = datetime(9000, 1, 1, tzinfo=UTC)
BY = "demo"
FAILED_EACH = 9
SET_UP = (
    "Making a place of its own in the cluster.",
    "Writing its configuration and its secrets.",
    "Starting the assistant.",
    "Waiting for the assistant to be ready.",
    "Done.",
)
OPEN_STATES = (
    OnboardingState.GREETING,
    OnboardingState.GATHERING_USE_CASE,
    OnboardingState.GATHERING_TELEGRAM,
    OnboardingState.ABANDONED,
)


def customer(story: Story) -> Customer:
    return Customer(id=story.customer_id, email=story.email, created_at=story.began_at)


def account(story: Story) -> list[SQLModel]:
    return [
        CustomerAuth(
            customer_id=story.customer_id,
            email_verified_at=story.began_at,
            updated_at=story.began_at,
        ),
        CustomerProfile(
            customer_id=story.customer_id, locale=story.language, updated_at=story.began_at
        ),
    ]


def subscription(story: Story) -> Subscription:
    ends_at = story.stopped_at if story.is_cancelled else story.now
    start, end = periods.period_at(story.began_at, story.began_at, ends_at)
    return Subscription(
        id=story.subscription_id,
        customer_id=story.customer_id,
        tier=story.tier,
        status=story.fate.status,
        tokens_limit=plan_of(story.tier).tokens_limit,
        current_period_start=start,
        current_period_end=ends_at if story.is_cancelled else end,
        cancel_at_period_end=story.fate.is_ending,
        past_due_since=story.past_due_since,
        grace_until=story.grace_until,
        created_at=story.began_at,
        updated_at=story.stopped_at,
        synced_at=ASKED_AT,
    )


def sync(story: Story) -> BillingSync:
    return BillingSync(customer_id=story.customer_id, synced_at=ASKED_AT)


def box(story: Story, events: Sequence[Event]) -> Box:
    status = story.fate.box_status
    is_running = status is BoxStatus.ACTIVE
    up_at = _up_at(story)
    first, last = (events[0].timestamp, events[-1].timestamp) if events else (None, None)
    return Box(
        id=story.box_id,
        customer_id=story.customer_id,
        subscription_id=story.subscription_id,
        k8s_namespace=f"customer-{story.box_id}",
        cluster=CLUSTER,
        telegram_user_ids=[story.telegram_user_id],
        language=story.language,
        model=_model(story),
        status=status,
        status_reason=story.fate.reason,
        status_changed_at=up_at if is_running else story.stopped_at,
        created_at=story.began_at,
        activated_at=up_at,
        last_seen=story.stopped_at,
        last_updated=story.stopped_at,
        agent_ok_at=last,
        first_answer_at=first,
        applied_generation=1,
        observed_generation=1,
        health_failures=3 if status is BoxStatus.UNHEALTHY else 0,
        health=_health(story),
        user_paused_at=story.stopped_at if story.fate.reason == "paused" else None,
        delete_after=story.delete_after,
        destroyed_at=story.delete_after if status is BoxStatus.DESTROYED else None,
    )


def box_details(story: Story) -> list[SQLModel]:
    """Return the bot's name, without a token, and the settings that are applied."""
    settings = BoxSettings(
        telegram_user_ids=(story.telegram_user_id,),
        language=story.language,
        model=_model(story),
        use_case=story.use_case,
        style=story.style,
    )
    spec = {**asdict(settings), "telegram_user_ids": [story.telegram_user_id]}
    return [
        BoxSecret(box_id=story.box_id, bot_username=story.bot_username, updated_at=story.began_at),
        BoxRevision(
            box_id=story.box_id,
            generation=1,
            spec=spec,
            spec_hash=hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest(),
            outcome=RevisionOutcome.APPLIED.value,
            created_at=story.began_at,
            applied_at=_up_at(story),
        ),
    ]


@dataclass(frozen=True)
class _Deed:
    """A job that is done: how long it took, and what it said."""

    kind: JobType
    at: datetime
    lines: tuple[str, ...] = ("Done.",)
    error: str = ""


def jobs(story: Story) -> list[OperatorJob]:
    """Return what the operator has done for this box; nothing of it waits."""
    return [_job(story, deed) for deed in _deeds(story) if deed.at <= story.now]


def finished_chat(story: Story) -> OnboardingSession:
    """Return the chat that the customer came by."""
    chat = _chat(OnboardingState.COMPLETE, story.began_at)
    chat.customer_id, chat.box_id = story.customer_id, story.box_id
    chat.telegram_user_id = story.telegram_user_id
    chat.derived_config = {
        "use_case_text": story.use_case,
        "language": story.language,
        "style": story.style,
        "tier": story.tier.value,
    }
    _talk(chat, story.use_case, conversation.ASK_BOT, conversation.PAID, conversation.READY)
    return chat


def open_chats(first: int, count: int, *, now: datetime) -> list[OnboardingSession]:
    """Return chats of visitors who have not come to the end."""
    found = []
    for number in range(first, first + count):
        state = OPEN_STATES[number % len(OPEN_STATES)]
        visitor = tell(number, now=now, days=1)
        hours = visitor.chance.uniform(0.1, 5)
        if state is OnboardingState.ABANDONED:
            hours += chats.LIFETIME / timedelta(hours=1)
        chat = _chat(state, now - timedelta(hours=hours))
        if state is OnboardingState.ABANDONED:
            chat.state_before = OnboardingState.GATHERING_TELEGRAM.value
        if state is not OnboardingState.GREETING:
            _talk(chat, "Yes, let's go", conversation.ASK_USE_CASE)
        if state in {OnboardingState.GATHERING_TELEGRAM, OnboardingState.ABANDONED}:
            _talk(chat, visitor.use_case, conversation.ASK_BOT)
            chat.derived_config = {"use_case": "other", "use_case_text": visitor.use_case}
        found.append(chat)
    return found


def _up_at(story: Story) -> datetime:
    return min(story.began_at + timedelta(seconds=40), story.now)


def _model(story: Story) -> str:
    return f"{PROVIDER}/{plan_of(story.tier).models[0]}"


def _health(story: Story) -> dict[str, Any]:
    status = story.fate.box_status
    if status not in {BoxStatus.ACTIVE, BoxStatus.UNHEALTHY}:
        return {}
    is_well = status is BoxStatus.ACTIVE
    pod = {
        "name": "openclaw-0",
        "phase": "Running" if is_well else "Pending",
        "is_ready": is_well,
        "restarts": 0 if is_well else 7,
        "reason": "" if is_well else story.fate.reason,
        "address": "",
    }
    return {"pod": pod, "failing": []}


def _deeds(story: Story) -> list[_Deed]:
    deeds = [_Deed(JobType.PROVISION, story.began_at, SET_UP)]
    if story.number % 3 == 0:
        deeds.append(_Deed(JobType.UPDATE, story.began_at + (story.now - story.began_at) / 2))
    if story.number % FAILED_EACH == 0:
        error = "timeout: the cluster does not answer in time"
        deeds.append(_Deed(JobType.UPDATE, story.began_at + timedelta(hours=5), error=error))
    if story.fate.box_status in {BoxStatus.SUSPENDED, BoxStatus.DESTROYED}:
        lines = ("Stopping the assistant; its memory is kept.", "Done.")
        deeds.append(_Deed(JobType.SUSPEND, story.stopped_at, lines))
    if story.fate.box_status is BoxStatus.DESTROYED and story.delete_after:
        lines = ("Ending its tokens.", "Deleting its namespace, with pod, volume and secrets.")
        deeds.append(_Deed(JobType.DESTROY, story.delete_after, (*lines, "Done.")))
    return deeds


def _job(story: Story, deed: _Deed) -> OperatorJob:
    ended = min(deed.at + timedelta(seconds=6 + 4 * len(deed.lines)), story.now)
    times = [deed.at + (ended - deed.at) * n / len(deed.lines) for n in range(len(deed.lines))]
    lines = [
        {"at": at.isoformat(timespec="milliseconds"), "text": text}
        for at, text in zip(times, deed.lines, strict=True)
    ]
    return OperatorJob(
        customer_id=story.customer_id,
        box_id=story.box_id,
        job_type=deed.kind,
        status=JobStatus.FAILED if deed.error else JobStatus.COMPLETE,
        error_log=deed.error or None,
        error_code="timeout" if deed.error else None,
        attempt=5 if deed.error else 1,
        progress=[] if deed.error else lines,
        requested_by=BY,
        created_at=deed.at,
        run_after=deed.at,
        started_at=deed.at,
        completed_at=ended,
    )


def _chat(state: OnboardingState, began_at: datetime) -> OnboardingSession:
    chat = OnboardingSession(
        session_token=token_hash(new_token()),
        state=state,
        derived_config={},
        created_at=began_at,
        updated_at=began_at,
        expires_at=began_at + chats.LIFETIME,
    )
    chats.say(chat, chats.FROM_US, conversation.HELLO)
    return chat


def _talk(chat: OnboardingSession, said: str, *answers: str) -> None:
    chats.say(chat, chats.FROM_VISITOR, said)
    for answer in answers:
        chats.say(chat, chats.FROM_US, answer)
