"""Bringing a box up: its surroundings, its Secret, its one pod, and the moment it answers.

Each step may be done twice, and a crash between any two is mended by running it again.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import health, manifests, queries, rendering
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.desired import Desired, Why
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.manifests import Manifest
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.rendering import Rendered
from openclaw_web.boxes.runs import (
    POLL_SECONDS,
    NotReadyError,
    Run,
    StopRequestedError,
    living,
    wait_until_gone,
)
from openclaw_web.boxes.sentences import Reason, trouble
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.integrations.cluster_objects import DeploymentView, NamespaceState, PodView
from openclaw_web.jobs import leases
from openclaw_web.metering import service as metering

READY_SECONDS = (
    180.0  # OpenClaw needs up to 38 s on a busy machine, and its image has to come first
)
WRITE_TRIES = 5
UNSURE = frozenset({"timeout", "unreachable"})  # the write may have happened
QUOTA_MARK = "exceeded quota"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the pod shall be, and how the box was before."""

    box_id: UUID
    namespace: str
    rendered: Rendered
    token_id: str
    was: BoxStatus
    is_first: bool

    @property
    def config_hash(self) -> str:
        return manifests.config_hash(self.rendered.spec)


async def activate(run: Run, box: Box, _why: Why) -> list[BoxChange]:
    changes = await _make_room(run, box)
    deployment = await run.cluster.find_deployment(box.k8s_namespace, manifests.NAME)
    if deployment is not None:
        run.check_fence(deployment.annotations)
    goal, is_current = await _begin(run, box, deployment)
    await _surround(run, goal)
    goal = goal if is_current else await _write_secret(run, goal)
    await run.say("Starting the assistant." if goal.is_first else "Restarting the assistant.")
    await _write_deployment(run, goal)
    pod = await _wait_until_ready(run, goal)
    return [*changes, *await _arrive(run, goal, pod)]


async def _make_room(run: Run, box: Box) -> list[BoxChange]:
    """Wait until a namespace that is being deleted is gone; note it when memory went with it."""
    view = await run.cluster.find_namespace(box.k8s_namespace)
    if view is not None:
        run.check_fence(view.annotations)
    state = view.state if view else NamespaceState.ABSENT
    if state is NamespaceState.ACTIVE:
        return []
    async with session_scope() as session:
        locked = await queries.get_any_box(session, box.id, lock=True)
        changes = await health.note_loss(session, locked, uid=view.uid if view else "")
        await run.tell(session, changes)
    if state is NamespaceState.TERMINATING:
        await run.say("Waiting until the cluster has finished deleting the old namespace.")
        await wait_until_gone(run, box.k8s_namespace)
    return changes


async def _begin(run: Run, box: Box, deployment: DeploymentView | None) -> tuple[Goal, bool]:
    """Decide what the pod shall be, and show that we are at it.

    Returns whether the pod's Secret is current: then its token stays, and the pod is left alone.
    """
    stored = await run.cluster.find_annotations("Secret", box.k8s_namespace, manifests.NAME)
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        await _require_wanted(session, box)
        rendered = await rendering.render(session, box)
        live = {str(one) for one in await queries.live_token_ids(session, box.id)}
        shown = deployment.annotations if deployment else {}
        token_id = shown.get(manifests.TOKEN_ID, "")
        is_current = (
            shown.get(manifests.CONFIG_HASH) == manifests.config_hash(rendered.spec)
            and token_id in live
            and (stored or {}).get(manifests.TOKEN_ID) == token_id
        )
        goal = Goal(
            box_id=box.id,
            namespace=box.k8s_namespace,
            rendered=rendered,
            token_id=token_id,
            was=box.status,
            is_first=box.activated_at is None,
        )
        await _show_start(session, box, is_current=is_current)
    return goal, is_current


async def _require_wanted(session: AsyncSession, box: Box) -> None:
    """Make sure, under the box's lock, that it shall still run: its money may be on its way back.

    Raises:
        StopRequestedError: it shall not, and another job says what shall be.
    """
    if (await queries.desired_of(session, box))[0] is not Desired.ACTIVE:
        raise StopRequestedError("This assistant is not to run any more.")


async def _show_start(session: AsyncSession, box: Box, *, is_current: bool) -> None:
    now = await business_now(session)
    if box.status is BoxStatus.PENDING:
        move(box, BoxStatus.PROVISIONING, now=now)
    elif box.status is BoxStatus.SUSPENDED or (box.status is BoxStatus.ACTIVE and not is_current):
        move(box, BoxStatus.UPDATING, now=now)
    session.add(box)
    health.announce(session, box)


async def _surround(run: Run, goal: Goal) -> None:
    sentences = {
        "Namespace": "Making a place of its own in the cluster.",
        "NetworkPolicy": "Closing its network, but for names, its model and the public web.",
        "PersistentVolumeClaim": "Giving it a volume for its memory.",
    }
    for manifest in manifests.surroundings(goal.rendered.spec, fence=run.fence.number):
        if goal.was is not BoxStatus.ACTIVE and manifest["kind"] in sentences:
            await run.say(sentences[manifest["kind"]])
        await run.check()
        await run.cluster.apply(manifest)


async def _write_secret(run: Run, goal: Goal) -> Goal:
    """Render a new Secret with a new proxy token, which ends at once if it never arrives there."""
    await run.say("Writing its configuration and its secrets.")
    async with session_scope() as session:
        await leases.hold(session, run.fence)
        box = await queries.get_any_box(session, goal.box_id)
        credentials = await rendering.issue_credentials(session, box)
    token_id = credentials.proxy_token_id
    try:
        await run.check()
        await run.cluster.apply(manifests.secret(goal.rendered.spec, credentials))
    except (OpenClawError, asyncio.CancelledError) as error:
        if not (isinstance(error, VendorError) and error.code in UNSURE):
            async with session_scope() as session:
                await metering.revoke_token(session, UUID(token_id))
        raise
    return replace(goal, token_id=token_id)


async def _write_deployment(run: Run, goal: Goal) -> None:
    """Apply the Deployment over exactly the version that we have seen and judged older than us."""
    manifest = manifests.deployment(
        goal.rendered.spec, token_id=goal.token_id, fence=run.fence.number
    )
    for tries_left in reversed(range(WRITE_TRIES)):
        known = await run.cluster.find_deployment(goal.namespace, manifests.NAME)
        if known is not None:
            run.check_fence(known.annotations)
        await run.check()
        try:
            await run.cluster.apply(_over(manifest, known))
        except VendorError as error:
            if error.code != "conflict" or not tries_left:
                raise
        else:
            return


def _over(manifest: Manifest, known: DeploymentView | None) -> Manifest:
    if known is None:
        return manifest
    meta = {**manifest["metadata"], "resourceVersion": known.resource_version}
    return {**manifest, "metadata": meta}


async def _wait_until_ready(run: Run, goal: Goal) -> PodView:
    """Wait for the one pod with these settings and this token; no other may be left."""
    await run.say("Waiting for the assistant to be ready.")
    deadline = time.monotonic() + READY_SECONDS
    told = ""
    pods: list[PodView] = []
    while time.monotonic() < deadline:
        pods = await living(run, goal.namespace)
        if len(pods) == 1 and _is_wanted(pods[0], goal):
            return pods[0]
        told = await _tell_trouble(run, pods, told)
        if await run.check_now_and_then():
            await _require_namespace(run, goal.namespace)
        await asyncio.sleep(POLL_SECONDS)
    raise NotReadyError(await _cause(run, goal.namespace, pods))


def _is_wanted(pod: PodView, goal: Goal) -> bool:
    return (
        pod.is_ready
        and not pod.is_terminating
        and pod.annotations.get(manifests.CONFIG_HASH) == goal.config_hash
        and pod.annotations.get(manifests.TOKEN_ID) == goal.token_id
    )


async def _tell_trouble(run: Run, pods: list[PodView], told: str) -> str:
    reason = next((pod.reason for pod in pods if pod.reason and not pod.is_terminating), "")
    if reason and reason != told:
        await run.say(f"It has trouble: {trouble(reason)}. Still waiting.")
    return reason or told


async def _require_namespace(run: Run, namespace: str) -> None:
    if await run.cluster.namespace_state(namespace) is not NamespaceState.ACTIVE:
        raise VendorError(
            "Its namespace was deleted while it was set up.",
            can_retry=True,
            code="namespace_terminating",
        )


async def _cause(run: Run, namespace: str, pods: list[PodView]) -> str:
    reason = next((pod.reason for pod in pods if pod.reason), "")
    if reason:
        return reason
    if pods:
        failing = await health.ask_gateway(pods[0])
        return health.TELEGRAM if health.TELEGRAM in failing else Reason.NOT_READY
    warnings = await run.cluster.warnings(namespace)
    return "quota" if any(QUOTA_MARK in one for one in warnings) else Reason.NOT_READY


async def _arrive(run: Run, goal: Goal, pod: PodView) -> list[BoxChange]:
    """Write down that it answers; one transaction, valid only while the job is ours."""
    view = await run.cluster.find_namespace(goal.namespace)
    async with session_scope() as session:
        box = await queries.get_any_box(session, goal.box_id, lock=True)
        await _require_wanted(session, box)
        await leases.add_progress(session, run.fence, "The assistant is ready.")
        now = await business_now(session)
        is_rolled_back = goal.rendered.generation < box.generation
        reason = Reason.UPDATE_ROLLED_BACK if is_rolled_back else None
        move(box, BoxStatus.ACTIVE, now=now, reason=reason)
        box.activated_at = box.activated_at or now
        box.last_seen = now
        box.health_failures = 0
        box.applied_generation = box.observed_generation = goal.rendered.generation
        box.health = {
            **box.health,
            health.POD: health.pod_facts(pod),
            health.NAMESPACE_UID: view.uid if view else "",
        }
        session.add(box)
        revision = await session.get(BoxRevision, (box.id, goal.rendered.generation))
        if revision is not None:
            revision.outcome = RevisionOutcome.APPLIED.value
            revision.applied_at = revision.applied_at or now
            session.add(revision)
        await rendering.keep_only_token(session, box.id, goal.token_id)
        await health.settle_alerts(session, box)
        changes = [change_of(box, _kind_of_arrival(goal))]
        await run.tell(session, changes)
    return changes


def _kind_of_arrival(goal: Goal) -> ChangeKind:
    if goal.is_first:
        return ChangeKind.LIVE
    return {
        BoxStatus.SUSPENDED: ChangeKind.REACTIVATED,
        BoxStatus.UNHEALTHY: ChangeKind.RECOVERED,
    }.get(goal.was, ChangeKind.UPDATED)
