"""Ending a box for a while or for good: scale to nothing, or delete all that it has."""

from openclaw_web.boxes import health, manifests, queries, service
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.desired import Why
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.runs import Run, wait_until_empty, wait_until_gone
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import leases
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind


async def suspend(run: Run, box: Box, why: Why) -> list[BoxChange]:
    """Scale to nothing and end the tokens; the volume stays."""
    deployment = await run.cluster.find_deployment(box.k8s_namespace, manifests.NAME)
    if deployment is not None:
        run.check_fence(deployment.annotations)
        await run.say("Stopping the assistant; its memory is kept.")
        await run.check()
        await run.cluster.scale(box.k8s_namespace, manifests.NAME, 0)
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
    await wait_until_empty(run, box.k8s_namespace)
    return changes


async def destroy(run: Run, box: Box, why: Why) -> list[BoxChange]:
    """End the tokens first, then everything in the cluster, then the secrets that we keep."""
    await run.say("Ending its tokens.")
    await run.check()
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        if box.status is not BoxStatus.DESTROYING:
            move(box, BoxStatus.DESTROYING, now=await business_now(session), reason=why.value)
        session.add(box)
        await metering.revoke_tokens_of_box(session, box.id)
    await run.say("Deleting its namespace, with pod, volume and secrets.")
    await run.check()
    await run.cluster.delete_namespace(box.k8s_namespace)
    await wait_until_gone(run, box.k8s_namespace)
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id, lock=True)
        await leases.add_progress(session, run.fence, "Nothing of it is left in the cluster.")
        move(box, BoxStatus.DESTROYED, now=await business_now(session), reason=box.status_reason)
        session.add(box)
        await health.wipe(session, box)
        changes = [change_of(box, ChangeKind.DESTROYED)]
        await run.tell(session, changes)
    return changes
