"""Saving the memory of a box that does not run: when it is suspended, asked for, or at its end."""

from datetime import datetime
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import manifests, quantities, queries, sentences, upgrading
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.memory import backups, carrying, keeper_run
from openclaw_web.boxes.memory.backups import ALERT_FINAL, GIVEN_UP, Reason
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.boxes.runs import NotReadyError, Run, living
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.jobs import leases

SUSPEND_SECONDS = 900.0  # a suspended box does not hold up the queue for longer
SLACK_BYTES = 64 * 1024 * 1024  # headers and padding of a volume that is full
ALERT_BACKUP = "backup_failed"


async def after_suspend(run: Run, box: Box) -> None:
    """Save the memory of a box that has just been stopped, unless that was done already.

    The box is suspended whatever becomes of this, and a wish to wake it up ends it at once.
    """
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id)
        since = left_since(fresh, await business_now(session))
        is_saved = await backups.find_since(session, box.id, since) is not None
    is_asked = _asks_for(run, backups.BACKUP)
    if not backups.are_on() or not queries.has_memory(fresh) or (is_saved and not is_asked):
        return
    reason = reason_of(run) if is_asked else Reason.SUSPEND
    await save_or_tell(run, fresh, reason, ALERT_BACKUP)


async def before_destroy(run: Run, box: Box) -> None:
    """Make sure that a last backup exists before anything is deleted.

    A customer who asked to be forgotten gets none. A box that remembers nothing, or whose volume is
    gone, has nothing to save.

    Raises:
        keeper_run.KeeperError: there is none yet; the box stays as it is, and this is tried again.
    """
    async with session_scope() as session:
        has_no_memory = not queries.has_memory(box) or await backups.is_forgotten(session, box)
        final = await backups.find_final(session, box.id)
    if has_no_memory:
        return
    if GIVEN_UP in box.health:
        await run.say("An admin gave up its last backup: nothing of its memory since is kept.")
        await keeper_run.settle(box, ALERT_FINAL, ALERT_BACKUP)
        return
    if final is None and not backups.are_on():
        await run.say("Backups are not set up here: nothing of its memory is kept.")
        return
    if not (await keeper_run.place_of(run, box.k8s_namespace)).has_volume:
        return
    try:
        if final is None:
            await keeper_run.scale_down(run, box)
            await save(run, box, Reason.FINAL, keeper_run.patient())
        await _verify_final(box)
    except VendorError as error:
        await keeper_run.tell_failure(run, box, ALERT_FINAL, error)
        raise
    await keeper_run.settle(box, ALERT_FINAL, ALERT_BACKUP)


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
        since = left_since(box, box.status_changed_at)
        found = await backups.find_since(session, box.id, since)
        if found is not None:
            found.reason = Reason.FINAL.value
            session.add(found)


async def _verify_final(box: Box) -> None:
    """Read the last backup once more: when its volume is deleted, there is nothing else."""
    async with session_scope() as session:
        final = await backups.find_final(session, box.id)
    if final is None:
        raise keeper_run.KeeperError("There is no last backup yet.")
    try:
        await carrying.verify(final)
    except OpenClawError as error:
        await carrying.note_trouble(final, error)
        raise keeper_run.KeeperError(f"Its last backup cannot be read: {error}") from error


async def save_or_tell(run: Run, box: Box, reason: Reason, alert: str) -> bool:
    async def is_wanted() -> bool:
        async with session_scope() as session:
            fresh = await queries.get_any_box(session, box.id)
            desired, _ = await queries.desired_of(session, fresh)
        return fresh.status is not BoxStatus.SUSPENDED or desired is Desired.SUSPENDED

    try:
        await save(
            run, box, reason, keeper_run.Patience(seconds=SUSPEND_SECONDS, is_wanted=is_wanted)
        )
    except keeper_run.NotWantedError:
        await run.say("No backup was made: it is to run again.")
    except VendorError as error:
        await keeper_run.tell_failure(run, box, alert, error)
    else:
        await keeper_run.settle(box, alert)
        return True
    return False


async def save(run: Run, box: Box, reason: Reason, patience: keeper_run.Patience) -> None:
    volume = await run.cluster.find_claim(box.k8s_namespace, manifests.NAME)
    if volume is None:  # one "not found" is no proof: what is asked for would silently not be saved
        volume = await run.cluster.find_claim(box.k8s_namespace, manifests.NAME)
    if volume is None:
        return
    sizes = (quantities.whole(volume.requested), quantities.whole(volume.capacity))
    await keeper_run.clear(run, box.k8s_namespace)
    await run.say("Making a backup of its memory.")
    async with session_scope() as session:
        await leases.hold(session, run.fence)
        ticket = await backups.begin_save(session, box, reason, most=max(sizes) + SLACK_BYTES)
    try:
        await keeper_run.carry(run, box, ticket, patience)
    except VendorError as error:
        await give_up(ticket.backup_id, str(error))
        raise
    saved = await keeper_run.row(ticket.backup_id)
    if saved.finished_at is None:
        sentence = saved.error or "The keeper ended before the memory was saved."
        await give_up(ticket.backup_id, sentence)
        raise keeper_run.KeeperError(sentence)
    await run.say(f"Its memory is saved ({_size(saved.size_bytes or 0)}).")


async def give_up(backup_id: UUID, sentence: str) -> None:
    """Close a backup that failed: its address takes nothing any more."""
    async with session_scope() as session:
        backup = await session.get(BoxBackup, backup_id, with_for_update=True)
        if backup is not None and backup.finished_at is None:
            backup.error = backup.error or sentence[:500]
            session.add(backup)


def wants_backup(run: Run, box: Box) -> bool:
    is_asked = _asks_for(run, backups.BACKUP) and queries.has_memory(box)
    return is_asked and backups.are_on()


async def must_precede_upgrade(session: AsyncSession, box: Box) -> bool:
    """Say whether another OpenClaw is to start on a memory that was not saved for it yet.

    The new one may write it in its own way, and going back to the old one does not undo that.
    """
    if not backups.are_on() or not queries.has_memory(box):
        return False
    since = await upgrading.asked_at(session, box)
    return since is not None and await backups.find_before_upgrade(session, box.id, since) is None


async def save_before_upgrade(run: Run, box: Box) -> bool:
    """Save the memory before another OpenClaw starts on it.

    Raises:
        NotReadyError: it could not be saved, and the upgrade does not happen.
    """
    if not await save_or_tell(run, box, Reason.BEFORE_UPGRADE, ALERT_BACKUP):
        raise NotReadyError(sentences.Reason.NOT_SAVED, blamed_from=1)
    return True


def _asks_for(run: Run, action: str) -> bool:
    return action in run.job.payload.get("actions", ())


def reason_of(run: Run) -> Reason:
    return Reason(run.job.payload.get("backup_reason", Reason.MANUAL.value))


def left_since(box: Box, now: datetime) -> datetime:
    """Return since when nothing has changed the memory of a box without a pod."""
    since = box.status_changed_at or now
    restored = box.health.get(queries.RESTORED_AT)
    return max(since, datetime.fromisoformat(restored)) if restored else since


def _size(count: int) -> str:
    megabytes = count / 1_000_000
    return f"{megabytes:.1f} MB" if megabytes >= 1 else f"{max(1, count // 1_000)} kB"
