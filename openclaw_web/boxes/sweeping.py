"""Each minute: is every box where it belongs, and is its namespace there? Asks for what lacks."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.boxes import deletions, health, incidents, manifests, queries, service
from openclaw_web.boxes.changes import BoxChange, Conclude, conclude_nothing
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.health import Sight
from openclaw_web.boxes.lifecycle import LIVE, RUNNING
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.queries import Standing
from openclaw_web.boxes.sentences import Reason
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import service as job_service
from openclaw_web.jobs.models import JobType

logger = logging.getLogger(__name__)

PAGE = 500
REPAIR_EVERY = timedelta(minutes=10)
STUCK_AFTER = timedelta(minutes=15)
SWEEPER = "reconciler"
LABELS = {manifests.MANAGED: "true", **manifests.GUARDS}
MOST_PUT_BACK = 100  # by one sweep; the next one finds the others


@dataclass(kw_only=True)
class Found:
    """What the database says of all boxes, boiled down to those that need something."""

    missing: list[str] = field(default_factory=list)
    falling: set[str] = field(default_factory=set)  # those of them not called unhealthy yet
    untold: list[UUID] = field(default_factory=list)
    lacking: list[UUID] = field(default_factory=list)
    repairs: list[UUID] = field(default_factory=list)  # those of them that only answer no more
    ending: dict[UUID, NamespaceView | None] = field(default_factory=dict)
    unguarded: list[NamespaceView] = field(default_factory=list)


async def sweep(
    cluster: Cluster, cluster_name: str, conclude: Conclude = conclude_nothing
) -> list[BoxChange]:
    """Compare every box with what it should be and with the cluster's namespaces.

    Safe to run twice, and beside the watch: it finds what the watch missed. In an incident nothing
    is built again and nothing repaired; what customers asked for goes on.
    """
    views = {view.name: view for view in await cluster.list_namespaces()}
    found = await _look(cluster_name, views)
    missing = await _surely_missing(cluster, found.missing) if found.missing else {}
    falling = {name: Reason.NO_POD for name in missing if name in found.falling}
    async with session_scope() as session:
        is_incident = await incidents.is_incident(session, cluster_name, more=len(falling))
        if is_incident:
            await health.mark_fallen(session, falling)
    for view in found.unguarded[:MOST_PUT_BACK]:
        await put_back(cluster, view)
    changes: list[BoxChange] = []
    if not is_incident:
        for namespace, sight in missing.items():
            changes += await observe(namespace, sight, conclude)
        for box_id in found.untold:
            changes += await _tell_loss(box_id, conclude)
    for box_id in found.lacking if is_incident else [*found.lacking, *found.repairs]:
        async with session_scope() as session:
            await _request_what_lacks(session, box_id)
    for box_id, view in found.ending.items():
        async with session_scope() as session:
            await _report_stuck(session, box_id, view)
    return changes


async def put_back(cluster: Cluster, view: NamespaceView) -> None:
    """Put back the labels of a namespace that somebody took off or changed, and write it down.

    By one of them we find our namespaces; by the others the cluster keeps pods in their bounds.
    """
    lost = {key: one for key, one in LABELS.items() if view.labels.get(key) != one}
    if not lost:
        return
    try:
        await cluster.merge("Namespace", "", view.name, {"metadata": {"labels": lost}})
    except VendorError as error:
        logger.warning("The namespace %s could not be labelled again: %s", view.name, error)
        return
    async with session_scope() as session:
        box = await queries.any_customers_box_of_namespace(session, view.name)
        if box is None:
            return
        await accounts.audit(
            session,
            action="box.labels_put_back",
            actor_type="system",
            actor_id=SWEEPER,
            user_id=box.customer_id,
            resource_type="box",
            resource_id=str(box.id),
            diff={"found": {key: view.labels.get(key) for key in lost}},
        )


async def find_hidden(cluster: Cluster, namespace: str) -> NamespaceView | None:
    """Look at one namespace directly, and put its labels back when it only lost these."""
    view = await cluster.find_namespace(namespace)
    if view is not None and view.state is NamespaceState.ACTIVE:
        await put_back(cluster, view)
    return view


async def _surely_missing(cluster: Cluster, names: list[str]) -> dict[str, Sight]:
    """Look once more, at all namespaces there are: one that only lost its label is not missing."""
    views = {view.name: view for view in await cluster.list_namespaces("")}
    missing: dict[str, Sight] = {}
    for name in names:
        view = views.get(name)
        if view is not None and view.state is NamespaceState.ACTIVE:
            await put_back(cluster, view)
        else:
            missing[name] = Sight.of(view, ())
    return missing


async def _tell_loss(box_id: UUID, conclude: Conclude) -> list[BoxChange]:
    async with session_scope() as session:
        box = await queries.get_any_box(session, box_id, lock=True)
        changes = await health.tell_untold_loss(session, box)
        for change in changes:
            await conclude(session, change)
    return changes


async def observe(
    namespace: str, sight: Sight, conclude: Conclude, *, is_strike: bool = False
) -> list[BoxChange]:
    """Take note of a sight, and draw the conclusions in the same transaction."""
    async with session_scope() as session:
        changes = await health.observe(session, namespace, sight, is_strike=is_strike)
        for change in changes:
            await conclude(session, change)
    return changes


async def _look(cluster_name: str, views: Mapping[str, NamespaceView]) -> Found:
    found = Found()
    after: UUID | None = None
    while True:
        async with session_scope() as session:
            page = await queries.any_customers_standings(
                session, cluster_name, after=after, limit=PAGE
            )
        if not page:
            return found
        after = page[-1].box.id
        for standing in page:
            _sort(standing, views, found)


def _sort(standing: Standing, views: Mapping[str, NamespaceView], found: Found) -> None:
    box = standing.box
    if _is_missing(box, views):
        found.missing.append(box.k8s_namespace)
        if box.status in RUNNING and box.status is not BoxStatus.UNHEALTHY:
            found.falling.add(box.k8s_namespace)
    if health.UNTOLD in box.health and box.status in LIVE:
        found.untold.append(box.id)
    if box.status is BoxStatus.DESTROYING:
        found.ending[box.id] = views.get(box.k8s_namespace)
    wanted = _wanted_job(box, standing.desired)
    if standing.has_job:
        return
    view = views.get(box.k8s_namespace)
    if view is not None and _is_unguarded(box, view):
        found.unguarded.append(view)
    if wanted is None:
        return
    (found.repairs if _is_repair(box, wanted) else found.lacking).append(box.id)


def _is_unguarded(box: Box, view: NamespaceView) -> bool:
    """Say whether a namespace that nobody works at lacks labels of ours."""
    is_made = box.status in RUNNING or box.status is BoxStatus.SUSPENDED
    is_whole = LABELS.items() <= view.labels.items()
    return is_made and view.state is NamespaceState.ACTIVE and not is_whole


def _is_missing(box: Box, views: Mapping[str, NamespaceView]) -> bool:
    view = views.get(box.k8s_namespace)
    is_kept = box.status in RUNNING or box.status is BoxStatus.SUSPENDED
    return is_kept and (view is None or view.state is not NamespaceState.ACTIVE)


async def _request_what_lacks(session: AsyncSession, box_id: UUID) -> None:
    box = await queries.get_any_box(session, box_id, lock=True)
    if await jobs.find_live_job_of_box(session, box.customer_id, box.id) is not None:
        return
    wanted = _wanted_job(box, (await queries.desired_of(session, box))[0])
    if wanted is None:
        return
    if wanted is JobType.DESTROY and not await deletions.may_begin(session, box, asker=SWEEPER):
        return
    since = await business_now(session) - REPAIR_EVERY
    if not await jobs.has_ended_since(session, box.customer_id, box.id, wanted, since):
        asker = health.REPAIRER if _is_repair(box, wanted) else SWEEPER
        await service.request_converge(session, box, job_type=wanted, requested_by=asker)


def _is_repair(box: Box, wanted: JobType) -> bool:
    return box.status is BoxStatus.UNHEALTHY and wanted is JobType.PROVISION


def _wanted_job(box: Box, desired: Desired) -> JobType | None:
    """Return which job a box lacks, or nothing when it is where it belongs."""
    if box.status is BoxStatus.DESTROYED:
        return None
    if desired is Desired.DESTROYED:
        return JobType.DESTROY
    if desired is Desired.SUSPENDED:
        return None if box.status is BoxStatus.SUSPENDED else JobType.SUSPEND
    if box.status is BoxStatus.SUSPENDED:
        return JobType.REACTIVATE
    # No job mends a bot token that was revoked: its customer does.
    waits = box.status is BoxStatus.UNHEALTHY and box.status_reason == health.TELEGRAM
    if waits or box.status is BoxStatus.ACTIVE:
        return None
    return JobType.UPDATE if box.status is BoxStatus.UPDATING else JobType.PROVISION


async def _report_stuck(session: AsyncSession, box_id: UUID, view: NamespaceView | None) -> None:
    """Say it, and what keeps it, when a namespace does not end; it is never forced.

    One that still waits for its last backup is not ending yet: that has an alert of its own.
    """
    box = await queries.get_any_box(session, box_id, lock=True)
    if box.status is not BoxStatus.DESTROYING:
        return
    since = view.ending_since if view is not None else None
    if view is None or since is None or real_now() - since < STUCK_AFTER:
        if box.status_reason == Reason.STUCK_TERMINATING:
            box.status_reason = None
            session.add(box)
            await job_service.resolve_alert(session, code=health.ALERT_STUCK, subject=str(box.id))
        return
    box.status_reason = Reason.STUCK_TERMINATING
    session.add(box)
    said = " ".join(view.remains) or "The cluster does not say why."
    held = f" Finalizers: {', '.join(view.finalizers)}." if view.finalizers else ""
    detail = {
        "sentence": f"{view.name} is ending since {since:%d %B, %H:%M} UTC. {said}{held}",
        "namespace": view.name,
        "remains": list(view.remains),
        "finalizers": list(view.finalizers),
    }
    await job_service.raise_alert(
        session, code=health.ALERT_STUCK, subject=str(box.id), detail=detail
    )
