"""Scheduled backups without a pause: where the cluster can, a snapshot of each volume once a day.

A snapshot holds the volume as a power cut would have left it, which is what SQLite is made for:
what was committed is there, what was not is rolled back. It lies in the cluster, beside the volume,
so it is a row without a key, and it ends with its namespace: no substitute for the other backups.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import manifests, queries
from openclaw_web.boxes.memory import backups
from openclaw_web.boxes.memory.backups import SNAPSHOT, Reason
from openclaw_web.boxes.memory.retaining import UNFINISHED_FOR
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import ClaimView, SnapshotClassView
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobStatus, OperatorJob

logger = logging.getLogger(__name__)

OFF = "off"
AT_ONCE = 20
PAGE = 100
LOOKED_AT = 10 * AT_ONCE  # boxes that no class fits must not hide the others
BAD_IN_A_ROW = 2
LATE = timedelta(hours=1)  # until then a snapshot may be on its way into the provider's store
ALERT_CLASS = "snapshot_class_unusable"
ALERT_MISSING = "snapshot_class_missing"
ALERT_FAILED = "snapshot_failed"
CONFLICT = "conflict"
StillLeading = Callable[[], Awaitable[None]]


class NoClassError(VendorError):
    """None of the classes makes snapshots of this box's volume."""

    def __init__(self, driver: str) -> None:
        super().__init__(f"No class fits {driver}.", can_retry=False, code="no_class")
        self.driver = driver


async def look_after(cluster: Cluster, cluster_name: str, still_leading: StillLeading) -> int:
    """Follow the snapshots that were begun, delete the forgotten, make those that are due.

    Returns how many were begun. Twice does no harm: each has a row, and a name, of its own.
    """
    classes = await _usable_classes(cluster, cluster_name)
    async for box, backup in _of_cluster(cluster_name, _is_begun()):
        await still_leading()
        await _alone(_follow(cluster, box, backup, classes))
    async for box, backup in _of_cluster(cluster_name, col(BoxBackup.deleted_at).is_not(None)):
        await still_leading()
        await _alone(_delete(cluster, box, backup))
    return await _begin_due(cluster, cluster_name, classes, still_leading)


async def _begin_due(
    cluster: Cluster,
    cluster_name: str,
    classes: Sequence[SnapshotClassView],
    still_leading: StillLeading,
) -> int:
    begun, without = 0, set[str]()
    for box_id in await _due(cluster_name) if classes else ():
        await still_leading()
        try:
            begun += await _alone(_begin(cluster, box_id, classes))
        except NoClassError as error:
            without.add(error.driver)
        if begun == AT_ONCE:
            break
    await _tell_of_missing(cluster_name, without, saw_all=begun < AT_ONCE)
    return begun


async def _tell_of_missing(cluster_name: str, drivers: set[str], *, saw_all: bool) -> None:
    if drivers:
        named = ", ".join(sorted(drivers))
        sentence = f"No class that may be used makes snapshots of volumes of {named}."
        await _tell(ALERT_MISSING, cluster_name, sentence)
    elif saw_all:
        async with session_scope() as session:
            await jobs.resolve_alert(session, code=ALERT_MISSING, subject=cluster_name)


async def _alone(doing: Awaitable[int]) -> int:
    """Let what the cluster refuses for one box hold up no other one."""
    try:
        return await doing
    except NoClassError:
        raise
    except VendorError as error:
        logger.warning("A snapshot waits: %s", error)
        return 0


def name_of(backup: BoxBackup) -> str:
    return backup.location.removeprefix(SNAPSHOT)


def manifest(box: Box, backup: BoxBackup, chosen: str) -> manifests.Manifest:
    """Without the mark of a managed object: nothing but its row says what it is for."""
    labels = {
        "app.kubernetes.io/managed-by": "openclaw-cloud",
        manifests.BOX_LABEL: str(box.id),
    }
    meta = {"name": name_of(backup), "namespace": box.k8s_namespace, "labels": labels}
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": meta,
        "spec": {
            "volumeSnapshotClassName": chosen,
            "source": {"persistentVolumeClaimName": manifests.NAME},
        },
    }


async def _usable_classes(cluster: Cluster, cluster_name: str) -> list[SnapshotClassView]:
    """Return the classes that may be used; say so when the one that is named cannot be."""
    wanted = settings().box_snapshot_class
    if wanted == OFF or not backups.are_on():  # without a keeper none could come back
        return []
    try:
        offered = await cluster.snapshot_classes()
    except VendorError as error:
        if error.can_retry:
            raise
        await _tell(ALERT_CLASS, cluster_name, str(error))  # the role lacks its verbs
        return []
    usable = [one for one in offered if wanted in {"", one.name} and not one.outlives]
    if wanted and not usable:
        sentence = (
            f"BOX_SNAPSHOT_CLASS names {wanted}; the cluster has no such class whose deletionPolicy"
            " is Delete. With Retain, memory would outlive its customer's wish to be forgotten."
        )
        await _tell(ALERT_CLASS, cluster_name, sentence)
        return []
    async with session_scope() as session:
        await jobs.resolve_alert(session, code=ALERT_CLASS, subject=cluster_name)
    return sorted(usable, key=lambda one: (not one.is_default, one.name))


async def _due(cluster_name: str) -> Sequence[UUID]:
    """Return boxes that run undisturbed and whose newest scheduled backup is too old."""
    async with session_scope() as session:
        since = await business_now(session) - timedelta(hours=settings().box_snapshot_hours)
        found = await session.exec(
            select(Box.id)
            .where(
                Box.cluster == cluster_name,
                Box.status == BoxStatus.ACTIVE,
                col(Box.activated_at) <= since,
                ~sa.exists(_newer(since)),
                ~sa.exists(_under_work()),
            )
            .order_by(sa.func.random())
            .limit(LOOKED_AT)
        )
        return found.all()


def _newer(since: Any) -> sa.Select[Any]:
    return sa.select(col(BoxBackup.id)).where(
        col(BoxBackup.box_id) == col(Box.id),
        col(BoxBackup.reason) == Reason.SCHEDULED.value,
        col(BoxBackup.created_at) > since,
    )


def _under_work() -> sa.Select[Any]:
    return sa.select(col(OperatorJob.id)).where(
        col(OperatorJob.box_id) == col(Box.id), col(OperatorJob.status) == JobStatus.RUNNING
    )


async def _runs_undisturbed(session: AsyncSession, box_id: UUID) -> bool:
    """Say whether a snapshot of its volume now is one of an assistant at work."""
    found = await session.scalar(
        select(Box.id).where(
            Box.id == box_id, Box.status == BoxStatus.ACTIVE, ~sa.exists(_under_work())
        )
    )
    return found is not None


async def _begin(cluster: Cluster, box_id: UUID, classes: Sequence[SnapshotClassView]) -> int:
    """Write the row, then ask the cluster; what is lost in between is asked for again."""
    box = await _read(box_id)
    volume = await cluster.find_claim(box.k8s_namespace, manifests.NAME)
    if volume is None:  # the sweep's matter
        return 0
    chosen = _class_for(volume, classes)
    if chosen is None:
        raise NoClassError(volume.driver or "an unknown driver")
    async with session_scope() as session:
        now = await business_now(session)
        since = now - timedelta(hours=settings().box_snapshot_hours)
        box = await queries.get_any_box(session, box_id, lock=True)
        is_taken = await session.scalar(_newer(since).where(col(Box.id) == box_id))
        if is_taken is not None or not await _runs_undisturbed(session, box_id):
            return 0
        made = uuid4()
        backup = BoxBackup(
            id=made,
            box_id=box.id,
            reason=Reason.SCHEDULED.value,
            location=f"{SNAPSHOT}{Reason.SCHEDULED.value}-{made.hex[:12]}",
            created_at=now,
        )
        session.add(backup)
    await _ask(cluster, box, backup, chosen)
    return 1


async def _ask(cluster: Cluster, box: Box, backup: BoxBackup, chosen: str) -> None:
    try:
        await cluster.create(manifest(box, backup, chosen))
    except VendorError as error:
        if error.code != CONFLICT:
            await _note_trouble(box, backup, str(error))


async def _follow(
    cluster: Cluster, box: Box, backup: BoxBackup, classes: Sequence[SnapshotClassView]
) -> int:
    """Read what became of a snapshot; one that never came to be is asked for again, for a day."""
    seen = await cluster.find_snapshot(box.k8s_namespace, name_of(backup))
    async with session_scope() as session:
        now = await business_now(session)
    asked_at = backup.created_at or now
    is_over = asked_at < now - UNFINISHED_FOR
    if seen is None and is_over:  # one "not found" is no proof, and what is forgotten is deleted
        seen = await cluster.find_snapshot(box.k8s_namespace, name_of(backup))
    if seen is not None and seen.is_ready:
        await _note_ready(box, backup, seen.made_at)
        return 1
    if is_over:
        await _forget(backup)
    elif seen is None:
        await _ask_again(cluster, box, backup, classes)
    elif seen.error or asked_at < now - LATE:
        await _note_trouble(box, backup, seen.error or "It is not ready after an hour.")
    return 0


async def _note_ready(box: Box, backup: BoxBackup, made_at: datetime | None) -> None:
    """Note that it is there, and from when its memory is: it may have been asked for in vain."""
    async with session_scope() as session:
        row = await session.get_one(BoxBackup, backup.id, with_for_update=True)
        now = await business_now(session)
        row.finished_at, row.error = now, None
        if made_at is not None and row.created_at is not None:
            row.created_at = max(row.created_at, now - (real_now() - made_at))
        session.add(row)
        await jobs.resolve_alert(session, code=ALERT_FAILED, subject=str(box.id))


async def _forget(backup: BoxBackup) -> None:
    """Give up one that never came to be; it is deleted, should it still come."""
    async with session_scope() as session:
        row = await session.get_one(BoxBackup, backup.id, with_for_update=True)
        row.deleted_at = await business_now(session)
        session.add(row)


async def _ask_again(
    cluster: Cluster, box: Box, backup: BoxBackup, classes: Sequence[SnapshotClassView]
) -> None:
    async with session_scope() as session:
        if not await _runs_undisturbed(session, box.id):
            return
    volume = await cluster.find_claim(box.k8s_namespace, manifests.NAME)
    chosen = _class_for(volume, classes) if volume else None
    if chosen is not None:
        await _ask(cluster, box, backup, chosen)


async def _note_trouble(box: Box, backup: BoxBackup, sentence: str) -> None:
    """Note why it is not there yet, and tell when the one before it failed as well."""
    async with session_scope() as session:
        row = await session.get_one(BoxBackup, backup.id, with_for_update=True)
        row.error = sentence[:500]
        session.add(row)
        await session.flush()
        found = await session.exec(
            select(BoxBackup.finished_at)
            .where(BoxBackup.box_id == box.id, BoxBackup.reason == Reason.SCHEDULED.value)
            .order_by(col(BoxBackup.created_at).desc())
            .limit(BAD_IN_A_ROW)
        )
        newest = found.all()
    if len(newest) == BAD_IN_A_ROW and not any(newest):
        await _tell(ALERT_FAILED, str(box.id), sentence)


async def _delete(cluster: Cluster, box: Box, backup: BoxBackup) -> int:
    """Delete what is kept no longer; the row remembers the place until it is gone."""
    await cluster.delete("VolumeSnapshot", box.k8s_namespace, name_of(backup))
    async with session_scope() as session:
        row = await session.get_one(BoxBackup, backup.id, with_for_update=True)
        row.location = ""
        session.add(row)
    return 1


def _class_for(volume: ClaimView, classes: Sequence[SnapshotClassView]) -> str | None:
    return next((one.name for one in classes if one.driver == volume.driver), None)


def _is_begun() -> sa.ColumnElement[bool]:
    return sa.and_(col(BoxBackup.finished_at).is_(None), col(BoxBackup.deleted_at).is_(None))


async def _of_cluster(
    cluster_name: str, which: sa.ColumnElement[bool]
) -> AsyncGenerator[tuple[Box, BoxBackup]]:
    """Yield all of these snapshots of a cluster's boxes, page by page, in no order that matters."""
    last = UUID(int=0)
    statement = (
        select(Box, BoxBackup)
        .join(BoxBackup, col(BoxBackup.box_id) == col(Box.id))
        .where(Box.cluster == cluster_name, col(BoxBackup.location).startswith(SNAPSHOT), which)
        .order_by(col(BoxBackup.id))
        .limit(PAGE)
    )
    while True:
        async with session_scope() as session:
            found = (await session.exec(statement.where(col(BoxBackup.id) > last))).all()
        for one in found:
            yield one
        if len(found) < PAGE:
            return
        last = found[-1][1].id


async def _read(box_id: UUID) -> Box:
    async with session_scope() as session:
        return await queries.get_any_box(session, box_id)


async def _tell(code: str, subject: str, sentence: str) -> None:
    logger.warning("%s: %s", code, sentence)
    async with session_scope() as session:
        await jobs.raise_alert(session, code=code, subject=subject, detail={"error": sentence})
