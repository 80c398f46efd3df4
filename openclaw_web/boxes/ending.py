"""Ending a box for a while or for good: scale to nothing, or delete all that it has."""

from openclaw_web.boxes import fencing, health, queries, service, upgrading
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.desired import Desired, Why
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.memory import (
    backups,
    keeper_run,
    rescuing,
    restoring,
    retaining,
    saving,
    snapshots,
)
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.runs import Run, StopRequestedError, wait_until_empty, wait_until_gone
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster_objects import NamespaceState
from openclaw_web.jobs import leases
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind

HELD = "held"
ALERTS = (
    backups.ALERT_FINAL,
    restoring.ALERT_RESTORE,
    saving.ALERT_BACKUP,
    snapshots.ALERT_FAILED,
    upgrading.ALERT_TAKEN_BACK,
)


async def suspend(run: Run, box: Box, why: Why) -> list[BoxChange]:
    """Scale to nothing and end the tokens; the volume stays."""
    await run.say("Stopping the assistant; its memory is kept.")
    await fencing.scale_to_nothing(run, box.k8s_namespace)
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id, lock=True)
        await leases.add_progress(session, run.fence, "The assistant is being stopped.")
        has_moved = move(
            box, BoxStatus.SUSPENDED, now=await business_now(session), reason=why.value
        )
        box.health_failures = 0
        session.add(box)
        # Its customer's own keys only rest: programs need no new ones when it wakes up.
        await metering.revoke_tokens_of_box(session, box.id, kind=TokenKind.BOX)
        service.announce_access(session, box)
        changes = [change_of(box, ChangeKind.SUSPENDED)] if has_moved else []
        await run.tell(session, changes)
    await keeper_run.clear(run, box.k8s_namespace)
    await wait_until_empty(run, box.k8s_namespace)
    await saving.after_suspend(run, box)
    return changes


async def destroy(run: Run, box: Box, why: Why) -> list[BoxChange]:
    """End the tokens first, then everything in the cluster, then the secrets that we keep.

    Its namespace goes only after its last backup succeeded; until then it stays `destroying`.

    Raises:
        StopRequestedError: it is wanted again, and nothing has been ended.
        VendorError: no last backup could be made yet, a hold came before anything was deleted, or
            the cluster does not delete.
    """
    await run.check("Ending its tokens.")
    was = box
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        if (await queries.desired_of(session, box))[0] is not Desired.DESTROYED:
            raise StopRequestedError("This assistant is not to end any more.")
        if box.status is not BoxStatus.DESTROYING:
            move(box, BoxStatus.DESTROYING, now=await business_now(session), reason=why.value)
        session.add(box)
        await metering.revoke_tokens_of_box(session, box.id)
    await saving.adopt_final(run, was)
    await rescuing.before_destroy(run, box)
    await saving.before_destroy(run, box)
    await _require_no_hold(run, box)
    await run.check("Deleting its namespace, with pod, volume and secrets.")
    await run.cluster.delete_namespace(box.k8s_namespace)
    await wait_until_gone(run, box.k8s_namespace)
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id, lock=True)
        await leases.add_progress(session, run.fence, "Nothing of it is left in the cluster.")
        move(box, BoxStatus.DESTROYED, now=await business_now(session), reason=box.status_reason)
        session.add(box)
        await retaining.keep_after_end(session, box)
        await health.wipe(session, box, alerts=ALERTS)
        changes = [change_of(box, ChangeKind.DESTROYED)]
        await run.tell(session, changes)
    return changes


async def _require_no_hold(run: Run, box: Box) -> None:
    """A hold that came late still keeps what there is; the sweep asks again when it is released."""
    async with session_scope() as session:
        if not await queries.is_held(session, box):
            return
    if await run.cluster.namespace_state(box.k8s_namespace) is NamespaceState.ACTIVE:
        raise VendorError("A hold keeps it from being deleted.", can_retry=True, code=HELD)
