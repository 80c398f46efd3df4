"""CSI snapshots: a copy of a volume's folder at one moment, kept until its snapshot is deleted.

A real snapshot is atomic. So whoever has the volume mounted stands still while it is copied.
"""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.folders import passage
from simulators.kubernetes.objects import (
    Object,
    annotations_of,
    is_terminating,
    name_of,
    namespace_of,
    now,
    status_of,
    uid_of,
    without_finalizer,
)
from simulators.kubernetes.volumes import PROVISIONER, SNAPSHOT_FOLDER, copy_folder

CLASS = "standard"
IS_DEFAULT = "snapshot.storage.kubernetes.io/is-default-class"
PROTECTION = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
AGAIN_SECONDS = 1.0
Freeze = Callable[[str, str], AbstractContextManager[None]]


def ensure_class(cluster: Cluster) -> None:
    """Offer one class from the start, as a managed cluster does."""
    if not cluster.store.objects(resources.SNAPSHOT_CLASSES):
        made: Object = {
            "metadata": {"name": CLASS, "annotations": {IS_DEFAULT: "true"}},
            "driver": PROVISIONER,
            "deletionPolicy": "Delete",
        }
        cluster.create(resources.SNAPSHOT_CLASSES, "", made)


class Snapshots:
    """Reconciles one snapshot, and the content that was made for it."""

    def __init__(self, cluster: Cluster, volumes: Path, freeze: Freeze) -> None:
        self._cluster = cluster
        self._folder = volumes / SNAPSHOT_FOLDER
        self._freeze = freeze

    async def reconcile(self, namespace: str, name: str) -> float | None:
        snapshot = self._cluster.find(resources.SNAPSHOTS, namespace, name)
        if snapshot is None:
            return None
        if is_terminating(snapshot):
            await self._remove(snapshot)
            return None
        if status_of(snapshot).get("readyToUse"):
            return None
        trouble = await self._take(snapshot)
        if trouble:
            error = {"message": trouble, "time": now()}
            known = status_of(snapshot).get("error") or {}
            if known.get("message") != trouble:
                self._write(snapshot, {"readyToUse": False, "error": error})
            return AGAIN_SECONDS
        return None

    async def _take(self, snapshot: Object) -> str:
        """Copy the volume; return what is in the way, as the real controller says it."""
        chosen = self._class_of(snapshot)
        source = snapshot["spec"]["source"].get("persistentVolumeClaimName", "")
        claim = self._cluster.find(resources.CLAIMS, namespace_of(snapshot), source)
        if chosen is None:
            return "Failed to set default snapshot class with error cannot find default class"
        if claim is None:
            return f'snapshot controller failed to update {name_of(snapshot)}: "{source}" not found'
        volume = self._cluster.find(resources.VOLUMES, "", claim["spec"].get("volumeName", ""))
        if volume is None or status_of(claim).get("phase") != "Bound":
            return f"the PVC {source} is not yet bound to a PV, will not attempt to take a snapshot"
        if chosen["driver"] != PROVISIONER:
            return f"no driver {chosen['driver']} for the volume of {source}"
        handle = self._folder / uid_of(snapshot)
        with self._freeze(namespace_of(claim), name_of(claim)):
            await asyncio.to_thread(self._copy, Path(volume["spec"]["hostPath"]["path"]), handle)
        self._bind(snapshot, chosen, volume, handle)
        return ""

    def _copy(self, source: Path, handle: Path) -> None:
        passage(self._folder)
        half = handle.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        copy_folder(source, half)
        shutil.rmtree(handle, ignore_errors=True)
        half.rename(handle)

    def _class_of(self, snapshot: Object) -> Object | None:
        wanted = snapshot["spec"].get("volumeSnapshotClassName")
        if wanted:
            return self._cluster.find(resources.SNAPSHOT_CLASSES, "", wanted)
        offered = self._cluster.store.objects(resources.SNAPSHOT_CLASSES)
        return next((one for one in offered if annotations_of(one).get(IS_DEFAULT)), None)

    def _bind(self, snapshot: Object, chosen: Object, volume: Object, handle: Path) -> None:
        name = f"snapcontent-{uid_of(snapshot)}"
        if self._cluster.find(resources.SNAPSHOT_CONTENTS, "", name) is None:
            made = self._cluster.create(
                resources.SNAPSHOT_CONTENTS, "", _content(name, snapshot, chosen, volume)
            )
            size = sum(one.stat().st_size for one in handle.rglob("*") if one.is_file())
            seen = {"readyToUse": True, "restoreSize": size, "snapshotHandle": handle.name}
            self._cluster.write_status(resources.SNAPSHOT_CONTENTS, made, seen)
        self._cluster.edit(resources.SNAPSHOTS, snapshot, lambda one: _protected(one, chosen))
        self._write(
            snapshot,
            {
                "boundVolumeSnapshotContentName": name,
                "creationTime": now(),
                "readyToUse": True,
                "restoreSize": volume["spec"]["capacity"]["storage"],
            },
        )

    async def _remove(self, snapshot: Object) -> None:
        name = status_of(snapshot).get("boundVolumeSnapshotContentName", "")
        content = self._cluster.find(resources.SNAPSHOT_CONTENTS, "", name) if name else None
        if content is not None and content["spec"]["deletionPolicy"] == "Delete":
            handle = self._folder / status_of(content).get("snapshotHandle", uid_of(snapshot))
            await asyncio.to_thread(shutil.rmtree, handle, ignore_errors=True)
            self._cluster.delete(resources.SNAPSHOT_CONTENTS, "", name)
        self._cluster.edit(
            resources.SNAPSHOTS, snapshot, lambda one: without_finalizer(one, PROTECTION)
        )

    def _write(self, snapshot: Object, status: dict[str, Any]) -> None:
        self._cluster.write_status(resources.SNAPSHOTS, snapshot, status)


def _content(name: str, snapshot: Object, chosen: Object, volume: Object) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "deletionPolicy": chosen["deletionPolicy"],
            "driver": chosen["driver"],
            "source": {"volumeHandle": name_of(volume)},
            "sourceVolumeMode": volume["spec"]["volumeMode"],
            "volumeSnapshotClassName": name_of(chosen),
            "volumeSnapshotRef": {
                "apiVersion": resources.SNAPSHOTS.api_version,
                "kind": resources.SNAPSHOTS.kind,
                "namespace": namespace_of(snapshot),
                "name": name_of(snapshot),
                "uid": uid_of(snapshot),
            },
        },
    }


def _protected(snapshot: Object, chosen: Object) -> Object:
    held = snapshot["metadata"].get("finalizers") or []
    finalizers = held if PROTECTION in held else [*held, PROTECTION]
    spec = {**snapshot["spec"], "volumeSnapshotClassName": name_of(chosen)}
    meta = {**snapshot["metadata"], "finalizers": finalizers}
    return {**snapshot, "metadata": meta, "spec": spec}
