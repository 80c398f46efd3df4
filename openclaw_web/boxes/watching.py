"""What keeps boxes and cluster together: a watch for what happens, a sweep for what was missed."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import health, manifests, queries, service
from openclaw_web.boxes.changes import BoxChange, Conclude, conclude_nothing
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.health import Sight
from openclaw_web.boxes.lifecycle import RUNNING
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.queries import Standing
from openclaw_web.boxes.sentences import Reason
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import (
    ClusterEvent,
    NamespaceChanged,
    NamespacesListed,
    NamespaceState,
    NamespaceView,
    PodChanged,
    PodsListed,
    PodView,
)
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import service as job_service
from openclaw_web.jobs.models import JobType

logger = logging.getLogger(__name__)

PAGE = 500
REPAIR_EVERY = timedelta(minutes=10)
STUCK_AFTER = timedelta(minutes=15)
SWEEPER = "reconciler"
ALERT_ORPHAN = "orphan_namespace"
MOST_ORPHANS = 5


class Watcher:
    """What the watch has seen so far, and what follows from the next event."""

    def __init__(self, cluster_name: str, conclude: Conclude = conclude_nothing) -> None:
        self._cluster_name = cluster_name
        self._conclude = conclude
        self._namespaces: dict[str, NamespaceView] = {}
        self._pods: dict[str, dict[str, PodView]] = {}
        self._is_complete = {"namespaces": False, "pods": False}

    async def take(self, event: ClusterEvent) -> list[BoxChange]:
        """Remember an event and act on the boxes that it concerns."""
        touched = self._remember(event)
        if not all(self._is_complete.values()):
            return []
        if isinstance(event, NamespacesListed | PodsListed):
            return await self._look_at_all()
        return await self._look_at(touched)

    async def evaluate(self) -> list[BoxChange]:
        """Count a missed check for each box that is not ready, and stamp those that are."""
        if not all(self._is_complete.values()):
            return []
        ready = {name for name in self._namespaces if self._sight(name).is_ready}
        async with session_scope() as session:
            await health.stamp_seen(session, ready)
            active = set(
                await queries.any_customers_namespaces(
                    session, self._cluster_name, BoxStatus.ACTIVE
                )
            )
            ailing = set(
                await queries.any_customers_namespaces(
                    session, self._cluster_name, BoxStatus.UNHEALTHY
                )
            )
        changes: list[BoxChange] = []
        for namespace in sorted((active | ailing) - ready):
            sight = self._sight(namespace)
            if sight.state is NamespaceState.ACTIVE:
                asked = replace(sight, failing=await health.ask_gateway(sight.pod))
                changes += await _observe(namespace, asked, self._conclude, is_strike=True)
        return changes + await self._look_at(sorted(ailing & ready))

    def _remember(self, event: ClusterEvent) -> set[str]:
        match event:
            case NamespacesListed(views=views):
                self._namespaces = {view.name: view for view in views}
                self._is_complete["namespaces"] = True
            case PodsListed(views=views):
                self._pods = {}
                for view in views:
                    self._pods.setdefault(view.namespace, {})[view.name] = view
                self._is_complete["pods"] = True
            case NamespaceChanged(view=view):
                self._remember_namespace(view)
                return {view.name}
            case PodChanged(view=view, is_gone=is_gone):
                pods = self._pods.setdefault(view.namespace, {})
                pods.pop(view.name, None)
                if not is_gone:
                    pods[view.name] = view
                return {view.namespace}
        return set()

    def _remember_namespace(self, view: NamespaceView) -> None:
        if view.state is NamespaceState.ABSENT:
            self._pods.pop(view.name, None)
        self._namespaces[view.name] = view

    def _sight(self, namespace: str) -> Sight:
        pods = self._pods.get(namespace, {}).values()
        return Sight.of(self._namespaces.get(namespace), pods)

    async def _look_at_all(self) -> list[BoxChange]:
        """After a complete list: what is not in it does not exist, unless too much is missing."""
        async with session_scope() as session:
            known = set(
                await queries.any_customers_namespaces(
                    session, self._cluster_name, *queries.WATCHED
                )
            )
            missing = {one for one in known if self._sight(one).state is not NamespaceState.ACTIVE}
            if await health.is_incident(session, self._cluster_name, more=len(missing)):
                known -= missing
        return await self._look_at(known)

    async def _look_at(self, namespaces: Iterable[str]) -> list[BoxChange]:
        changes: list[BoxChange] = []
        for namespace in namespaces:
            changes += await _observe(namespace, self._sight(namespace), self._conclude)
        return changes


async def sweep(
    cluster: Cluster, cluster_name: str, conclude: Conclude = conclude_nothing
) -> list[BoxChange]:
    """Compare every box with what it should be and with what the cluster has; ask for what lacks.

    Safe to run twice, and beside the watch: it finds what the watch missed.
    """
    namespaces = {view.name: view for view in await cluster.list_namespaces()}
    changes: list[BoxChange] = []
    known: set[str] = set()
    after: UUID | None = None
    while True:
        async with session_scope() as session:
            page = await queries.any_customers_standings(
                session, cluster_name, after=after, limit=PAGE
            )
        if not page:
            break
        after = page[-1].box.id
        known |= {standing.box.k8s_namespace for standing in page}
        changes += await _sweep_page(cluster_name, page, namespaces, conclude)
    await _report_orphans(cluster_name, set(namespaces) - known, namespaces)
    return changes


async def _sweep_page(
    cluster_name: str,
    page: Iterable[Standing],
    namespaces: dict[str, NamespaceView],
    conclude: Conclude,
) -> list[BoxChange]:
    standings = list(page)
    missing = [one.box.k8s_namespace for one in standings if _is_missing(one.box, namespaces)]
    async with session_scope() as session:
        if missing and await health.is_incident(session, cluster_name, more=len(missing)):
            missing = []
    changes: list[BoxChange] = []
    for namespace in missing:
        changes += await _observe(namespace, Sight.of(namespaces.get(namespace), ()), conclude)
    for standing in standings:
        if not standing.has_job and _wanted_job(standing.box, standing.desired) is not None:
            async with session_scope() as session:
                await _request_what_lacks(session, standing.box.id)
        if standing.box.status is BoxStatus.DESTROYING:
            async with session_scope() as session:
                await _report_stuck(session, standing.box.id)
    return changes


def _is_missing(box: Box, namespaces: dict[str, NamespaceView]) -> bool:
    view = namespaces.get(box.k8s_namespace)
    is_kept = box.status in RUNNING or box.status is BoxStatus.SUSPENDED
    return is_kept and (view is None or view.state is not NamespaceState.ACTIVE)


async def _request_what_lacks(session: AsyncSession, box_id: UUID) -> None:
    box = await queries.get_any_box(session, box_id, lock=True)
    if await jobs.find_live_job_of_box(session, box.customer_id, box.id) is not None:
        return
    wanted = _wanted_job(box, (await queries.desired_of(session, box))[0])
    if wanted is None:
        return
    since = await business_now(session) - REPAIR_EVERY
    if not await jobs.has_ended_since(session, box.customer_id, box.id, wanted, since):
        await service.request_converge(session, box, job_type=wanted, requested_by=SWEEPER)


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
    if box.status is BoxStatus.ACTIVE:
        return None
    return JobType.UPDATE if box.status is BoxStatus.UPDATING else JobType.PROVISION


async def _report_stuck(session: AsyncSession, box_id: UUID) -> None:
    """Say it when a namespace does not end; it is never forced."""
    box = await queries.get_any_box(session, box_id, lock=True)
    if box.status is not BoxStatus.DESTROYING or box.status_changed_at is None:
        return
    if await business_now(session) - box.status_changed_at < STUCK_AFTER:
        return
    box.status_reason = Reason.STUCK_TERMINATING
    session.add(box)
    await job_service.raise_alert(
        session,
        code=health.ALERT_STUCK,
        subject=str(box.id),
        detail={"namespace": box.k8s_namespace},
    )


async def _report_orphans(
    cluster_name: str, names: set[str], namespaces: dict[str, NamespaceView]
) -> None:
    """Tell a person of namespaces of ours without a box; nothing is deleted by itself."""
    orphans = sorted(
        name
        for name in names
        if namespaces[name].state is NamespaceState.ACTIVE
        and manifests.BOX_LABEL in namespaces[name].labels
    )
    async with session_scope() as session:
        if not orphans:
            await job_service.resolve_alert(session, code=ALERT_ORPHAN, subject=cluster_name)
            return
        detail = {"count": len(orphans), "namespaces": orphans[:MOST_ORPHANS]}
        await job_service.raise_alert(
            session, code=ALERT_ORPHAN, subject=cluster_name, detail=detail
        )


async def _observe(
    namespace: str, sight: Sight, conclude: Conclude, *, is_strike: bool = False
) -> list[BoxChange]:
    async with session_scope() as session:
        changes = await health.observe(session, namespace, sight, is_strike=is_strike)
        for change in changes:
            await conclude(session, change)
    return changes
