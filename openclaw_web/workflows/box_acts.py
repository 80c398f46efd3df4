"""What a customer does to their own box, each act with its line in the audit log."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts import service as accounts
from openclaw_web.boxes import bots, previews, queries, stops
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.desired import Why
from openclaw_web.boxes.memory import backups
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.service import CUSTOMER, Bot, BoxSettings
from openclaw_web.core.clock import real_now
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.workflows.api_access import By, find_box

BOT_TRIES = 10
BOT_TRIES_WITHIN = timedelta(hours=1)
BOT_REFUSED = "box.bot_refused"
ASLEEP = frozenset({BoxStatus.PENDING, BoxStatus.PROVISIONING, BoxStatus.SUSPENDED})
WORK_OUT_PAYMENT = (
    "It stays suspended until the missing payment arrives. Your pause is taken back: it starts by"
    " itself as soon as that is done."
)
WORK_OUT_HOLD = (
    "It stays suspended while we look into a question about this account. Your pause is taken"
    " back: it starts by itself as soon as that is done."
)

PAUSED_FOR_LONG = (
    "It is being paused. It was stopped so often within the hour that it can be resumed only later:"
    " Telegram locks out a bot that comes back too often."
)
BACKUP_ASLEEP = "A backup is made now. Your assistant stays asleep."
RESTORE_ASLEEP = "The backup comes back as soon as your assistant wakes up."


async def restart(session: AsyncSession, *, by: By) -> None:
    """Give the box a new process with the same settings; five times an hour.

    Raises:
        NotFoundError: the customer has no box.
        ValidationError: it does not run, or was restarted too often.
    """
    box = await get_box(session, by.customer_id)
    if box.status in ASLEEP:
        raise ValidationError("It does not run at the moment, so there is nothing to restart.")
    await boxes.request_restart(session, box, requested_by=CUSTOMER)
    await _audit(session, "box.restart", box, by=by)


async def pause(session: AsyncSession, *, by: By) -> str:
    """Stop the box until its customer resumes it; the plan goes on.

    Returns what is special about it, or nothing.

    Raises:
        NotFoundError: the customer has no box.
    """
    box = await get_box(session, by.customer_id)
    if box.user_paused_at is None:
        await boxes.pause(session, box, requested_by=CUSTOMER)
        await _audit(session, "box.pause", box, by=by)
    return "" if await stops.may_return(session, box) else PAUSED_FOR_LONG


async def resume(session: AsyncSession, *, by: By) -> str:
    """Take the customer's pause back; return what else keeps the box from running, or nothing.

    Raises:
        NotFoundError: the customer has no box.
        ValidationError: it was stopped too often within the hour.
    """
    box = await get_box(session, by.customer_id)
    if box.user_paused_at is not None:
        await boxes.resume(session, box, requested_by=CUSTOMER)
        await _audit(session, "box.resume", box, by=by)
    _, why = await queries.desired_of(session, box)
    return {Why.NOT_PAID: WORK_OUT_PAYMENT, Why.HOLD: WORK_OUT_HOLD}.get(why, "")


async def check_bot(session: AsyncSession, bot_token: str, *, by: By) -> None:
    """Refuse a token that cannot become this box's bot, before Telegram is asked about it.

    Raises:
        NotFoundError: the customer has no box.
        BotRefusedError: it is in use, or too many tokens were tried.
    """
    box = await get_box(session, by.customer_id)
    tried = await account_queries.count_acts(
        session, by.customer_id, BOT_REFUSED, since=real_now() - BOT_TRIES_WITHIN
    )
    if tried >= BOT_TRIES:
        raise bots.BotRefusedError("tries")
    fingerprint = boxes.bot_fingerprint(bot_token)
    ours = await queries.find_bot(session, box.id)
    if ours is not None and ours.token_fingerprint == fingerprint:
        raise bots.BotRefusedError("same")
    if await queries.is_bot_in_use(session, fingerprint):
        raise bots.BotRefusedError("in_use")


async def note_refused_bot(session: AsyncSession, *, by: By) -> None:
    """Count a token that was not taken."""
    await _audit(session, BOT_REFUSED, await get_box(session, by.customer_id), by=by)


async def replace_bot(session: AsyncSession, bot: Bot, *, by: By) -> None:
    """Give the box another bot, or a new token for the one it has; it restarts with it.

    Raises:
        NotFoundError: the customer has no box.
        ValidationError: it is in use, or the box was restarted too often.
    """
    await check_bot(session, bot.token, by=by)
    box = await get_box(session, by.customer_id)
    try:
        async with session.begin_nested():
            await boxes.replace_bot(session, box, bot, requested_by=CUSTOMER)
    except IntegrityError as error:  # somebody else was quicker by a moment
        raise bots.BotRefusedError("in_use") from error
    await _audit(session, "box.bot_replaced", box, by=by)


async def change_settings(
    session: AsyncSession, settings: BoxSettings, *, limit_behaviour: str, by: By
) -> None:
    """Save what an assistant shall be; what changed is noted by name, never by value.

    Raises:
        NotFoundError: the customer has no box.
        ValidationError: the tier does not give it, it makes no sense, or it would restart the box
            once more than an hour allows.
    """
    box = await get_box(session, by.customer_id)
    before = await boxes.current_settings(session, box)
    changed = [name for name in vars(settings) if getattr(before, name) != getattr(settings, name)]
    if await boxes.choose_limit_behaviour(session, by.customer_id, limit_behaviour):
        await _audit(session, "box.settings", box, by=by, diff={"changed": ["limit_behaviour"]})
    if changed:
        preview = await previews.preview_settings(session, box, settings)
        await boxes.change_settings(
            session, box, settings, requested_by=CUSTOMER, needs_restart=preview.needs_restart
        )
        await _audit(session, "box.settings", box, by=by, diff={"changed": sorted(changed)})


async def back_up(session: AsyncSession, *, by: By) -> str:
    """Ask for a backup of the memory now; the box stops for it. Return what is special about it.

    Raises:
        NotFoundError: the customer has no box.
        ValidationError: backups are off, or there is nothing to back up.
    """
    box = await get_box(session, by.customer_id)
    await stops.check(session, box)
    await backups.request_backup(session, box, requested_by=CUSTOMER)
    await _audit(session, "box.backup", box, by=by)
    return BACKUP_ASLEEP if box.status is BoxStatus.SUSPENDED else ""


async def restore(session: AsyncSession, backup_id: UUID, *, by: By) -> str:
    """Ask for the memory of a backup in place of what there is now.

    Returns what is special about it, or nothing.

    Raises:
        NotFoundError: the customer has no box, or no such backup.
        ValidationError: the backup cannot be used.
    """
    box = await get_box(session, by.customer_id)
    await stops.check(session, box)
    await backups.request_restore(session, box, backup_id, requested_by=CUSTOMER)
    await _audit(session, "box.restore", box, by=by, diff={"backup": str(backup_id)})
    return RESTORE_ASLEEP if box.status is BoxStatus.SUSPENDED else ""


async def get_box(session: AsyncSession, customer_id: UUID) -> Box:
    """Return the customer's box, locked against other acts.

    Raises:
        NotFoundError: there is none, or it is deleted.
    """
    box = await find_box(session, customer_id)
    if box is None:
        raise NotFoundError("There is no assistant.")
    return await queries.get_any_box(session, box.id, lock=True)


async def _audit(
    session: AsyncSession, action: str, box: Box, *, by: By, diff: dict[str, Any] | None = None
) -> None:
    await accounts.audit(
        session,
        action=action,
        actor_id=str(by.customer_id),
        user_id=by.customer_id,
        resource_type="box",
        resource_id=str(box.id),
        diff=diff,
        ip=by.ip,
        user_agent=by.user_agent,
    )
