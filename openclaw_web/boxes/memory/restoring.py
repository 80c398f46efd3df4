"""Before a box starts: bring back the backup that is noted for it; a lost volume notes one too."""

from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import health, manifests, queries
from openclaw_web.boxes.changes import ChangeKind, change_of
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.memory import backups, cloning, keeper_run, lifting, retaining, saving
from openclaw_web.boxes.memory.backups import Reason
from openclaw_web.boxes.memory.keeper_run import GoneError, KeeperError
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.boxes.runs import Run, is_worth_another_try
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.jobs import leases
from openclaw_web.jobs import service as jobs

ALERT_RESTORE = "restore_failed"


async def make_ready(run: Run, box: Box) -> None:
    """Before anything is made: note what has to come back, and take the pod away if it must be.

    A volume that is to be made anew takes the newest backup in. That is noted in the row first, so
    that a crash between the volume and the memory is found again.
    """
    await _note_lost_place(run, box)
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        await backups.drop_cancelled_restore(session, fresh)
        is_due = await saving.must_precede_upgrade(session, fresh)
    if is_due or backups.RESTORE in fresh.health or saving.wants_backup(run, fresh):
        await _stop(run, fresh)


async def before_start(run: Run, box: Box) -> None:
    """Do what was asked for while the pod is away: save the memory, bring a backup back.

    A backup that does not work keeps no assistant from answering, but an upgrade from happening. A
    restore that does not work leaves the memory as it was. Each is told. What a restore replaces is
    saved first, or nothing is replaced. Afterwards the volume is free.
    """
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id)
        since = saving.left_since(fresh, await business_now(session))
        if fresh.status is not BoxStatus.SUSPENDED:  # it ran until this job came
            since = max(since, run.job.started_at or since)
        saved = await backups.find_since(session, box.id, since) is not None
        is_due = await saving.must_precede_upgrade(session, fresh)
    mark = fresh.health.get(backups.RESTORE) or {}
    if saving.wants_backup(run, fresh) and not (saved and run.job.attempt > 1):
        saved = await saving.save_or_tell(run, fresh, saving.reason_of(run), saving.ALERT_BACKUP)
    if is_due and not saved:
        saved = await saving.save_before_upgrade(run, fresh)
    if not mark:
        await keeper_run.clear(run, box.k8s_namespace)
    elif saved or _replaces_nothing(fresh, mark) or await _save_before_restore(run, fresh):
        await _restore(run, fresh)
    else:
        await _end_restore(run, fresh, mark["mark"], None)


async def _note_lost_place(run: Run, box: Box) -> None:
    if not queries.has_memory(box):
        return
    place = await keeper_run.place_of(run, box.k8s_namespace)
    if place.has_volume:
        return
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        if not place.is_there:  # snapshots end with their namespace
            await retaining.forget_snapshots(session, box.id)
        newest = await backups.newest_usable(session, box.id)
        if mark := fresh.health.get(backups.RESTORE):
            fresh.health = {**fresh.health, backups.RESTORE: {**mark, "or_older": True}}
        elif newest is not None:
            backups.mark_restore(fresh, newest, or_older=True)
        elif queries.MEMORY_LOST_AT not in fresh.health:
            await _tell_loss(run, session, fresh)
        session.add(fresh)


async def _tell_loss(run: Run, session: AsyncSession, box: Box) -> None:
    """Say once that what it remembered is gone without a backup."""
    at = (await business_now(session)).isoformat()
    box.health = {**box.health, queries.MEMORY_LOST_AT: at}
    await leases.add_progress(session, run.fence, "Its volume is gone, and there is no backup.")
    await jobs.raise_alert(
        session,
        code=health.ALERT_LOST,
        subject=str(box.id),
        detail={"namespace": box.k8s_namespace, "volume": manifests.NAME},
    )
    await run.tell(session, [change_of(box, ChangeKind.MEMORY_LOST)])
    health.announce(session, box)


async def _save_before_restore(run: Run, box: Box) -> bool:
    """Save what a restore replaces; say whether that worked, once no further try is left."""
    try:
        await saving.save(run, box, Reason.BEFORE_RESTORE, keeper_run.patient())
    except VendorError as error:
        attempt = run.job.attempt
        if attempt < run.job.max_attempts and is_worth_another_try(error, attempt):
            raise
        await keeper_run.tell_failure(run, box, ALERT_RESTORE, error)
        await run.say("What it remembers now could not be saved, so no backup replaces it.")
        return False
    return True


def _replaces_nothing(box: Box, mark: dict[str, Any]) -> bool:
    """Say whether there is no memory that would have to be saved first."""
    return not queries.has_memory(box) or _must_happen(mark)


def _must_happen(mark: dict[str, Any]) -> bool:
    """Say whether the volume was lost, or a keeper that moves files in has to finish."""
    return any(mark.get(one) for one in ("or_older", "is_taken", "was_taken"))


async def _restore(run: Run, box: Box) -> None:
    """Bring the marked backup back; what cannot be brought back is told, and the box starts."""
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        mark = (fresh.health.get(backups.RESTORE) or {}).get("mark", "")
        chosen = await backups.find_marked(session, fresh)
    try:
        memory_from = await _bring_back(run, fresh, chosen)
    except KeeperError as error:
        is_last = run.job.attempt >= run.job.max_attempts
        if not isinstance(error, GoneError) and not (is_last and await _may_do_without(box)):
            raise
        await keeper_run.tell_failure(run, box, ALERT_RESTORE, error)
        if await _mark_older(box, error):
            await _restore(run, box)
        else:
            await _end_restore(run, box, mark, None)
        return
    await _end_restore(run, box, mark, memory_from)


async def _bring_back(run: Run, box: Box, chosen: BoxBackup | None) -> datetime | None:
    """Have a keeper put a backup in the place of what is there; returns from when it is.

    Raises:
        GoneError: it is of no use any more, and nothing was touched.
        KeeperError: it did not work, which it may the next time.
    """
    if chosen is not None and chosen.box_id != box.id:
        await cloning.copy_over(run, box, chosen)
    elif chosen is not None and backups.is_snapshot(chosen):
        await lifting.lift(run, box, chosen)
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        ticket = await backups.begin_restore(session, fresh)
    if ticket is None:
        raise GoneError("That backup is gone.")
    saved = await keeper_run.row(ticket.backup_id)
    await keeper_run.clear(run, box.k8s_namespace)
    await run.say("Bringing its memory back from a backup.")
    try:
        await keeper_run.carry(run, box, ticket, keeper_run.patient())
    except KeeperError as error:
        if (await keeper_run.row(ticket.backup_id)).error is not None:
            raise GoneError(str(error)) from error
        raise
    return saved.created_at


async def _may_do_without(box: Box) -> bool:
    """Say whether the box may start without this backup, or with an older one.

    It may while the memory is whole as it was: not where the volume is new, nor where a keeper had
    the archive and may have been ended while it moved files. Into a new volume that nothing was
    moved to an older backup may come, where a snapshot cannot be read: storage that lost it may say
    for ever that it is ready.
    """
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id)
        chosen = await backups.find_marked(session, fresh)
    mark = fresh.health.get(backups.RESTORE) or {}
    if any(mark.get(one) for one in ("is_taken", "was_taken")):
        return False
    return not mark.get("or_older") or (chosen is not None and backups.is_snapshot(chosen))


async def _mark_older(box: Box, error: KeeperError) -> bool:
    """Where any backup will do, choose the next one; say whether there is one.

    A snapshot that was passed over is not known to be bad: it is chosen again where all older ones
    are, and waits for the next attempt.

    Raises:
        KeeperError: nothing is left to try now, but not all is lost.
    """
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        if not fresh.health.get(backups.RESTORE, {}).get("or_older"):
            return False
        chosen = await backups.find_marked(session, fresh)
        older = await backups.newest_usable(session, box.id, after=chosen)
        left = older or await backups.newest_usable(session, box.id)
        if left is not None:
            backups.mark_restore(fresh, left, or_older=True)
            session.add(fresh)
    if older is None and left is not None:
        raise error
    return older is not None


async def _end_restore(run: Run, box: Box, mark: str, memory_from: datetime | None) -> None:
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        sentence = "The backup could not be brought back; the memory is as it was."
        was_lost = bool(fresh.health.get(backups.RESTORE, {}).get("or_older"))
        backups.drop_restore(fresh, mark)
        kept = dict(fresh.health)
        if memory_from is not None:
            sentence = f"Its memory is back, as of {memory_from:%d %B %Y, %H:%M} UTC."
            kept[queries.MEMORY_FROM] = memory_from.isoformat()
            kept[queries.RESTORED_AT] = (await business_now(session)).isoformat()
            kept.pop(queries.MEMORY_LOST_AT, None)
        is_lost = memory_from is None and was_lost
        if is_lost:  # its place was lost, and with it what no backup brings back
            sentence = "No backup could be brought back: its memory is lost."
            kept[queries.MEMORY_LOST_AT] = (await business_now(session)).isoformat()
        await leases.add_progress(session, run.fence, sentence)
        fresh.health = kept
        session.add(fresh)
        if is_lost:
            await run.tell(session, [change_of(fresh, ChangeKind.MEMORY_LOST)])
        health.announce(session, fresh)
        if memory_from is not None:
            await jobs.resolve_alert(session, code=ALERT_RESTORE, subject=str(box.id))


async def _stop(run: Run, box: Box) -> None:
    """Take the pod away for a moment, and show that."""
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        if fresh.status is BoxStatus.ACTIVE:
            move(fresh, BoxStatus.UPDATING, now=await business_now(session))
            session.add(fresh)
            health.announce(session, fresh)
    await keeper_run.scale_down(run, box)
