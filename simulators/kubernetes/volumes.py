"""Persistent volumes: a claim is bound at once to a folder, and the folder goes with the claim."""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from simulators.kubernetes import quantities, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.defaults import CLAIM_FINALIZER
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.folders import Owner, private_folder
from simulators.kubernetes.objects import (
    Object,
    annotations_of,
    is_finished,
    is_terminating,
    name_of,
    namespace_of,
    status_of,
    uid_of,
    without_finalizer,
)
from simulators.kubernetes.store import DELETED, Change

PROVISIONER = "simulators.kubernetes/folder"
SNAPSHOT_FOLDER = ".snapshots"
_ASKED = "volume.kubernetes.io/storage-provisioner"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


class Volumes:
    """Reconciles one claim, and the volume that was made for it."""

    def __init__(self, cluster: Cluster, folder: Path, owner: Owner | None) -> None:
        self._cluster = cluster
        self._folder = folder
        self._owner = owner
        self._claimed: dict[tuple[str, str], set[str]] = {}  # volumes by claim, for thousands
        for volume in cluster.store.objects(resources.VOLUMES):
            self._note(volume)
        cluster.store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.resource is not resources.VOLUMES:
            return
        if change.kind == DELETED:
            place = _place(change.obj)
            self._claimed.get(place, set()).discard(name_of(change.obj))
            if not self._claimed.get(place):
                self._claimed.pop(place, None)
        else:
            self._note(change.obj)

    def _note(self, volume: Object) -> None:
        place = _place(volume)
        if all(place):
            self._claimed.setdefault(place, set()).add(name_of(volume))

    async def reconcile(self, namespace: str, name: str) -> float | None:
        claim = self._cluster.find(resources.CLAIMS, namespace, name)
        if claim is not None and is_terminating(claim) and not self._is_used(claim):
            self._cluster.edit(
                resources.CLAIMS, claim, lambda one: without_finalizer(one, CLAIM_FINALIZER)
            )
            claim = self._cluster.find(resources.CLAIMS, namespace, name)
        if claim is not None and not is_terminating(claim) and await self._fill(claim):
            self._bind(claim)
        await self._reclaim(namespace, name)
        return None

    def _is_used(self, claim: Object) -> bool:
        """Say whether a pod that has not ended mounts the claim."""
        pods = self._cluster.store.objects(resources.PODS, namespace_of(claim))
        return any(
            volume.get("persistentVolumeClaim", {}).get("claimName") == name_of(claim)
            for pod in pods
            if not is_finished(pod)
            for volume in pod["spec"].get("volumes") or ()
        )

    def _bind(self, claim: Object) -> None:
        if claim["spec"].get("storageClassName") == "" and not claim["spec"].get("volumeName"):
            return  # the claim asks for no provisioning: it waits for a volume to be named
        wanted = claim["spec"].get("volumeName") or f"pvc-{uid_of(claim)}"
        volume = self._cluster.find(resources.VOLUMES, "", wanted)
        if volume is None:
            if status_of(claim).get("phase") == "Bound":
                self._lose(claim)
                return
            if claim["spec"].get("volumeName"):
                return
            volume = self._provision(claim, wanted)
        reference = volume["spec"].get("claimRef")
        if reference is None:
            self._cluster.edit(resources.VOLUMES, volume, lambda one: _claimed_by(one, claim))
        elif reference.get("uid", uid_of(claim)) != uid_of(claim):
            return  # it is somebody else's
        self._mark_bound(claim, volume)

    async def _fill(self, claim: Object) -> bool:
        """Copy the snapshot that a new claim begins with; say whether the claim may be bound."""
        source = claim["spec"].get("dataSource")
        if status_of(claim).get("phase") == "Bound" or not source:
            return True
        found = self._cluster.find(resources.SNAPSHOTS, namespace_of(claim), source["name"])
        if found is None or not status_of(found).get("readyToUse"):
            return False
        bound = status_of(found)["boundVolumeSnapshotContentName"]
        content = self._cluster.find(resources.SNAPSHOT_CONTENTS, "", bound)
        if content is None or _is_smaller(claim, status_of(found)):
            return False
        path = self._path(claim)
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)  # of an interrupted copy
        private_folder(path, self._owner)
        handle = self._folder / SNAPSHOT_FOLDER / status_of(content)["snapshotHandle"]
        await asyncio.to_thread(copy_folder, handle, path)
        return True

    def _lose(self, claim: Object) -> None:
        self._cluster.write_status(resources.CLAIMS, claim, {**claim["status"], "phase": "Lost"})

    def _provision(self, claim: Object, name: str) -> Object:
        path = self._path(claim)
        private_folder(path, self._owner)
        self._cluster.edit(resources.CLAIMS, claim, _asked_for)
        spec = claim["spec"]
        return self._cluster.create(
            resources.VOLUMES,
            "",
            {
                "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
                "spec": {
                    "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                    "accessModes": spec["accessModes"],
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": spec.get("storageClassName", ""),
                    "volumeMode": spec["volumeMode"],
                    "hostPath": {"path": str(path), "type": "DirectoryOrCreate"},
                    "claimRef": _reference(claim),
                },
            },
        )

    def _path(self, claim: Object) -> Path:
        return self._folder / namespace_of(claim) / f"{name_of(claim)}-{uid_of(claim)[:8]}"

    def _mark_bound(self, claim: Object, volume: Object) -> None:
        self._cluster.write_status(resources.VOLUMES, volume, {"phase": "Bound"})
        self._cluster.edit(
            resources.CLAIMS,
            claim,
            lambda one: {**one, "spec": {**one["spec"], "volumeName": name_of(volume)}},
        )
        capacity = {"storage": claim["spec"]["resources"]["requests"]["storage"]}
        status = {
            **status_of(claim),
            "phase": "Bound",
            "accessModes": claim["spec"]["accessModes"],
            "capacity": capacity,
        }
        self._cluster.write_status(resources.CLAIMS, claim, status)
        if volume["spec"].get("capacity") != capacity:
            self._cluster.edit(
                resources.VOLUMES,
                volume,
                lambda one: {**one, "spec": {**one["spec"], "capacity": capacity}},
            )

    async def _reclaim(self, namespace: str, name: str) -> None:
        """Delete or release the volumes whose claim is gone, folder first."""
        for known in list(self._claimed.get((namespace, name), ())):
            volume = self._cluster.find(resources.VOLUMES, "", known)
            if volume is None or _place(volume) != (namespace, name):
                continue
            reference = volume["spec"]["claimRef"]
            claim = self._cluster.find(resources.CLAIMS, namespace, name)
            if claim is not None and uid_of(claim) == reference.get("uid", uid_of(claim)):
                continue
            self._cluster.write_status(resources.VOLUMES, volume, {"phase": "Released"})
            if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                await self._remove_folder(volume)
                with contextlib.suppress(ApiError):
                    self._cluster.delete(resources.VOLUMES, "", name_of(volume))

    async def _remove_folder(self, volume: Object) -> None:
        path = Path((volume["spec"].get("hostPath") or {}).get("path", ""))
        if self._folder not in path.parents or ".." in path.parts:
            return  # not one of ours: a client wrote this volume
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # the namespace's folder, when this was its last volume


def copy_folder(source: Path, target: Path) -> None:
    """Copy what is in a folder with owners and modes; what is no file, folder or link is not."""
    target.mkdir(exist_ok=True)
    with os.scandir(source) as entries:
        for one in entries:
            there = target / one.name
            if one.is_symlink():
                there.symlink_to(os.readlink(one.path))  # noqa: PTH115 - the text, as it is
            elif one.is_dir():
                copy_folder(Path(one.path), there)
            elif one.is_file():
                shutil.copy2(one.path, there)
            else:
                continue
            found = one.stat(follow_symlinks=False)
            os.chown(there, found.st_uid, found.st_gid, follow_symlinks=False)
    shutil.copystat(source, target)
    found = source.stat()
    os.chown(target, found.st_uid, found.st_gid)


def _is_smaller(claim: Object, snapshot: dict[str, Any]) -> bool:
    wanted = quantities.parse(claim["spec"]["resources"]["requests"]["storage"])
    return wanted < quantities.parse(snapshot["restoreSize"])


def _asked_for(claim: Object) -> Object:
    notes = {**annotations_of(claim), _ASKED: PROVISIONER}
    return {**claim, "metadata": {**claim["metadata"], "annotations": notes}}


def _place(volume: Object) -> tuple[str, str]:
    """Return namespace and name of the claim that a volume is for, if there is one."""
    reference = volume["spec"].get("claimRef") or {}
    return reference.get("namespace", ""), reference.get("name", "")


def _reference(claim: Object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace_of(claim),
        "name": name_of(claim),
        "uid": uid_of(claim),
    }


def _claimed_by(volume: Object, claim: Object) -> Object:
    return {**volume, "spec": {**volume["spec"], "claimRef": _reference(claim)}}
