"""What is seen of boxes in the cluster, and what follows: strikes, repairs, the truth about memory.

Every function may run twice on the same sight and changes nothing the second time.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import incidents, manifests, openclaw_config, queries, service
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.lifecycle import RUNNING, move
from openclaw_web.boxes.models import Box, BoxSecret, BoxStatus
from openclaw_web.boxes.queries import Watched
from openclaw_web.boxes.sentences import Reason
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit
from openclaw_web.integrations import agent, redis
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView, PodView
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import repairing
from openclaw_web.jobs import service as job_service
from openclaw_web.jobs.models import JobType
from openclaw_web.metering import service as metering

FAILURES_ALLOWED = 3  # the schema: unhealthy after three missed checks
STAMPED_EVERY = timedelta(seconds=30)  # not each look at each box is worth a write
REPAIRER = repairing.REQUESTER
POD = "pod"
NAMESPACE_UID = "namespace_uid"
LOST_UID = "lost_uid"
UNTOLD = "untold_loss"  # which kind of loss nobody was told of yet: it was seen in an incident
FAILING = "failing"
TELEGRAM = "telegram"
ALERT_LOST = "memory_lost"
ALERT_UNHEALTHY = "box_unhealthy"
ALERT_FAILED = "box_job_failed"
ALERT_STUCK = "namespace_stuck"
UNKNOWN_UID = "unknown"
KEPT_REASONS = frozenset({Reason.NAMESPACE_DELETED, Reason.PROVISION_FAILED})
MARK_FALLEN = sa.text(
    "UPDATE boxes SET status = 'unhealthy', status_changed_at = :now,"
    " status_reason = fallen.reason, health_failures = boxes.health_failures + 1"
    " FROM unnest(CAST(:names AS text[]), CAST(:reasons AS text[])) AS fallen(name, reason)"
    " WHERE boxes.k8s_namespace = fallen.name AND boxes.status IN ('active', 'updating')"
    " RETURNING boxes.customer_id"
)
NOTE_PODS = sa.text(
    "UPDATE boxes SET health = boxes.health || CAST(seen.facts AS jsonb)"
    " FROM unnest(CAST(:names AS text[]), CAST(:facts AS text[])) AS seen(name, facts)"
    " WHERE boxes.k8s_namespace = seen.name AND boxes.status NOT IN ('destroying', 'destroyed')"
    " RETURNING boxes.customer_id"
)


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
        is_there = self.state is NamespaceState.ACTIVE and self.pod is not None
        return is_there and self.pod.is_ready and not self.pod.is_terminating


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
    """Say plainly, once for each namespace, that a box lost its place, and its memory with it.

    With a backup the memory comes back, and it is not called lost. A box that never answered had
    none; one that is suspended is only told. In an incident nothing is repaired, and what was lost
    is told when it is over.
    """
    lost = str(box.health.get(NAMESPACE_UID) or uid or UNKNOWN_UID)
    can_lose = box.status in RUNNING or box.status is BoxStatus.SUSPENDED
    if not can_lose or not queries.has_memory(box) or box.health.get(LOST_UID) == lost:
        return []
    if uid and box.health.get(NAMESPACE_UID) not in {None, uid}:
        return []  # an older namespace's end, seen late
    now = await business_now(session)
    has_backup = await queries.has_usable_backup(session, box.id)
    kept = {key: value for key, value in box.health.items() if key not in {POD, FAILING}}
    told = {} if has_backup else {queries.MEMORY_LOST_AT: now.isoformat()}
    box.health = {**kept, **told, LOST_UID: lost}
    is_running = box.status in RUNNING
    if is_running:
        move(box, BoxStatus.UNHEALTHY, now=now, reason=Reason.NAMESPACE_DELETED)
    session.add(box)
    await session.flush()
    announce(session, box)
    kind = ChangeKind.PLACE_LOST if has_backup else ChangeKind.MEMORY_LOST
    if is_running and await incidents.is_incident(session, box.cluster):
        box.health = {**box.health, UNTOLD: kind.value}
        return []
    return await _tell_loss(session, box, kind)


async def tell_untold_loss(session: AsyncSession, box: Box) -> list[BoxChange]:
    """Tell of a loss that an incident kept quiet, once that is over; box locked."""
    kind = box.health.get(UNTOLD)
    if kind is None or await incidents.is_incident(session, box.cluster):
        return []
    box.health = {key: value for key, value in box.health.items() if key != UNTOLD}
    session.add(box)
    return await _tell_loss(session, box, ChangeKind(kind))


async def _tell_loss(session: AsyncSession, box: Box, kind: ChangeKind) -> list[BoxChange]:
    is_over = box.status is BoxStatus.ACTIVE  # it was set up again meanwhile: nothing to look at
    if kind is ChangeKind.MEMORY_LOST and not is_over:
        await job_service.raise_alert(
            session, code=ALERT_LOST, subject=str(box.id), detail={"namespace": box.k8s_namespace}
        )
    if not is_over:
        await _request_repair(session, box)
    return [change_of(box, kind, reason=Reason.NAMESPACE_DELETED)]


async def mark_fallen(session: AsyncSession, reasons: Mapping[str, str]) -> None:
    """Call boxes unhealthy that an incident brings down: no mail, no repair, one statement.

    In the transaction that found the incident, so that whoever counts next finds them counted.
    """
    if not reasons:
        return
    await session.flush()
    given = {"names": list(reasons), "reasons": list(reasons.values())}
    found = await (await session.connection()).execute(
        MARK_FALLEN, {**given, "now": await business_now(session)}
    )
    for customer_id in found.scalars().all():
        after_commit(session, partial(redis.announce_change, customer_id))


async def stamp_seen(session: AsyncSession, namespaces: Iterable[str]) -> int:
    """Write down in one statement which boxes were just seen ready, at most twice a minute.

    Ready is what the gateway's own `/readyz` says, so this is its agent's proof of life as well.
    """
    seen = list(namespaces)
    if not seen:
        return 0
    now = await business_now(session)
    stale = sa.or_(
        col(Box.last_seen).is_(None),
        col(Box.last_seen) <= now - STAMPED_EVERY,
        col(Box.health_failures) > 0,
    )
    result = await session.exec(
        sa.update(Box)
        .where(
            col(Box.k8s_namespace) == sa.func.any(sa.literal(seen, ARRAY(sa.Text))),
            col(Box.status) == BoxStatus.ACTIVE,
            stale,
        )
        .values(last_seen=now, agent_ok_at=now, health_failures=0)
        .execution_options(synchronize_session=False)
    )
    return result.rowcount


async def note_pods(
    session: AsyncSession, known: Iterable[Watched], sights: Mapping[str, Sight]
) -> int:
    """Write down with one statement how the pods of many boxes are; returns how many are new.

    Nothing is read first and written back, so that nothing of a box is overwritten.
    """
    news: dict[str, str] = {}
    for one in known:
        sight = sights[one.namespace]
        facts = _facts_of(one.health, sight)
        if sight.state is NamespaceState.ACTIVE and _has_news(one.health, facts):
            news[one.namespace] = json.dumps(facts)
    if not news:
        return 0
    await session.flush()
    found = await (await session.connection()).execute(
        NOTE_PODS, {"names": list(news), "facts": list(news.values())}
    )
    for customer_id in found.scalars().all():
        after_commit(session, partial(redis.announce_change, customer_id))
    return len(news)


async def count_strikes(session: AsyncSession, namespaces: Iterable[str]) -> None:
    """Count one more missed check for boxes whose status does not change by it."""
    await session.exec(
        sa.update(Box)
        .where(
            col(Box.k8s_namespace) == sa.func.any(sa.literal(list(namespaces), ARRAY(sa.Text))),
            col(Box.status).in_([BoxStatus.ACTIVE, BoxStatus.UNHEALTHY]),
        )
        .values(health_failures=col(Box.health_failures) + 1)
        .execution_options(synchronize_session=False)
    )


def changes_by_strike(known: Watched, sight: Sight) -> bool:
    """Say whether one more missed check changes a box's status, or the reason that it shows."""
    if known.status is BoxStatus.ACTIVE:
        return known.health_failures + 1 >= FAILURES_ALLOWED
    return known.reason not in KEPT_REASONS and known.reason != reason_of(sight)


def is_concerned(known: Watched, sight: Sight) -> bool:
    """Say whether a sight may change a box's status, beyond how its pod is."""
    if sight.state is not NamespaceState.ACTIVE:
        can_lose = known.status in RUNNING or known.status is BoxStatus.SUSPENDED
        return can_lose and known.was_active
    if not sight.is_ready:
        return False
    return known.status is BoxStatus.UNHEALTHY or (
        known.status is BoxStatus.ACTIVE and known.health_failures > 0
    )


async def settle_alerts(session: AsyncSession, box: Box) -> None:
    """Close what was open about a box that answers again."""
    await job_service.resolve_alerts(
        session, codes=(ALERT_LOST, ALERT_UNHEALTHY, ALERT_FAILED), subject=str(box.id)
    )


async def wipe(session: AsyncSession, box: Box, *, alerts: Iterable[str] = ()) -> None:
    """Forget the secrets of a destroyed box, and close its alerts, these among them."""
    await session.exec(sa.delete(BoxSecret).where(col(BoxSecret.box_id) == box.id))
    await metering.revoke_tokens_of_box(session, box.id)
    box.health = {}
    session.add(box)
    await job_service.resolve_alerts(
        session,
        codes=(ALERT_LOST, ALERT_UNHEALTHY, ALERT_FAILED, ALERT_STUCK, *alerts),
        subject=str(box.id),
    )


async def ask_gateway(pod: PodView | None) -> tuple[str, ...]:
    """Ask a pod that runs but is not ready what fails in it; nothing when it does not say."""
    if pod is None or pod.is_ready or pod.phase != "Running" or not pod.address:
        return ()
    port = pod.real_port(openclaw_config.PORT)
    if port is None:
        return ()
    box_id = pod.labels.get(manifests.BOX_LABEL, "")
    try:
        token = service.gateway_token(UUID(box_id))
    except ValueError:
        return ()
    return await agent.failing_parts(pod.address, port, token)


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


def _facts_of(known: dict[str, Any], sight: Sight) -> dict[str, Any]:
    # Only a check asks the pod itself; what it said stays until it is ready or asked again.
    told = known.get(FAILING, []) if not sight.is_ready else []
    failing = list(sight.failing) or told
    return {POD: pod_facts(sight.pod) if sight.pod else {}, FAILING: failing}


def _has_news(known: dict[str, Any], facts: dict[str, Any]) -> bool:
    return known.get(POD, {}) != facts[POD] or known.get(FAILING, []) != facts[FAILING]


def _note_pod(session: AsyncSession, box: Box, sight: Sight) -> None:
    facts = _facts_of(box.health, sight)
    if _has_news(box.health, facts):
        box.health = {**box.health, **facts}
        session.add(box)
        announce(session, box)


async def _note_ready(session: AsyncSession, box: Box, sight: Sight) -> list[BoxChange]:
    now = await business_now(session)
    box.last_seen = box.agent_ok_at = now
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
    reason = reason_of(sight)
    if box.status is BoxStatus.UNHEALTHY:
        if box.status_reason not in KEPT_REASONS:
            box.status_reason = reason
        return []
    if box.health_failures < FAILURES_ALLOWED:
        return []
    move(box, BoxStatus.UNHEALTHY, now=await business_now(session), reason=reason)
    await session.flush()
    announce(session, box)
    if await incidents.is_incident(session, box.cluster):
        return []
    await job_service.raise_alert(
        session, code=ALERT_UNHEALTHY, subject=str(box.id), detail={"reason": reason}
    )
    if reason != TELEGRAM:  # no new pod mends a bot token that was revoked
        await _request_repair(session, box)
    return [change_of(box, ChangeKind.UNHEALTHY, reason=reason)]


def reason_of(sight: Sight) -> str:
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
