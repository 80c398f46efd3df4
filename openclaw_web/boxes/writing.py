"""Writing a box into its cluster: before each write the lease is checked, nothing newer is lost.

Each step may be done twice, and a crash between any two is mended by running it again.
"""

from dataclasses import replace
from functools import partial
from uuid import UUID

from openclaw_web.boxes import fencing, manifests, quantities, rendering
from openclaw_web.boxes.goals import Goal
from openclaw_web.boxes.manifests import BoxSpec
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.runs import Run, living
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.jobs import leases
from openclaw_web.jobs import service as jobs
from openclaw_web.metering import service as metering

CLAIM = "PersistentVolumeClaim"
REFUSED = frozenset({"forbidden", "invalid", "quota"})  # the volume's class cannot make it larger
ALERT_VOLUME = "volume_too_small"
# The write may have happened; after a conflict, in a try that somebody between repeated.
UNSURE = frozenset({"timeout", "unreachable", "server_error", "conflict"})
STEPS = {
    "Namespace": "Making a place of its own in the cluster.",
    "NetworkPolicy": "Closing its network, but for names, its model and the public web.",
    CLAIM: "Giving it a volume for its memory.",
}


async def write_surroundings(run: Run, goal: Goal) -> None:
    spec = goal.rendered.spec
    steps = {} if goal.was is BoxStatus.ACTIVE else STEPS
    for manifest in manifests.surroundings(spec, fence=run.fence.number):
        saying = steps.get(manifest["kind"], "")
        if manifest["kind"] == "Namespace":
            await fencing.write_namespace(run, manifest, saying)
        elif manifest["kind"] == CLAIM:
            await _write_claim(run, spec, saying)
        else:
            await run.check(saying)
            await run.cluster.apply(manifest)


async def write_secret(run: Run, goal: Goal) -> Goal:
    """Render a new Secret with a new proxy token, which ends at once if it never arrives there."""
    async with session_scope() as session:
        await run.check_in(session, "Writing its configuration and its secrets.")
        credentials = await rendering.issue_credentials(session, goal.box)
    token_id = credentials.proxy_token_id
    manifest = manifests.secret(goal.rendered.spec, credentials, fence=run.fence.number)
    try:
        await fencing.apply_over(run, manifest, goal.stand.secret)
    except OpenClawError as error:  # one that is cancelled is unsure as well
        if not (isinstance(error, VendorError) and error.code in UNSURE):
            async with session_scope() as session:
                await metering.revoke_token(session, UUID(token_id))
        raise
    return replace(goal, token_id=token_id)


async def write_files(run: Run, goal: Goal) -> None:
    """Put new settings into the Secret that the pod has mounted; its credentials stay."""
    if goal.has_files or goal.stand.secret is None:
        return
    await run.check()
    change = manifests.live_files(
        goal.rendered.spec,
        fence=run.fence.number,
        resource_version=goal.stand.secret.resource_version,
    )
    await run.cluster.merge("Secret", goal.namespace, manifests.NAME, change)


async def wake_kubelet(run: Run, goal: Goal) -> None:
    """Note the files' mark on the pod: its kubelet then looks at once, not after 90 seconds."""
    for pod in await living(run, goal.namespace):
        is_told = pod.annotations.get(manifests.LIVE_HASH) == goal.live_hash
        if not pod.is_terminating and not is_told:
            await run.check()
            await run.cluster.annotate_pod(
                pod.namespace, pod.name, {manifests.LIVE_HASH: goal.live_hash}
            )


async def write_deployment(run: Run, goal: Goal, saying: str = "") -> None:
    """Apply the Deployment over exactly the version that we have seen and judged older than us."""
    manifest = manifests.deployment(
        goal.rendered.spec, token_id=goal.token_id, fence=run.fence.number, started=goal.started
    )
    apply = partial(fencing.apply_over, run, manifest)
    await fencing.over_newest(
        run, "Deployment", goal.namespace, manifests.NAME, apply, saying=saying
    )


async def _write_claim(run: Run, spec: BoxSpec, saying: str) -> None:
    """Make the volume, or make it larger: it never shrinks, and its class stays what it is."""
    live = await run.cluster.find_claim(spec.namespace, manifests.NAME)
    await run.check(saying)
    if live is None:
        await run.cluster.apply(manifests.claim(spec))
    elif quantities.whole(live.requested) < quantities.whole(spec.storage):
        change = {"spec": {"resources": {"requests": {"storage": spec.storage}}}}
        try:
            await run.cluster.merge(CLAIM, spec.namespace, manifests.NAME, change)
        except VendorError as error:
            if error.code not in REFUSED:
                raise
            await _tell_of_volume(run, spec, error)


async def _tell_of_volume(run: Run, spec: BoxSpec, error: VendorError) -> None:
    """A volume that cannot grow keeps no assistant from answering; a person has to look at it."""
    async with session_scope() as session:
        await leases.add_progress(session, run.fence, "Its volume cannot be made larger here.")
        await jobs.raise_alert(
            session,
            code=ALERT_VOLUME,
            subject=spec.box_id,
            detail={"wanted": spec.storage, "error": str(error)},
        )
