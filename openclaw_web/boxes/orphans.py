"""Namespaces of ours without a box: noted, stopped after an hour, never deleted by themselves.

A database that was restored from yesterday makes paying boxes look like orphans: so time passes
first, many at once stop everything, and a memory is touched by no loop.
"""

import logging
from collections.abc import Awaitable
from datetime import datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.boxes import manifests, network, queries
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView
from openclaw_web.jobs import service as job_service

logger = logging.getLogger(__name__)

FIRST_SEEN = "openclaw.cloud/orphan-since"
STOPPED = "openclaw.cloud/orphan-stopped-at"
NO_ORPHAN: dict[str, str | None] = {FIRST_SEEN: None, STOPPED: None}
STOP_AFTER = timedelta(hours=1)  # of business time
MOST_AT_ONCE = 5
NAMED = 20
ACTOR = "orphans"
ALERT = "orphan_namespace"
ALERT_MANY = "many_orphan_namespaces"


async def look_after(cluster: Cluster, cluster_name: str) -> list[str]:
    """Note new orphans, stop those of an hour ago, and return which were stopped now.

    Safe to run twice: what was noted keeps its time, what was stopped is left alone.
    """
    views = await cluster.list_namespaces()
    async with session_scope() as session:
        now = await business_now(session)
        names = [view.name for view in views]
        living = await queries.any_clusters_living_namespaces(session, names)
        orphans = [view for view in views if _is_orphan(view, living)]
        waiting = [view for view in orphans if STOPPED not in view.annotations]
        is_too_many = await _tell(session, cluster_name, orphans, waiting)
    for view in views:
        if view.name in living and FIRST_SEEN in view.annotations:
            await _alone(view, cluster.annotate_namespace(view.name, NO_ORPHAN))
    if is_too_many:
        return []
    return [view.name for view in waiting if await _alone(view, _see_to(cluster, view, now))]


async def _alone(view: NamespaceView, act: Awaitable[bool | None]) -> bool:
    """Do something with one namespace; when that fails, the others get their turn all the same."""
    try:
        return bool(await act)
    except VendorError as error:
        logger.warning("The namespace %s could not be seen to: %s", view.name, error)
        return False


def _is_orphan(view: NamespaceView, living: set[str]) -> bool:
    is_platform = any(view.labels.get(key) == one for key, one in network.PLATFORM.items())
    return (
        view.name not in living
        and view.state is NamespaceState.ACTIVE
        and view.labels.get(manifests.MANAGED, "true") == "true"
        and not is_platform
    )


async def _tell(
    session: AsyncSession,
    cluster_name: str,
    orphans: list[NamespaceView],
    waiting: list[NamespaceView],
) -> bool:
    """Keep the alerts true, and say whether there are so many that nothing may be done."""
    detail = {"count": len(orphans), "namespaces": [view.name for view in orphans[:NAMED]]}
    is_too_many = len(waiting) > MOST_AT_ONCE
    for code, holds in ((ALERT, bool(orphans)), (ALERT_MANY, is_too_many)):
        if holds:
            await job_service.raise_alert(session, code=code, subject=cluster_name, detail=detail)
        else:
            await job_service.resolve_alert(session, code=code, subject=cluster_name)
    return is_too_many


async def _see_to(cluster: Cluster, view: NamespaceView, now: datetime) -> bool:
    since = _read(view.annotations.get(FIRST_SEEN, ""))
    if since is None:
        await cluster.annotate_namespace(view.name, {FIRST_SEEN: now.isoformat()})
        return False
    if now - since < STOP_AFTER or not await _is_still_orphan(view.name):
        return False
    async with session_scope() as session:
        # One transaction: an act without its line must not happen, nor a line without its act.
        await accounts.audit(
            session,
            action="orphan.stopped",
            actor_type="system",
            actor_id=ACTOR,
            resource_type="namespace",
            resource_id=view.name,
            reason="It has had no box for an hour. Its volume is kept.",
        )
        await cluster.scale(view.name, manifests.NAME, 0)
    await cluster.annotate_namespace(view.name, {STOPPED: now.isoformat()})
    logger.warning("The namespace %s has no box and was stopped; its volume is kept.", view.name)
    return True


async def _is_still_orphan(name: str) -> bool:
    async with session_scope() as session:
        return not await queries.any_clusters_living_namespaces(session, [name])


def _read(text: str) -> datetime | None:
    """Return a moment that we noted; what somebody else wrote there begins anew."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None
