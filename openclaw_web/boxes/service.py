"""Deciding about a box: make it, change it, pause it, ask the operator to bring it into line."""

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import Subscription
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import manifests, openclaw_config, queries, reloading, revisions, stops
from openclaw_web.boxes.models import (
    DEFAULT_LANGUAGE,
    DEFAULT_MODEL,
    DEFAULT_THINKING_LEVEL,
    Box,
    BoxRevision,
    BoxSecret,
    BoxStatus,
    RevisionOutcome,
)
from openclaw_web.core import secrets
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.settings import settings as deployment
from openclaw_web.integrations import redis
from openclaw_web.jobs import merging
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType, OperatorJob
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind

BOT_TOKEN_PURPOSE = "box-bot-token"  # noqa: S105 - what the key is for
FINGERPRINT_PURPOSE = "bot-token"
GATEWAY_PURPOSE = "gateway-token"
STRONGER = frozenset({JobType.SUSPEND, JobType.DESTROY})
RESTART_MARK = "restart_mark"
CUSTOMER = "customer"
ROTATE = "rotate"
SAVES_A_MINUTE = 6
COALESCE = timedelta(seconds=10)  # who edits saves again: one job, and one restart, for all of it
LIMIT_BEHAVIOURS = ("polite", "error")


@dataclass(frozen=True, kw_only=True)
class BoxSettings:
    """What a customer decides about an assistant."""

    telegram_user_ids: tuple[int, ...]
    language: str = DEFAULT_LANGUAGE
    model: str = DEFAULT_MODEL
    thinking_level: str = DEFAULT_THINKING_LEVEL
    use_case: str = ""
    style: str = ""


@dataclass(frozen=True, kw_only=True)
class Bot:
    """A Telegram bot that was checked with Telegram."""

    token: str = field(repr=False)
    bot_id: int
    username: str


async def create_box(
    session: AsyncSession,
    *,
    customer_id: UUID,
    subscription_id: UUID,
    settings: BoxSettings,
    bot: Bot,
) -> Box:
    """Make a box that waits for its set-up.

    Raises:
        ValidationError: the settings are more than the tier gives, or make no sense.
    """
    subscription = await session.get_one(Subscription, subscription_id)
    check_settings(settings, subscription)
    now, box_id = await business_now(session), uuid4()
    box = Box(
        id=box_id,
        customer_id=customer_id,
        subscription_id=subscription_id,
        k8s_namespace=manifests.namespace_of(box_id),
        telegram_user_ids=list(settings.telegram_user_ids),
        language=settings.language,
        model=settings.model,
        thinking_level=settings.thinking_level,
        status=BoxStatus.PENDING,
        cluster=deployment().cluster_name,
        image=None,
        created_at=now,
        status_changed_at=now,
    )
    session.add(box)
    await session.flush()
    await _keep_bot(session, box, bot)
    await _add_revision(session, box, document(settings))
    _announce(session, box)
    return box


async def request_converge(
    session: AsyncSession,
    box: Box,
    *,
    job_type: JobType,
    requested_by: str,
    payload: dict[str, Any] | None = None,
    correlation_id: UUID | None = None,
    delay: timedelta = timedelta(),
) -> OperatorJob:
    """Ask the operator to bring a box where it belongs; `job_type` says why.

    A destroy makes its deletion due now. Suspending and destroying stop whatever runs for it.
    """
    if job_type is JobType.DESTROY:
        now = await business_now(session)
        box.delete_after = min(box.delete_after or now, now)
        session.add(box)
        await session.flush()
    if job_type in STRONGER:
        await jobs.interrupt_running(session, box.id)
    return await jobs.request_job(
        session,
        customer_id=box.customer_id,
        box_id=box.id,
        job_type=job_type,
        requested_by=requested_by,
        payload=payload,
        correlation_id=correlation_id,
        delay=delay,
    )


async def change_settings(
    session: AsyncSession,
    box: Box,
    settings: BoxSettings,
    *,
    requested_by: str,
    needs_restart: bool = False,
) -> OperatorJob:
    """Write a new generation of settings and ask for it; saving the same again writes none.

    A customer's edits wait ten seconds for the next one, and become one job. Whether that job has
    to restart the assistant is found when it runs: see `boxes/reloading.py`. `needs_restart` is
    what its preview says, and counts among the customer's stops.

    Raises:
        ValidationError: the settings are more than the tier gives, make no sense, were saved too
            often within a minute, or restart it too often within the hour.
    """
    check_settings(settings, await queries.get_subscription(session, box))
    box = await queries.get_any_box(session, box.id, lock=True)
    require_life(box)
    chosen = document(settings)
    newest = await revisions.find_newest(session, box.id)
    if newest is None or newest.outcome in revisions.GIVEN_UP or _differ(newest.spec, chosen):
        if requested_by == CUSTOMER:
            await _check_saves(session, box)
        if requested_by == CUSTOMER and needs_restart:
            await stops.check(session, box)
        box.telegram_user_ids = list(settings.telegram_user_ids)
        box.language = settings.language
        box.model = settings.model
        box.thinking_level = settings.thinking_level
        await add_generation(session, box, chosen)
        announce_access(session, box)
    return await request_converge(
        session,
        box,
        job_type=JobType.UPDATE,
        requested_by=requested_by,
        payload={merging.ACTIONS: [stops.RESTART]} if needs_restart else None,
        delay=COALESCE if requested_by == CUSTOMER else timedelta(),
    )


async def request_rotation(session: AsyncSession, box: Box, *, requested_by: str) -> OperatorJob:
    """Ask for a new proxy token, which takes a new pod.

    The old token ends when that pod is ready, and after fifteen minutes whatever happens.

    Raises:
        ValidationError: its customer has restarted it too often within the hour.
    """
    box = await queries.get_any_box(session, box.id, lock=True)
    await request_restart(session, box, requested_by=requested_by)
    await metering.limit_tokens_of_box(session, box.id, kind=TokenKind.BOX)
    return await request_converge(
        session,
        box,
        job_type=JobType.UPDATE,
        requested_by=requested_by,
        payload={merging.ACTIONS: [ROTATE]},
    )


async def choose_limit_behaviour(session: AsyncSession, customer_id: UUID, behaviour: str) -> bool:
    """Say what an assistant hears at its limit: a polite sentence, or an error; is it a change?

    The token proxy reads it: there is nothing to apply.

    Raises:
        NotFoundError: the customer has no box.
        ValidationError: there is no such behaviour.
    """
    if behaviour not in LIMIT_BEHAVIOURS:
        raise ValidationError("At its limit, an assistant gets a polite sentence or an error.")
    found = await queries.find_box_of_customer(session, customer_id)
    if found is None or found.status in {BoxStatus.DESTROYING, BoxStatus.DESTROYED}:
        raise NotFoundError("There is no assistant.")
    box = await queries.get_any_box(session, found.id, lock=True)
    is_change = box.limit_behaviour != behaviour
    box.limit_behaviour = behaviour
    session.add(box)
    await session.flush()
    announce_access(session, box)
    return is_change


async def current_settings(session: AsyncSession, box: Box) -> BoxSettings:
    """Return the settings that the box shall run: the newest ones that are not known to fail."""
    return settings_of(box, await queries.find_target_revision(session, box.id))


def settings_of(box: Box, revision: BoxRevision | None) -> BoxSettings:
    """Return a revision's settings; without one, what the box's row says."""
    spec = revision.spec if revision else {}
    return BoxSettings(
        telegram_user_ids=tuple(spec.get(reloading.PEOPLE, box.telegram_user_ids)),
        language=spec.get("language", box.language),
        model=spec.get("model", box.model),
        thinking_level=spec.get("thinking_level", box.thinking_level),
        use_case=spec.get("use_case", ""),
        style=spec.get("style", ""),
    )


async def allow_api_access(session: AsyncSession, customer_id: UUID, *, is_allowed: bool) -> bool:
    """Let keys of a customer's own programs in, or not any more; say whether that is a change.

    Keys are kept: turned on again, they work again.

    Raises:
        NotFoundError: the customer has no box.
    """
    found = await queries.find_box_of_customer(session, customer_id)
    if found is None or found.status in {BoxStatus.DESTROYING, BoxStatus.DESTROYED}:
        raise NotFoundError("There is no assistant.")
    box = await queries.get_any_box(session, found.id, lock=True)
    is_change = box.api_access != is_allowed
    box.api_access = is_allowed
    session.add(box)
    await session.flush()
    announce_access(session, box)
    return is_change


async def replace_bot(
    session: AsyncSession, box: Box, bot: Bot, *, requested_by: str
) -> OperatorJob:
    """Give a box another bot, or the same one with a new token."""
    box = await queries.get_any_box(session, box.id, lock=True)
    await _keep_bot(session, box, bot)
    return await request_restart(session, box, requested_by=requested_by)


async def request_restart(session: AsyncSession, box: Box, *, requested_by: str) -> OperatorJob:
    """Ask for a new pod with the same settings, and fresh credentials.

    Raises:
        ValidationError: its customer has restarted it too often within the hour.
    """
    if requested_by == CUSTOMER:
        await stops.check(session, box)
    mark = (await business_now(session)).isoformat()
    box.health = {**box.health, RESTART_MARK: mark}
    session.add(box)
    await session.flush()
    return await request_converge(
        session,
        box,
        job_type=JobType.UPDATE,
        requested_by=requested_by,
        payload={merging.ACTIONS: [stops.RESTART]},
    )


async def pause(session: AsyncSession, box: Box, *, requested_by: str) -> OperatorJob:
    """Stop a box by its customer's wish; a payment does not undo it.

    It counts as a stop, and may always be asked for: what must not come too often is its return.
    """
    box.user_paused_at = box.user_paused_at or await business_now(session)
    session.add(box)
    await session.flush()
    return await request_converge(
        session,
        box,
        job_type=JobType.SUSPEND,
        requested_by=requested_by,
        payload={merging.ACTIONS: [stops.PAUSE]},
    )


async def resume(session: AsyncSession, box: Box, *, requested_by: str) -> OperatorJob:
    """Take the customer's pause back; holds and unpaid subscriptions still keep a box suspended.

    Raises:
        ValidationError: its customer has stopped it too often within the hour.
    """
    if requested_by == CUSTOMER:
        await stops.check_return(session, box)
    box.user_paused_at = None
    session.add(box)
    await session.flush()
    return await request_converge(
        session, box, job_type=JobType.REACTIVATE, requested_by=requested_by
    )


async def attach_subscription(
    session: AsyncSession, box: Box, subscription: Subscription, *, requested_by: str
) -> OperatorJob:
    """Give a box that was waiting for its deletion to its customer's new subscription."""
    box.subscription_id = subscription.id
    box.delete_after = None
    session.add(box)
    await session.flush()
    return await request_converge(
        session, box, job_type=JobType.REACTIVATE, requested_by=requested_by
    )


async def dismiss_memory_notice(session: AsyncSession, customer_id: UUID) -> None:
    """Stop telling the customer that the memory was lost: they have read it.

    Raises:
        NotFoundError: the customer has no box.
    """
    found = await queries.find_box_of_customer(session, customer_id)
    if found is None:
        raise NotFoundError("There is no assistant.")
    box = await queries.get_any_box(session, found.id, lock=True)
    box.health = {key: value for key, value in box.health.items() if key != queries.MEMORY_LOST_AT}
    session.add(box)
    await session.flush()
    _announce(session, box)


def check_settings(settings: BoxSettings, subscription: Subscription) -> None:
    """Refuse settings that the tier does not give.

    Raises:
        ValidationError: too many people, an unknown model or an unknown thinking level.
    """
    plan = plan_of(subscription.tier)
    people = settings.telegram_user_ids
    if not people or len(set(people)) != len(people):
        raise ValidationError("Name each Telegram user who may talk to it, at least one, once.")
    if len(people) > plan.telegram_users:
        raise ValidationError(
            f"The {plan.name} plan is for {plan.telegram_users} Telegram user(s)."
        )
    if openclaw_config.model_id(settings.model) not in plan.models:
        raise ValidationError(f"The {plan.name} plan does not have this model.")
    if settings.thinking_level not in openclaw_config.THINKING_LEVELS:
        raise ValidationError("There is no such thinking level.")


async def add_generation(session: AsyncSession, box: Box, chosen: dict[str, Any]) -> None:
    """Write new settings down; the image and who was shut out are carried on."""
    before = await queries.find_target_revision(session, box.id)
    kept = before.spec if before else {}
    box.generation += 1
    spec = {**chosen}
    if removed := reloading.removed_at(kept, chosen, box.generation):
        spec[reloading.REMOVED_AT] = removed
    if image := chosen.get(reloading.IMAGE) or kept.get(reloading.IMAGE):
        spec[reloading.IMAGE] = image
    session.add(box)
    await session.flush()
    await _add_revision(session, box, spec)


def require_life(box: Box) -> None:
    """Refuse to change what is deleted.

    Raises:
        ValidationError: the box is deleted, or is being deleted.
    """
    if box.status in {BoxStatus.DESTROYING, BoxStatus.DESTROYED}:
        raise ValidationError("This assistant is deleted; its settings cannot be changed.")


def bot_fingerprint(token: str) -> str:
    """Return what tells two boxes with the same bot apart from each other, and hides the token."""
    return secrets.fingerprint(FINGERPRINT_PURPOSE, token).hex()


def gateway_token(box_id: UUID) -> str:
    """Return the password of a box's own gateway: derived, so that nothing needs to store it."""
    return secrets.fingerprint(GATEWAY_PURPOSE, str(box_id)).hex()


async def bot_token(session: AsyncSession, box_id: UUID) -> str:
    """Return the clear token of a box's bot, for its Secret only.

    Raises:
        NotFoundError: the box has no bot.
    """
    kept = await queries.find_bot(session, box_id)
    if kept is None or kept.telegram_token_ct is None:
        raise NotFoundError("This assistant has no Telegram bot.")
    return secrets.decrypt(BOT_TOKEN_PURPOSE, kept.telegram_token_ct)


async def _keep_bot(session: AsyncSession, box: Box, bot: Bot) -> None:
    kept = await queries.find_bot(session, box.id) or BoxSecret(box_id=box.id)
    kept.telegram_token_ct = secrets.encrypt(BOT_TOKEN_PURPOSE, bot.token)
    kept.token_fingerprint = bot_fingerprint(bot.token)
    kept.bot_id = bot.bot_id
    kept.bot_username = bot.username
    kept.key_id = secrets.key_id()
    kept.updated_at = await business_now(session)
    session.add(kept)
    await session.flush()


async def _add_revision(session: AsyncSession, box: Box, spec: dict[str, Any]) -> None:
    session.add(
        BoxRevision(
            box_id=box.id,
            generation=box.generation,
            spec=spec,
            spec_hash=revisions.hash_of(spec),
            outcome=RevisionOutcome.PENDING.value,
            created_at=await business_now(session),
        )
    )
    await session.flush()


async def _check_saves(session: AsyncSession, box: Box) -> None:
    since = await business_now(session) - timedelta(minutes=1)
    if await revisions.count_since(session, box.id, since) >= SAVES_A_MINUTE:
        raise ValidationError(
            f"Settings can be saved {SAVES_A_MINUTE} times a minute; wait a moment, then save"
            " them all at once."
        )


def document(settings: BoxSettings) -> dict[str, Any]:
    """Return settings as a revision keeps them."""
    return {**asdict(settings), reloading.PEOPLE: list(settings.telegram_user_ids)}


def _differ(spec: dict[str, Any], chosen: dict[str, Any]) -> bool:
    return any(spec.get(name) != value for name, value in chosen.items())


def announce_access(session: AsyncSession, box: Box) -> None:
    """Have every proxy look again at what this box's tokens may do."""
    after_commit(session, partial(redis.announce_access, box.customer_id))


def _announce(session: AsyncSession, box: Box) -> None:
    after_commit(session, partial(redis.announce_change, box.customer_id))
