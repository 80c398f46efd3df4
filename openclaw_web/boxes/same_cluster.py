"""The cluster that a worker reaches is the one in which its boxes live, or nothing is done there.

A kubeconfig of another cluster would make every box look lost.
"""

from typing import Protocol

from sqlalchemy.dialects.postgresql import insert
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.core.switches import PlatformSetting, read_switch, write_switch
from openclaw_web.integrations.cluster_objects import NamespaceView
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import service as job_service

ALERT = "another_cluster"
LASTING_NAMESPACE = "kube-system"  # as old as its cluster, and nobody can delete it
FIRST_SEEN_BY = "worker"


class Named(Protocol):
    """As much of a cluster as tells who it is."""

    async def find_namespace(self, name: str) -> NamespaceView | None: ...


class OtherClusterError(OpenClawError):
    """This is not the cluster that we know by this name."""


async def make_sure(cluster: Named, cluster_name: str) -> None:
    """Compare the cluster with the one that bore this name before; the first one seen is noted.

    Raises:
        OtherClusterError: it is another one; an alert says so until it is the known one again.
        VendorError: the cluster does not say who it is.
    """
    view = await cluster.find_namespace(LASTING_NAMESPACE)
    if view is None or not view.uid:
        raise VendorError(
            f"The cluster does not show its namespace {LASTING_NAMESPACE}.",
            can_retry=True,
            code="not_found",
        )
    async with session_scope() as session:
        known = await _noted(session, cluster_name, view.uid)
        if known == view.uid:
            await job_service.resolve_alert(session, code=ALERT, subject=cluster_name)
            return
        detail = {"known": known, "found": view.uid}
        await job_service.raise_alert(session, code=ALERT, subject=cluster_name, detail=detail)
    raise OtherClusterError(
        f"KUBECONFIG leads to another cluster than the one that was called {cluster_name!r} until"
        " now; nothing is done to it. Point it to the right one, or set CLUSTER_NAME for a new one."
        " If this one takes the old one's place for good: python -m openclaw_web admin cluster"
        f" {cluster_name} --accept --reason WHY"
    )


async def accept_another(session: AsyncSession, cluster_name: str, *, by: str) -> bool:
    """Let the cluster that the alert found bear this name; `False`: no worker has found one.

    Whatever does not live there is then found missing, as after any loss. A worker that is still in
    the former one stops within a minute.
    """
    alert = await jobs.find_open_alert(session, code=ALERT, subject=cluster_name)
    if alert is None:
        return False
    now = await business_now(session)
    await write_switch(session, _key(cluster_name), alert.detail["found"], by=by, at=now)
    await job_service.resolve_alert(session, code=ALERT, subject=cluster_name)
    return True


async def _noted(session: AsyncSession, cluster_name: str, uid: str) -> str:
    """Return who bears this name; of two workers that start at once the first decides."""
    key = _key(cluster_name)
    row = insert(PlatformSetting).values(
        key=key, value=uid, updated_by=FIRST_SEEN_BY, updated_at=await business_now(session)
    )
    await session.exec(row.on_conflict_do_nothing(index_elements=["key"]))
    return str(await read_switch(session, key))


def _key(cluster_name: str) -> str:
    return f"cluster_uid_{cluster_name}"
