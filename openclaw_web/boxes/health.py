"""What is seen of boxes in the cluster, and what follows: strikes, repairs, the truth about memory.

Every function may run twice on the same sight and changes nothing the second time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import manifests, openclaw_config, queries, service
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.lifecycle import RUNNING, move
from openclaw_web.boxes.models import Box, BoxSecret, BoxStatus
from openclaw_web.boxes.sentences import Reason
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit
from openclaw_web.integrations import agent, redis
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView, PodView
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import service as job_service
from openclaw_web.jobs.models import JobType
from openclaw_web.metering import service as metering

FAILURES_ALLOWED = 3  # the schema: unhealthy after three missed checks
INCIDENT_WINDOW = timedelta(minutes=5)
INCIDENT_SHARE = 0.1
INCIDENT_MINIMUM = 5  # of two boxes, one is no share to speak of
REPAIRER = "health"
POD = "pod"
NAMESPACE_UID = "namespace_uid"
LOST_UID = "lost_uid"
FAILING = "failing"
TELEGRAM = "telegram"
ALERT_LOST = "memory_lost"
ALERT_UNHEALTHY = "box_unhealthy"
ALERT_FAILED = "box_job_failed"
ALERT_STUCK = "namespace_stuck"
ALERT_INCIDENT = "many_boxes_unhealthy"
UNKNOWN_UID = "unknown"


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the cluster shows of one box at one moment."""

    state: NamespaceState
    uid: str = ""
    pod: PodView | None = None
    failing: tuple[str, ...] = ()

    @classmethod
    def of(cls, view: NamespaceView | None, pods: Iterable[PodView]) -> "Sight":
        """Choose the pod that tells most: a ready one before one that starts, a dying one last."""
        order = sorted(pods, key=lambda pod: (pod.is_terminating, not pod.is_ready, pod.name))
        return cls(
            state=view.state if view else NamespaceState.ABSENT,
            uid=view.uid if view else "",
            pod=order[0] if order else None,
        )

    @property
    def is_ready(self) -> bool:
        return self.pod is not None and self.pod.is_ready and not self.pod.is_terminating


async def observe(
    session: AsyncSession, namespace: str, sight: Sight, *, is_strike: bool = False
) -> list[BoxChange]:
    """Take note of what is seen of a box; `is_strike` counts a missed check.

    A vanished namespace is no missed check: it is acted upon at once.
    """
    box = await queries.any_customers_box_of_namespace(session, namespace, lock=True)
    if box is None or box.status in {BoxStatus.DESTROYING, BoxStatus.DESTROYED}:
        return []
    if sight.state is not NamespaceState.ACTIVE:
        return await note_loss(session, box, uid=sight.uid)
    _note_pod(session, box, sight)
    if box.status not in {BoxStatus.ACTIVE, BoxStatus.UNHEALTHY}:
        return []
    if sight.is_ready:
        return await _note_ready(session, box, sight)
    return await _note_missed(session, box, sight) if is_strike else []


async def note_loss(session: AsyncSession, box: Box, *, uid: str) -> list[BoxChange]:
    """Say plainly, once for each namespace, that a box lost its place and its memory with it.

    A box that never answered had no memory; one that is suspended is only told.
    """
    lost = str(box.health.get(NAMESPACE_UID) or uid or UNKNOWN_UID)
    can_lose = box.status in RUNNING or box.status is BoxStatus.SUSPENDED
    if not can_lose or box.activated_at is None or box.health.get(LOST_UID) == lost:
        return []
    if uid and box.health.get(NAMESPACE_UID) not in {None, uid}:
        return []  # an older namespace's end, seen late
    now = await business_now(session)
    box.health = {
        **{key: value for key, value in box.health.items() if key not in {POD, FAILING}},
        queries.MEMORY_LOST_AT: now.isoformat(),
        LOST_UID: lost,
    }
    if box.status in RUNNING:
        move(box, BoxStatus.UNHEALTHY, now=now, reason=Reason.NAMESPACE_DELETED)
    session.add(box)
    await session.flush()
    await job_service.raise_alert(
        session, code=ALERT_LOST, subject=str(box.id), detail={"namespace": box.k8s_namespace}
    )
    await _request_repair(session, box)
    announce(session, box)
    return [change_of(box, ChangeKind.MEMORY_LOST, reason=Reason.NAMESPACE_DELETED)]


async def stamp_seen(session: AsyncSession, namespaces: Iterable[str]) -> int:
    """Write down in one statement which boxes were just seen ready."""
    seen = list(namespaces)
    if not seen:
        return 0
    result = await session.exec(
        sa.update(Box)
        .where(col(Box.k8s_namespace).in_(seen), col(Box.status) == BoxStatus.ACTIVE)
        .values(last_seen=await business_now(session), health_failures=0)
        .execution_options(synchronize_session=False)
    )
    return result.rowcount


async def is_incident(session: AsyncSession, cluster: str, *, more: int = 0) -> bool:
    """Say whether so many boxes fail at once that the cause is not theirs; one alert, no repairs.

    `more` are boxes that would be declared unhealthy now.
    """
    lately, running = await queries.any_customers_turned_unhealthy(
        session, cluster, within=INCIDENT_WINDOW
    )
    failing = lately + more
    if failing < INCIDENT_MINIMUM or failing <= running * INCIDENT_SHARE:
        await job_service.resolve_alert(session, code=ALERT_INCIDENT, subject=cluster)
        return False
    detail = {"failing": failing, "running": running}
    await job_service.raise_alert(session, code=ALERT_INCIDENT, subject=cluster, detail=detail)
    return True


async def settle_alerts(session: AsyncSession, box: Box) -> None:
    """Close what was open about a box that answers again."""
    for code in (ALERT_LOST, ALERT_UNHEALTHY, ALERT_FAILED):
        await job_service.resolve_alert(session, code=code, subject=str(box.id))


async def wipe(session: AsyncSession, box: Box) -> None:
    """Forget the secrets of a destroyed box, and close its alerts."""
    await session.exec(sa.delete(BoxSecret).where(col(BoxSecret.box_id) == box.id))
    await metering.revoke_tokens_of_box(session, box.id)
    box.health = {}
    session.add(box)
    for code in (ALERT_LOST, ALERT_UNHEALTHY, ALERT_FAILED, ALERT_STUCK):
        await job_service.resolve_alert(session, code=code, subject=str(box.id))


async def ask_gateway(pod: PodView | None) -> tuple[str, ...]:
    """Ask a pod that runs but is not ready what fails in it; nothing when it does not say."""
    if pod is None or pod.is_ready or pod.phase != "Running" or not pod.address:
        return ()
    box_id = pod.labels.get(manifests.BOX_LABEL, "")
    try:
        token = service.gateway_token(UUID(box_id))
    except ValueError:
        return ()
    return await agent.failing_parts(pod.address, openclaw_config.PORT, token)


def pod_facts(pod: PodView) -> dict[str, Any]:
    """Return what is kept of a pod: enough for the sentences, nothing that changes all the time."""
    return {
        "name": pod.name,
        "phase": pod.phase,
        "is_ready": pod.is_ready and not pod.is_terminating,
        "restarts": pod.restarts,
        "reason": pod.reason,
        "address": pod.address,
    }


def announce(session: AsyncSession, box: Box) -> None:
    after_commit(session, partial(redis.announce_change, box.customer_id))


def _note_pod(session: AsyncSession, box: Box, sight: Sight) -> None:
    facts = pod_facts(sight.pod) if sight.pod else {}
    # Only a check asks the pod itself; what it said stays until it is ready or asked again.
    told = box.health.get(FAILING, []) if not sight.is_ready else []
    failing = list(sight.failing) or told
    if box.health.get(POD, {}) != facts or box.health.get(FAILING, []) != failing:
        box.health = {**box.health, POD: facts, FAILING: failing}
        session.add(box)
        announce(session, box)


async def _note_ready(session: AsyncSession, box: Box, sight: Sight) -> list[BoxChange]:
    now = await business_now(session)
    box.last_seen = now
    box.health_failures = 0
    session.add(box)
    # The first readiness of all is for the job to state: it knows settings, token and time.
    if box.status is BoxStatus.ACTIVE or box.activated_at is None:
        return []
    if box.health.get(LOST_UID) == (sight.uid or UNKNOWN_UID):
        return []
    if await jobs.find_live_job_of_box(session, box.customer_id, box.id) is not None:
        return []  # it is being repaired; the job says when it is done
    move(box, BoxStatus.ACTIVE, now=now)
    await settle_alerts(session, box)
    announce(session, box)
    return [change_of(box, ChangeKind.RECOVERED)]


async def _note_missed(session: AsyncSession, box: Box, sight: Sight) -> list[BoxChange]:
    box.health_failures += 1
    session.add(box)
    reason = _reason_of(sight)
    if box.status is BoxStatus.UNHEALTHY:
        if box.status_reason not in {Reason.NAMESPACE_DELETED, Reason.PROVISION_FAILED}:
            box.status_reason = reason
        return []
    if box.health_failures < FAILURES_ALLOWED:
        return []
    move(box, BoxStatus.UNHEALTHY, now=await business_now(session), reason=reason)
    await session.flush()
    announce(session, box)
    if await is_incident(session, box.cluster):
        return []
    await job_service.raise_alert(
        session, code=ALERT_UNHEALTHY, subject=str(box.id), detail={"reason": reason}
    )
    if reason != TELEGRAM:  # no new pod mends a bot token that was revoked
        await _request_repair(session, box)
    return [change_of(box, ChangeKind.UNHEALTHY, reason=reason)]


def _reason_of(sight: Sight) -> str:
    if sight.pod is None:
        return Reason.NO_POD
    if TELEGRAM in sight.failing:
        return TELEGRAM
    return sight.pod.reason or Reason.NOT_READY


async def _request_repair(session: AsyncSession, box: Box) -> None:
    desired, _ = await queries.desired_of(session, box)
    if desired is Desired.ACTIVE:
        await service.request_converge(
            session, box, job_type=JobType.PROVISION, requested_by=REPAIRER
        )
