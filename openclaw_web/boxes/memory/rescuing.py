"""Before a deletion: what lies in a snapshot alone is brought out, since snapshots go with it."""

from openclaw_web.boxes import queries
from openclaw_web.boxes.memory import backups, keeper_run, lifting
from openclaw_web.boxes.memory.backups import ALERT_FINAL, GIVEN_UP, Reason
from openclaw_web.boxes.memory.keeper_run import GoneError
from openclaw_web.boxes.models import Box, BoxBackup
from openclaw_web.boxes.runs import Run
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.jobs import leases


async def before_destroy(run: Run, box: Box) -> None:
    """Make the newest snapshot the last backup, where the volume does not hold what it holds.

    That is so when the volume is gone, when it is new and its memory was never brought back, and
    when an admin gave the volume's last backup up: then it is tried, and no reason to wait.

    Raises:
        VendorError: it could not be brought out; nothing is deleted, and this is tried again.
    """
    while newest := await _only_place(run, box):
        try:
            await keeper_run.scale_down(run, box)
            await lifting.lift(run, box, newest)
        except GoneError:
            continue  # its row says so now: an older one is looked for
        except VendorError as error:
            await keeper_run.tell_failure(run, box, ALERT_FINAL, error)
            if GIVEN_UP not in box.health:
                raise
            await run.say("Its newest snapshot cannot be read: that goes with it.")
            return
        await _call_it_last(run, box, newest)


async def _only_place(run: Run, box: Box) -> BoxBackup | None:
    """Return the snapshot that is the only place of the newest memory; nothing without one."""
    async with session_scope() as session:
        if not queries.has_memory(box) or await backups.is_forgotten(session, box):
            return None
        newest = await backups.newest_usable(session, box.id)
    if newest is None or not backups.is_snapshot(newest) or not backups.are_on():
        return None
    place = await keeper_run.place_of(run, box.k8s_namespace)
    waits = bool(box.health.get(backups.RESTORE, {}).get("or_older"))
    is_held = place.has_volume and not waits and GIVEN_UP not in box.health
    return newest if place.is_there and not is_held else None


async def _call_it_last(run: Run, box: Box, snapshot: BoxBackup) -> None:
    async with session_scope() as session:
        await leases.hold(session, run.fence)
        lifted = await backups.newest_usable(session, box.id)
        if lifted is not None and lifted.created_at == snapshot.created_at:
            lifted.reason = Reason.FINAL.value
            session.add(lifted)
    await keeper_run.settle(box, ALERT_FINAL)
