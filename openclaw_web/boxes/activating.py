"""Bringing a box up: its surroundings, its Secret, its one pod, and the moment it answers.

A pod that runs takes new settings in as it is where OpenClaw can do that; else it is made anew.
"""

import asyncio
import time

from openclaw_web.boxes import (
    goals,
    health,
    manifests,
    proving,
    queries,
    rendering,
    revisions,
    upgrading,
    writing,
)
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.desired import Why
from openclaw_web.boxes.goals import TRYING, Goal
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.memory import restoring
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.runs import POLL_SECONDS, NotReadyError, Run, living, wait_until_gone
from openclaw_web.boxes.sentences import PULL_TROUBLES, Reason, trouble
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster_objects import NamespaceState, PodView
from openclaw_web.jobs import leases

# Giving up before the kubelet does would take back settings that were merely slow to start; the
# minute more is for the image to come and the volume to move.
READY_SECONDS = manifests.STARTUP_SECONDS + 60.0
QUOTA_MARK = "exceeded quota"
# What a new pod may show: these speak against its settings at once, ...
PROOFS = {"CrashLoopBackOff", "CreateContainerConfigError", "Error", "OOMKilled", *PULL_TROUBLES}
# ... and these never do: older settings need as much room, and Telegram.
ELSEWHERE = {"quota", "Unschedulable", "FailedScheduling", "Evicted", health.TELEGRAM}


async def activate(run: Run, box: Box, _why: Why) -> list[BoxChange]:
    changes = await _make_room(run, box)
    await restoring.make_ready(run, box)
    goal = await goals.decide(run, box, await goals.look(run, box))
    await writing.write_surroundings(run, goal)
    await restoring.before_start(run, box)
    if goal.is_live:
        return [*changes, *await _refresh(run, goal)]
    goal = goal if goal.is_current else await writing.write_secret(run, goal)
    await writing.write_deployment(run, goal, _beginning(goal))
    pod = await _wait_until_ready(run, goal)
    return [*changes, *await _arrive(run, goal, pod)]


def _beginning(goal: Goal) -> str:
    if goal.is_first:
        return "Starting the assistant."
    stays = goal.is_current and goal.was in {BoxStatus.ACTIVE, BoxStatus.UNHEALTHY}
    return "Checking that all is in place." if stays else "Restarting the assistant."


async def _refresh(run: Run, goal: Goal) -> list[BoxChange]:
    """Change the files of the pod that runs; its next model call shows whether it took them in."""
    await run.say("Giving it its new settings; it goes on answering meanwhile.")
    await writing.write_files(run, goal)
    await writing.write_deployment(run, goal)
    await writing.wake_kubelet(run, goal)
    async with session_scope() as session:
        box = await queries.get_any_box(session, goal.box.id, lock=True)
        await goals.require_wanted(session, box)
        await leases.add_progress(session, run.fence, "Written: it takes them in by itself.")
        now = await business_now(session)
        if box.status_reason == Reason.UPDATE_ROLLED_BACK and not await revisions.is_rolled_back(
            session, box.id
        ):
            box.status_reason = None
        if not goal.rendered.is_proven and box.observed_generation < goal.generation:
            proving.note_written(box, goal.generation, now=now)
        box.health = {key: value for key, value in box.health.items() if key != TRYING}
        session.add(box)
        health.announce(session, box)
        changes = [change_of(box, ChangeKind.UPDATED)]
        await run.tell(session, changes)
    return changes


async def _make_room(run: Run, box: Box) -> list[BoxChange]:
    """Wait until a namespace that is being deleted is gone; note it when memory went with it."""
    view = await run.cluster.find_namespace(box.k8s_namespace)
    if view is None and queries.has_memory(box):
        # One "not found" is no proof: its customer would be told that the memory is lost.
        view = await run.cluster.find_namespace(box.k8s_namespace)
    if view is not None:
        run.check_fence(view.annotations)
    state = view.state if view else NamespaceState.ABSENT
    if state is NamespaceState.ACTIVE:
        return []
    changes = await _note_loss(run, box, view.uid if view else "")
    if state is NamespaceState.TERMINATING:
        await run.say("Waiting until the cluster has finished deleting the old namespace.")
        await wait_until_gone(run, box.k8s_namespace)
    return changes


async def _note_loss(run: Run, box: Box, uid: str) -> list[BoxChange]:
    if not queries.has_memory(box):
        return []  # there is nothing to lose
    async with session_scope() as session:
        locked = await queries.get_any_box(session, box.id, lock=True)
        changes = await health.note_loss(session, locked, uid=uid)
        await run.tell(session, changes)
    return changes


async def _wait_until_ready(run: Run, goal: Goal) -> PodView:
    """Wait for the one pod with these settings and this token; no other may be left.

    Its time begins when there is such a pod: an old one may take long to end.
    """
    await run.say("Waiting for the assistant to be ready.")
    deadline = time.monotonic() + READY_SECONDS
    told, has_begun = "", False
    pods: list[PodView] = []
    while time.monotonic() < deadline:
        pods = await living(run, goal.namespace)
        if len(pods) == 1 and pods[0].is_ready and _is_made_for(pods[0], goal):
            return pods[0]
        if not has_begun and any(_is_made_for(pod, goal) for pod in pods):
            deadline, has_begun = time.monotonic() + READY_SECONDS, True
        told = await _tell_trouble(run, pods, told)
        if await run.check_now_and_then():
            await _require_namespace(run, goal.namespace)
        await asyncio.sleep(POLL_SECONDS)
    ours = [pod for pod in pods if _is_made_for(pod, goal)]
    cause = await _cause(run, goal.namespace, ours or pods)
    raise NotReadyError(cause, blamed_from=_blamed_from(cause) if ours else None)


def _blamed_from(cause: str) -> int | None:
    """Return from which attempt on this speaks against the settings; `None`: it never does."""
    if cause in ELSEWHERE:
        return None
    return 1 if cause in PROOFS else 2


def _is_made_for(pod: PodView, goal: Goal) -> bool:
    return (
        not pod.is_terminating
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
        box = await queries.get_any_box(session, goal.box.id, lock=True)
        await goals.require_wanted(session, box)
        await leases.add_progress(session, run.fence, "The assistant is ready.")
        now = await business_now(session)
        is_rolled_back = await revisions.is_rolled_back(session, box.id)
        reason = Reason.UPDATE_ROLLED_BACK if is_rolled_back else None
        move(box, BoxStatus.ACTIVE, now=now, reason=reason)
        box.activated_at = box.activated_at or now
        box.last_seen = now
        box.health_failures = 0
        box.health = {
            **{key: value for key, value in box.health.items() if key != TRYING},
            health.POD: health.pod_facts(pod),
            health.NAMESPACE_UID: view.uid if view else "",
        }
        session.add(box)
        if goal.started == goal.generation:
            box.applied_generation = box.observed_generation = goal.generation
            proving.forget_written(box)
            await revisions.note_applied(session, box.id, goal.generation, now=now)
            await upgrading.note_running(session, box, goal.rendered.spec.image)
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
