"""The memory of a box that does not run: saved before it is left, brought back before it starts.

A keeper (`keeper.py`) does the carrying, in a Job that has the volume for itself: the pod is gone
before it begins, and it is gone before a pod begins. What became of a backup is read from its row,
never from the Job alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import (
    backups,
    carrying,
    fencing,
    health,
    keeper_job,
    manifests,
    quantities,
    queries,
)
from openclaw_web.boxes.backups import Reason, Ticket
from openclaw_web.boxes.changes import ChangeKind, change_of
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.keeper_job import KeeperSpec
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.boxes.runs import POLL_SECONDS, Run, living, wait_until_empty
from openclaw_web.boxes.sentences import failure
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.core.settings import settings
from openclaw_web.integrations.cluster_objects import NamespaceState
from openclaw_web.jobs import leases
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.leases import LeaseLostError

START_SECONDS = 180.0  # for the keeper's image to come, and for the volume to move
SUSPEND_SECONDS = 900.0  # a suspended box does not hold up the queue for longer
SLACK_BYTES = 64 * 1024 * 1024  # headers and padding of a volume that is full
ALERT_BACKUP = "backup_failed"
ALERT_FINAL = "final_backup_failed"
ALERT_RESTORE = "restore_failed"
NO_BACKUP = "no_backup"
Wanted = Callable[[], Awaitable[bool]]


class KeeperError(VendorError):
    """The memory could not be carried; trying again may help."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, can_retry=True, code=NO_BACKUP)


class NotWantedError(VendorError):
    """It was stopped, because the box is wanted for something better."""

    def __init__(self) -> None:
        super().__init__("The assistant is wanted again.", can_retry=True, code="not_wanted")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one carrying may take, and who may end it earlier."""

    seconds: float
    is_wanted: Wanted


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
    if backups.RESTORE in fresh.health or _wants_backup(run, fresh):
        await _stop(run, fresh)


async def before_start(run: Run, box: Box) -> None:
    """Do what was asked for while the pod is away: save the memory, bring a backup back.

    A backup that does not work keeps no assistant from answering, and a restore that does not work
    leaves the memory as it was; both are told. What a restore replaces is saved first, or nothing
    is replaced. Afterwards the volume is free.
    """
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id)
        since = _left_since(fresh, await business_now(session))
        if fresh.status is not BoxStatus.SUSPENDED:  # it ran until this job came
            since = max(since, run.job.started_at or since)
        saved = await backups.find_since(session, box.id, since) is not None
    mark = fresh.health.get(backups.RESTORE) or {}
    if _wants_backup(run, fresh) and not (saved and run.job.attempt > 1):
        saved = await _save_or_tell(run, fresh, _reason_of(run), ALERT_BACKUP)
    if not mark:
        await clear(run, box.k8s_namespace)
    elif saved or _replaces_nothing(mark) or await _save_before_restore(run, fresh):
        await _restore(run, fresh)
    else:
        await _end_restore(run, fresh, mark["mark"], None)


async def after_suspend(run: Run, box: Box) -> None:
    """Save the memory of a box that has just been stopped, unless that was done already.

    The box is suspended whatever becomes of this, and a wish to wake it up ends it at once.
    """
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id)
        since = _left_since(fresh, await business_now(session))
        is_saved = await backups.find_since(session, box.id, since) is not None
    is_asked = _asks_for(run, backups.BACKUP)
    if not backups.are_on() or fresh.activated_at is None or (is_saved and not is_asked):
        return
    reason = _reason_of(run) if is_asked else Reason.SUSPEND
    await _save_or_tell(run, fresh, reason, ALERT_BACKUP)


async def before_destroy(run: Run, box: Box) -> None:
    """Make sure that a last backup exists before anything is deleted.

    A customer who asked to be forgotten gets none. A box that never answered, or whose volume is
    gone, has nothing to save.

    Raises:
        KeeperError: there is none yet; the box stays as it is, and this is tried again.
    """
    async with session_scope() as session:
        has_no_memory = box.activated_at is None or await backups.is_forgotten(session, box)
        final = await backups.find_final(session, box.id)
    if has_no_memory:
        return
    if final is None and not backups.are_on():
        await run.say("Backups are not set up here: nothing of its memory is kept.")
        return
    if await run.cluster.namespace_state(box.k8s_namespace) is not NamespaceState.ACTIVE:
        return
    if not await _has_volume(run, box.k8s_namespace):
        return
    try:
        if final is None:
            await _scale_down(run, box)
            await _save(run, box, Reason.FINAL, _patient())
        await _verify_final(box)
    except VendorError as error:
        await _tell_failure(run, box, ALERT_FINAL, error)
        raise
    await _settle(box, ALERT_FINAL, ALERT_BACKUP)


async def _verify_final(box: Box) -> None:
    """Read the last backup once more: when its volume is deleted, there is nothing else."""
    async with session_scope() as session:
        final = await backups.find_final(session, box.id)
    if final is None:
        raise KeeperError("There is no last backup yet.")
    try:
        await carrying.verify(final)
    except OpenClawError as error:
        await carrying.note_trouble(final, error)
        raise KeeperError(f"Its last backup cannot be read: {error}") from error


async def adopt_final(run: Run, box: Box) -> None:
    """Call the backup of a suspended box its last one: nothing has run since.

    Our row alone does not say so: the cluster may be ahead of a database that was restored.
    """
    if box.status is not BoxStatus.SUSPENDED or box.status_changed_at is None:
        return
    deployment = await run.cluster.find_deployment(box.k8s_namespace, manifests.NAME)
    if (deployment and deployment.replicas) or await living(run, box.k8s_namespace):
        return
    async with session_scope() as session:
        await leases.hold(session, run.fence)
        since = _left_since(box, box.status_changed_at)
        found = await backups.find_since(session, box.id, since)
        if found is not None:
            found.reason = Reason.FINAL.value
            session.add(found)


async def clear(run: Run, namespace: str) -> None:
    """End every keeper, so that the volume is free for the pod."""
    found = await run.cluster.jobs(namespace)
    for job in found:
        await run.check()
        await run.cluster.delete("Job", namespace, job.name)
    if found:
        await _wait_until_free(run, namespace)


async def _note_lost_place(run: Run, box: Box) -> None:
    if box.activated_at is None:
        return
    is_there = await run.cluster.namespace_state(box.k8s_namespace) is NamespaceState.ACTIVE
    if is_there and await _has_volume(run, box.k8s_namespace):
        return
    # One "not found" is no proof: an older memory would take the place of what is there.
    if is_there and await _has_volume(run, box.k8s_namespace):
        return
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        newest = await backups.newest_usable(session, box.id)
        if mark := fresh.health.get(backups.RESTORE):
            fresh.health = {**fresh.health, backups.RESTORE: {**mark, "or_older": True}}
        elif newest is not None:
            backups.mark_restore(fresh, newest, or_older=True)
        elif is_there and queries.MEMORY_LOST_AT not in fresh.health:
            await _tell_loss(run, session, fresh)
        session.add(fresh)


async def _tell_loss(run: Run, session: AsyncSession, box: Box) -> None:
    """Say that a volume is gone without a backup; a namespace that is gone was told already."""
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
        await _save(run, box, Reason.BEFORE_RESTORE, _patient())
    except VendorError as error:
        if error.can_retry and run.job.attempt < run.job.max_attempts:
            raise
        await _tell_failure(run, box, ALERT_RESTORE, error)
        await run.say("What it remembers now could not be saved, so no backup replaces it.")
        return False
    return True


def _replaces_nothing(mark: dict[str, Any]) -> bool:
    """Say whether the volume is new, or a keeper that moves files in has to finish."""
    return any(mark.get(one) for one in ("or_older", "is_taken", "was_taken"))


def _left_since(box: Box, now: datetime) -> datetime:
    """Return since when nothing has changed the memory of a box without a pod."""
    since = box.status_changed_at or now
    restored = box.health.get(queries.RESTORED_AT)
    return max(since, datetime.fromisoformat(restored)) if restored else since


async def _save_or_tell(run: Run, box: Box, reason: Reason, alert: str) -> bool:
    async def is_wanted() -> bool:
        async with session_scope() as session:
            fresh = await queries.get_any_box(session, box.id)
            desired, _ = await queries.desired_of(session, fresh)
        return fresh.status is not BoxStatus.SUSPENDED or desired is Desired.SUSPENDED

    try:
        await _save(run, box, reason, Patience(seconds=SUSPEND_SECONDS, is_wanted=is_wanted))
    except NotWantedError:
        await run.say("No backup was made: it is to run again.")
    except VendorError as error:
        await _tell_failure(run, box, alert, error)
    else:
        await _settle(box, alert)
        return True
    return False


async def _save(run: Run, box: Box, reason: Reason, patience: Patience) -> None:
    volume = await run.cluster.find_claim(box.k8s_namespace, manifests.NAME)
    if volume is None:
        return
    sizes = (quantities.whole(volume.requested), quantities.whole(volume.capacity))
    await clear(run, box.k8s_namespace)
    await run.say("Making a backup of its memory.")
    async with session_scope() as session:
        await leases.hold(session, run.fence)
        ticket = await backups.begin_save(session, box, reason, most=max(sizes) + SLACK_BYTES)
    try:
        await _carry(run, box, ticket, patience)
    except VendorError as error:
        await _give_up(ticket.backup_id, str(error))
        raise
    saved = await _row(ticket.backup_id)
    if saved.finished_at is None:
        sentence = saved.error or "The keeper ended before the memory was saved."
        await _give_up(ticket.backup_id, sentence)
        raise KeeperError(sentence)
    await run.say(f"Its memory is saved ({_size(saved.size_bytes or 0)}).")


async def _restore(run: Run, box: Box) -> None:
    """Bring the marked backup back; what cannot be brought back is told, and the box starts."""
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        mark = (fresh.health.get(backups.RESTORE) or {}).get("mark", "")
        ticket = await backups.begin_restore(session, fresh)
    if ticket is None:
        await _tell_failure(run, box, ALERT_RESTORE, KeeperError("That backup is gone."))
        await _try_older(run, box, mark)
        return
    saved = await _row(ticket.backup_id)
    await clear(run, box.k8s_namespace)
    await run.say("Bringing its memory back from a backup.")
    try:
        await _carry(run, box, ticket, _patient())
    except KeeperError as error:
        is_last = run.job.attempt >= run.job.max_attempts
        is_damaged = (await _row(ticket.backup_id)).error is not None
        if not is_damaged and not (is_last and await _is_untouched(box)):
            raise
        await _tell_failure(run, box, ALERT_RESTORE, error)
        await _try_older(run, box, mark)
        return
    await _end_restore(run, box, mark, saved.created_at)


async def _try_older(run: Run, box: Box, mark: str) -> None:
    if await _mark_older(box):
        await _restore(run, box)
    else:
        await _end_restore(run, box, mark, None)


async def _is_untouched(box: Box) -> bool:
    """Say whether the memory is whole as it was, so that the box may start without the backup.

    It is not where the volume is new, nor where a keeper had the archive and may have been ended
    while it moved files.
    """
    async with session_scope() as session:
        mark = (await queries.get_any_box(session, box.id)).health.get(backups.RESTORE) or {}
    return not _replaces_nothing(mark)


async def _mark_older(box: Box) -> bool:
    """Where any backup will do, choose the next one; say whether there is one."""
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        older = await backups.newest_usable(session, box.id)
        will_do = bool(fresh.health.get(backups.RESTORE, {}).get("or_older"))
        if older is None or not will_do:
            return False
        backups.mark_restore(fresh, older, or_older=True)
        session.add(fresh)
    return True


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


async def _carry(run: Run, box: Box, ticket: Ticket, patience: Patience) -> None:
    """Run a keeper to its end, and see to it that nothing of it is left."""
    chosen = settings()
    spec = KeeperSpec(
        namespace=box.k8s_namespace,
        box_id=str(box.id),
        image=chosen.keeper_image,
        url=_address(chosen.box_proxy_url, ticket.backup_id),
        ticket=ticket,
        runtime_class=chosen.box_runtime_class,
    )
    await run.check()
    await run.cluster.apply(keeper_job.secret(spec))
    await run.check()
    await run.cluster.apply(keeper_job.job(spec, fence=run.fence.number))
    try:
        with run.aside():
            await _wait_for(run, spec, patience)
    except LeaseLostError:
        raise  # whoever holds the job now clears up
    except BaseException:
        await run.cluster.delete("Job", spec.namespace, spec.name)
        raise
    await _clear_up(run, spec)


async def _clear_up(run: Run, spec: KeeperSpec) -> None:
    """Leave nothing of a keeper; one slip of the cluster must not call what it saved a failure."""
    try:
        await clear(run, spec.namespace)
    except VendorError:
        await clear(run, spec.namespace)
    await run.cluster.delete("Secret", spec.namespace, keeper_job.NAME)


async def _wait_for(run: Run, spec: KeeperSpec, patience: Patience) -> None:
    began = time.monotonic()
    while True:
        job = next(
            (one for one in await run.cluster.jobs(spec.namespace) if one.name == spec.name), None
        )
        if job is None:
            raise KeeperError("The keeper's job vanished.")
        if job.is_complete:
            return
        if job.is_failed:
            raise KeeperError(await _complaint(spec, job.reason))
        spent = time.monotonic() - began
        if spent > patience.seconds:
            raise KeeperError("It takes too long.")
        if spent > START_SECONDS and not await _is_at_work(run, spec):
            raise KeeperError("The keeper does not start.")
        if await run.check_now_and_then() and not await patience.is_wanted():
            raise NotWantedError
        await asyncio.sleep(POLL_SECONDS)


async def _complaint(spec: KeeperSpec, reason: str) -> str:
    saved = await _row(spec.ticket.backup_id)
    return saved.error or f"The keeper failed ({reason or 'without a word'})."


async def _is_at_work(run: Run, spec: KeeperSpec) -> bool:
    found = await living(run, spec.namespace)
    return any(pod.phase == "Running" for pod in found)


async def _stop(run: Run, box: Box) -> None:
    """Take the pod away for a moment, and show that."""
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        if fresh.status is BoxStatus.ACTIVE:
            move(fresh, BoxStatus.UPDATING, now=await business_now(session))
            session.add(fresh)
            health.announce(session, fresh)
    await _scale_down(run, box)


async def _scale_down(run: Run, box: Box) -> None:
    await fencing.scale_to_nothing(run, box.k8s_namespace)
    await clear(run, box.k8s_namespace)
    await wait_until_empty(run, box.k8s_namespace)


async def _wait_until_free(run: Run, namespace: str) -> None:
    """Wait until no keeper's pod is left; the box's own is somebody else's business."""
    deadline = time.monotonic() + START_SECONDS
    while any(_is_keeper(pod.labels) for pod in await living(run, namespace)):
        if time.monotonic() > deadline:
            raise KeeperError("The keeper's pod does not end.")
        await run.check_now_and_then()
        await asyncio.sleep(POLL_SECONDS)


def _is_keeper(labels: dict[str, str]) -> bool:
    return labels.get("app.kubernetes.io/name") == keeper_job.NAME


async def _has_volume(run: Run, namespace: str) -> bool:
    found = await run.cluster.find_object("PersistentVolumeClaim", namespace, manifests.NAME)
    return found is not None


async def _give_up(backup_id: UUID, sentence: str) -> None:
    """Close a backup that failed: its address takes nothing any more."""
    async with session_scope() as session:
        backup = await session.get(BoxBackup, backup_id, with_for_update=True)
        if backup is not None and backup.finished_at is None:
            backup.error = backup.error or sentence[:500]
            session.add(backup)


async def _tell_failure(run: Run, box: Box, alert: str, error: VendorError) -> None:
    async with session_scope() as session:
        await leases.add_progress(session, run.fence, f"That did not work: {failure(error.code)}.")
        await jobs.raise_alert(
            session, code=alert, subject=str(box.id), detail={"error": str(error)}
        )


async def _settle(box: Box, *alerts: str) -> None:
    async with session_scope() as session:
        for code in alerts:
            await jobs.resolve_alert(session, code=code, subject=str(box.id))


async def _row(backup_id: UUID) -> BoxBackup:
    async with session_scope() as session:
        return await session.get_one(BoxBackup, backup_id)


def _patient() -> Patience:
    async def always() -> bool:
        return True

    return Patience(seconds=keeper_job.LONGEST_SECONDS, is_wanted=always)


def _wants_backup(run: Run, box: Box) -> bool:
    is_asked = _asks_for(run, backups.BACKUP) and box.activated_at is not None
    return is_asked and backups.are_on()


def _asks_for(run: Run, action: str) -> bool:
    return action in run.job.payload.get("actions", ())


def _reason_of(run: Run) -> Reason:
    return Reason(run.job.payload.get("backup_reason", Reason.MANUAL.value))


def _address(proxy_url: str, backup_id: UUID) -> str:
    """Return the address at the token proxy: the only one of ours that a box may call at all."""
    parts = urlsplit(proxy_url)
    return f"{parts.scheme}://{parts.netloc}{backups.PATH}{backup_id}"


def _size(count: int) -> str:
    megabytes = count / 1_000_000
    return f"{megabytes:.1f} MB" if megabytes >= 1 else f"{max(1, count // 1_000)} kB"
