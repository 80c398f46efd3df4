"""From a paid chat to a box that answers: what it means for chat, checkout and mails."""

from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.mails import MailKind
from openclaw_web.billing import records
from openclaw_web.billing.models import Subscription
from openclaw_web.billing.tiers import Plan, plan_of
from openclaw_web.boxes import incidents, openclaw_config, outages, sentences
from openclaw_web.boxes import queries as box_queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.changes import BoxChange, ChangeKind
from openclaw_web.boxes.models import DEFAULT_LANGUAGE, DEFAULT_THINKING_LEVEL, Box, BoxStatus
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core import secrets
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError
from openclaw_web.jobs.models import JobType
from openclaw_web.onboarding import chats, conversation
from openclaw_web.onboarding import queries as chat_queries
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState
from openclaw_web.onboarding.service import BOT_TOKEN_PURPOSE

ACTOR = "provisioning"
PROVIDER = "kimi-coding"
ARRIVALS = frozenset(
    {ChangeKind.LIVE, ChangeKind.RECOVERED, ChangeKind.REACTIVATED, ChangeKind.UPDATED}
)
# What a chat's answers mean to an assistant, in words for its USER.md.
STYLES = {
    "direct": "short and direct, without pleasantries",
    "warm": "warm and conversational",
    "thorough": "thorough, with the reasons",
}


class IncompleteChatError(OpenClawError):
    """A chat was paid for that lacks what a box needs; an admin has to ask the customer."""


async def start_box(
    session: AsyncSession, *, subscription: Subscription, onboarding_session_id: UUID
) -> Box:
    """Make the box of a paid chat and ask for its set-up; the second call returns the first's box.

    Raises:
        NotFoundError: there is no such chat.
        IncompleteChatError: it has no bot, or nobody who may talk to the assistant.
    """
    chat = await session.get(OnboardingSession, onboarding_session_id, with_for_update=True)
    if chat is None or chat.customer_id not in {None, subscription.customer_id}:
        raise NotFoundError("The chat that this payment belongs to does not exist.")
    if chat.box_id is not None:
        known = await box_queries.find_box(session, subscription.customer_id, chat.box_id)
        if known is not None and known.destroyed_at is None:
            return known
    secret = await session.get(OnboardingSecret, chat.id)
    if secret is None or chat.telegram_user_id is None:
        raise IncompleteChatError("The chat was paid for but lacks its bot or its person.")
    box = await boxes.create_box(
        session,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        settings=_settings_of(chat, plan_of(subscription.tier)),
        bot=Bot(
            token=secrets.decrypt(BOT_TOKEN_PURPOSE, secret.telegram_token_ct),
            bot_id=secret.bot_id,
            username=secret.bot_username,
        ),
    )
    # The box holds the token now; a second copy would only be one more to lose.
    await session.delete(secret)
    chat.box_id = box.id
    chat.customer_id = subscription.customer_id
    await _move_chat(session, chat, OnboardingState.PROVISIONING, conversation.PAID)
    await boxes.request_converge(
        session,
        box,
        job_type=JobType.PROVISION,
        requested_by=ACTOR,
        correlation_id=chat.id,
    )
    return box


async def box_changed(session: AsyncSession, change: BoxChange) -> None:
    """Draw the conclusions of what a task did to a box; a repeated change says nothing twice."""
    if change.kind in ARRIVALS:
        await _note_delivery(session, change)
        await _end_outage(session, change)
    if change.kind is ChangeKind.SUSPENDED:
        outages.forget_told(session, await _box_of(session, change))
    if change.kind is ChangeKind.PROVISION_FAILED:
        await _note_failure(session, change)
    if change.kind is ChangeKind.UPDATE_FAILED:
        await _tell_of_rollback(session, change)
    if change.kind is ChangeKind.MEMORY_LOST:
        await _mail(session, change, MailKind.MEMORY_LOST)
        await _note_told(session, change)
    await accounts.audit(
        session,
        action=f"box.{change.kind.value}",
        actor_type="system",
        actor_id="operator",
        user_id=change.customer_id,
        resource_type="box",
        resource_id=str(change.box_id),
        reason=change.reason or None,
    )


async def tell_of_outages() -> int:
    """Write to customers whose box still does not answer two minutes after the third missed check.

    One mail an outage, none during an incident, and none when it recovered meanwhile; returns how
    many were written. Safe to run twice, and in several workers.
    """
    async with session_scope() as session:
        before = await business_now(session) - outages.TELL_AFTER
        clusters = await box_queries.any_customers_ailing_clusters(session)
        calm = [one for one in clusters if not await incidents.is_incident(session, one)]
        due = await box_queries.any_customers_untold_outages(
            session, clusters=calm, before=before, limit=outages.AT_ONCE
        )
    told = 0
    for box_id in [box.id for box in due]:
        async with session_scope() as session:
            told += await _tell_of_outage(session, box_id)
    return told


async def _tell_of_outage(session: AsyncSession, box_id: UUID) -> bool:
    box = await box_queries.get_any_box(session, box_id, lock=True)
    if not await outages.is_to_be_told(session, box):
        return False
    await accounts.queue_mail(
        session,
        kind=MailKind.BOX_UNHEALTHY,
        customer_id=box.customer_id,
        payload={"reason": sentences.trouble(box.status_reason or "")},
        dedupe_key=f"{MailKind.BOX_UNHEALTHY.value}:{box.id}:{outages.outage_of(box)}",
    )
    outages.note_told(session, box)
    return True


async def _end_outage(session: AsyncSession, change: BoxChange) -> None:
    """Say that it answers again to whoever was told that it did not."""
    if told := outages.forget_told(session, await _box_of(session, change)):
        key = f"{MailKind.BOX_RECOVERED.value}:{change.box_id}:{told}"
        await _mail(session, change, MailKind.BOX_RECOVERED, key=key)


async def _note_told(session: AsyncSession, change: BoxChange) -> None:
    """A lost memory is told at once: that mail is this outage's."""
    box = await _box_of(session, change)
    if box.status is BoxStatus.UNHEALTHY:
        outages.note_told(session, box)


async def _box_of(session: AsyncSession, change: BoxChange) -> Box:
    await session.flush()
    return await box_queries.get_any_box(session, change.box_id, lock=True)


async def _note_delivery(session: AsyncSession, change: BoxChange) -> None:
    """The box answers: its chat is complete, what was paid is delivered, a first time is told."""
    chat = await chat_queries.any_customers_chat_of_box(session, change.box_id)
    if chat is not None and chat.state in {OnboardingState.PROVISIONING, OnboardingState.FAILED}:
        await _move_chat(session, chat, OnboardingState.COMPLETE, conversation.READY)
    if chat is not None:
        now = await business_now(session)
        await records.note_delivery(session, change.customer_id, chat.id, now=now)
    if change.kind is ChangeKind.LIVE:
        bot = await box_queries.find_bot(session, change.box_id)
        payload = {"bot_username": bot.bot_username} if bot else {}
        await _mail(session, change, MailKind.LIVE, payload=payload, key=f"live:{change.box_id}")


async def _tell_of_rollback(session: AsyncSession, change: BoxChange) -> None:
    box = await _box_of(session, change)
    kind = MailKind.SETTINGS_ROLLED_BACK
    payload = {"reason": sentences.trouble(change.reason)}
    key = f"{kind.value}:{box.id}:{box.generation}"
    await _mail(session, change, kind, payload=payload, key=key)


async def _note_failure(session: AsyncSession, change: BoxChange) -> None:
    chat = await chat_queries.any_customers_chat_of_box(session, change.box_id)
    if chat is not None and chat.state is OnboardingState.PROVISIONING:
        await _move_chat(session, chat, OnboardingState.FAILED, conversation.FAILED)
    await _mail(
        session,
        change,
        MailKind.PROVISIONING_FAILED,
        key=f"provisioning_failed:{change.box_id}",
    )


async def _mail(
    session: AsyncSession,
    change: BoxChange,
    kind: MailKind,
    *,
    payload: dict[str, Any] | None = None,
    key: str = "",
) -> None:
    await accounts.queue_mail(
        session,
        kind=kind,
        customer_id=change.customer_id,
        payload=payload,
        dedupe_key=key or f"{kind.value}:{change.box_id}:{change.mark}",
    )


async def _move_chat(
    session: AsyncSession, chat: OnboardingSession, state: OnboardingState, text: str
) -> None:
    """Move a chat and say so in it; payment wins over an end that it had reached."""
    if chat.state is not state:
        chats.apply(chat, state, {}, text)
        await chats.touch(session, chat)


def _settings_of(chat: OnboardingSession, plan: Plan) -> BoxSettings:
    """Return what the visitor said, as settings; what they did not say has a default."""
    config = chat.derived_config or {}
    level = config.get("thinking_level", DEFAULT_THINKING_LEVEL)
    model = openclaw_config.model_id(str(config.get("model", plan.models[0])))
    style = str(config.get("style", ""))
    return BoxSettings(
        telegram_user_ids=(chat.telegram_user_id or 0,),
        language=str(config.get("language") or chat.detected_language or DEFAULT_LANGUAGE),
        model=f"{PROVIDER}/{model if model in plan.models else plan.models[0]}",
        thinking_level=(
            level if level in openclaw_config.THINKING_LEVELS else DEFAULT_THINKING_LEVEL
        ),
        use_case=str(config.get("use_case_text") or config.get("use_case") or ""),
        style=STYLES.get(style, style),
    )
