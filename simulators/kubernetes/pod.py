"""One pod's life on this machine: volumes, init containers, containers, and its status."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulators.kubernetes import addresses, environment, mounts, resources
from simulators.kubernetes.cluster import Cluster, Deletion
from simulators.kubernetes.container import Container
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.folders import Owner, passage, private_folder
from simulators.kubernetes.images import Image, Images
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.log_times import LogTimes
from simulators.kubernetes.memory import MemoryWatch
from simulators.kubernetes.mounts import Mounts, Unmountable
from simulators.kubernetes.objects import (
    Object,
    annotations_of,
    is_finished,
    merged_conditions,
    name_of,
    namespace_of,
    now,
    status_of,
    uid_of,
    with_metadata,
)
from simulators.kubernetes.probes import Place
from simulators.kubernetes.process import Lifeline, Sandbox
from simulators.kubernetes.recorder import Recorder
from simulators.kubernetes.scheduler import LOCAL_NODE, Scheduler, unschedulable

HOST_IP = addresses.LOOPBACK
MOUNT_RETRY_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Node:
    """What all pods of this machine share."""

    cluster: Cluster
    recorder: Recorder
    images: Images
    lifeline: Lifeline
    addresses: addresses.Addresses
    knobs: Knobs
    scheduler: Scheduler
    is_record: Callable[[Object], bool]
    memory: MemoryWatch
    times: LogTimes
    pods: Path
    volumes: Path
    owner: Owner | None


class Unschedulable(Exception):  # noqa: N818 - a state to wait in, named as the condition's reason
    """The node has no room for the pod, or is not for it."""


class PodRunner:
    """Runs one pod from its creation to its end."""

    def __init__(self, node: Node, pod: Object, others: Mapping[str, "PodRunner"]) -> None:
        self._node = node
        self._pod = pod
        self._others = others
        self.uid = uid_of(pod)
        self.images, self.recorder, self.lifeline = node.images, node.recorder, node.lifeline
        self.knobs, self.memory, self.times = node.knobs, node.memory, node.times
        self._unschedulable = ""
        self.stopping = asyncio.Event()
        self._poke = asyncio.Event()
        self.is_leaving = False
        self._deadline = float("inf")
        self.folder = node.pods / folder_name(pod)
        self.place = Place("", {}, {})
        self._folders: dict[str, Path] = {}
        self._is_initialized = "initContainers" not in pod["spec"]
        self._started_at = status_of(pod).get("startTime") or now()
        self._inits = self._containers("initContainers")
        self._mains = self._containers("containers")

    def _containers(self, group: str) -> list[Container]:
        field = "initContainerStatuses" if group == "initContainers" else "containerStatuses"
        before = {one["name"]: one for one in status_of(self._pod).get(field) or ()}
        return [
            Container(self, spec, before.get(spec["name"], {}), group=group)
            for spec in self._pod["spec"].get(group) or ()
        ]

    @property
    def deadline(self) -> float:
        """When the processes must have ended, on the monotonic clock."""
        return self._deadline

    @property
    def claims(self) -> set[str]:
        return {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in self._pod["spec"].get("volumes") or ()
            if "persistentVolumeClaim" in volume
        }

    @property
    def sessions(self) -> set[int]:
        """The sessions of all its processes that run."""
        found = (one.session for one in (*self._inits, *self._mains))
        return {session for session in found if session is not None}

    def current(self) -> Object:
        """Return the pod as it is now, or as it was last known."""
        found = self._node.cluster.find(resources.PODS, namespace_of(self._pod), name_of(self._pod))
        if found is not None and uid_of(found) == self.uid:
            self._pod = found
        return self._pod

    def stop(self, grace_seconds: float) -> None:
        """End the pod; a shorter grace overtakes a longer one that is under way."""
        self._deadline = min(self._deadline, time.monotonic() + grace_seconds)
        self.stopping.set()
        self.poke()

    def leave(self, grace_seconds: float) -> None:
        """End the processes because the cluster stops; the pod itself stays."""
        self.is_leaving = True
        self.stop(grace_seconds)

    def poke(self) -> None:
        """Look again: something that the pod may wait for has changed."""
        self._poke.set()
        self._poke = asyncio.Event()

    def refresh(self) -> None:
        if self._folders:
            self._mounts().refresh(self.current())
        self.poke()

    def restart_changed(self, before: Object, after: Object) -> None:
        """Restart containers whose image was changed."""
        old = {one["name"]: one["image"] for one in before["spec"]["containers"]}
        for spec in after["spec"]["containers"]:
            if old.get(spec["name"]) != spec["image"]:
                why = f"Container {spec['name']} definition changed, will be restarted"
                for one in self._mains:
                    if one.name == spec["name"]:
                        one.restart(why)

    async def pause(self, seconds: float, *, until_poked: bool = False) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await (self._poke if until_poked else self.stopping).wait()

    def environment(self, spec: Mapping[str, Any]) -> dict[str, str] | None:
        """Return a container's environment, or None when its image has left the list.

        Raises:
            Unresolved: something it refers to is missing.
        """
        image = self.images.find(spec["image"])
        if image is None:
            return None
        asked = environment.build(self._node.cluster, self.current(), spec, image, self.place)
        return environment.complete(
            asked,
            spec,
            image=image,
            folders=self._folders,
            place=self.place,
            home=self.folder / "home",
            owner=self._node.owner,
        )

    @property
    def owner(self) -> Owner | None:
        return self._node.owner

    def sandbox(self, spec: Mapping[str, Any], image: Image) -> Sandbox | None:
        """Return what a container may see, or None when its image runs without a sandbox."""
        if image.readable is None:
            return None
        root = self.folder / "root"
        root.mkdir(mode=0o700, exist_ok=True)
        mounted = mounts.split(spec, self._folders)
        return Sandbox(
            root=root,
            readable=[*image.readable, *mounted.readable],
            writable=[*mounted.writable, self.folder / "home"],
            scratch=mounted.scratch,
        )

    async def run(self) -> None:
        try:
            if await self._is_placed():
                await self._run_containers()
            await self.stopping.wait()
        finally:
            self._node.addresses.give_back(self.place.address)
        if not self.is_leaving:
            await self.forget()

    async def _is_placed(self) -> bool:
        """Give the pod its node, address and volumes; False when it stops before it has them."""
        while not self.stopping.is_set():
            try:
                self._check_sole_user()
                self._schedule()
                self._take_place()
                self._folders = self._mounts().prepare(self.current())
            except (Unschedulable, Unmountable, OSError) as problem:
                self._unschedulable = str(problem) if isinstance(problem, Unschedulable) else ""
                self._report_unmountable(str(problem))
                await self.pause(MOUNT_RETRY_SECONDS, until_poked=True)
            else:
                return True
        return False

    def _check_sole_user(self) -> None:
        """Hold a pod back while another one uses its ReadWriteOncePod claim."""
        namespace = namespace_of(self._pod)
        for other in list(self._others.values()):
            shared = self.claims & other.claims
            if other is self or not shared or namespace_of(other.current()) != namespace:
                continue
            if is_finished(other.current()) or not other.has_place:
                continue
            for name in shared:
                claim = self._node.cluster.find(resources.CLAIMS, namespace, name)
                if claim and claim["spec"]["accessModes"] == ["ReadWriteOncePod"]:
                    raise Unmountable(
                        "node has pod using PersistentVolumeClaim with the same name and"
                        " ReadWriteOncePod access mode"
                    )

    @property
    def has_place(self) -> bool:
        return bool(self.place.address)

    def _schedule(self) -> None:
        if "nodeName" in self.current()["spec"]:
            return
        if refusal := self._node.scheduler.refusal(self._pod, LOCAL_NODE):
            raise Unschedulable(refusal)
        self._unschedulable = ""
        self._node.cluster.edit(
            resources.PODS,
            self._pod,
            lambda pod: {**pod, "spec": {**pod["spec"], "nodeName": LOCAL_NODE}},
        )
        whole = f"{namespace_of(self._pod)}/{name_of(self._pod)}"
        message = f"Successfully assigned {whole} to {LOCAL_NODE}"
        self.recorder.normal(self.current(), "Scheduled", message)

    def _take_place(self) -> None:
        if self.has_place:
            return
        listed = [
            port
            for container in self._pod["spec"]["containers"]
            for port in container.get("ports") or ()
        ]
        numbers = [port["containerPort"] for port in listed]
        names = {port["name"]: port["containerPort"] for port in listed if "name" in port}
        address = self._node.addresses.take(numbers)
        self.place = Place(address, self._node.addresses.real_ports(numbers), names)
        if self._node.addresses.is_shared:
            self._show_ports()
        owner = self._node.owner
        passage(self.folder)
        private_folder(self.folder / "home", owner)
        (self.folder / "logs").mkdir(mode=0o700, exist_ok=True)

    def _show_ports(self) -> None:
        """Say on the pod where its ports really are: its address alone leads to other programs."""
        shown = json.dumps(self.place.ports)
        self._node.cluster.edit(
            resources.PODS,
            self._pod,
            lambda pod: with_metadata(
                pod, annotations={**annotations_of(pod), addresses.PORTS: shown}
            ),
        )

    def _mounts(self) -> Mounts:
        node = self._node
        return Mounts(
            cluster=node.cluster, folder=self.folder, volumes=node.volumes, owner=node.owner
        )

    def _report_unmountable(self, problem: str) -> None:
        is_scheduled = "nodeName" in self.current()["spec"]
        reason = "FailedMount" if is_scheduled else "FailedScheduling"
        self.recorder.warning(self.current(), reason, problem)
        self.publish()

    async def _run_containers(self) -> None:
        self.publish()
        for init in self._inits:
            await init.run()
            if init.exit_code != 0:
                self.publish()
                return
        self._is_initialized = True
        await asyncio.gather(*(one.run() for one in self._mains))
        self.publish()

    async def forget(self) -> None:
        """Remove the pod's folder and let the object go."""
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        how = Deletion(grace_seconds=0, uid=self.uid)
        with contextlib.suppress(ApiError):
            self._node.cluster.delete(
                resources.PODS, namespace_of(self._pod), name_of(self._pod), how
            )

    def publish(self) -> None:
        """Write the pod's status as its containers make it."""
        if not self.is_leaving:
            pod = self.current()
            self._node.cluster.write_status(resources.PODS, pod, self._status(pod))

    def _status(self, pod: Object) -> dict[str, Any]:
        address = self.place.address
        old = status_of(pod)
        new = {
            "phase": self._phase(),
            "conditions": merged_conditions(old.get("conditions") or [], self._conditions(pod)),
            "hostIP": HOST_IP,
            "hostIPs": [{"ip": HOST_IP}],
            "startTime": self._started_at,
            "containerStatuses": [one.status() for one in self._mains],
        }
        if self._unschedulable:
            return {**old, "phase": "Pending", "conditions": new["conditions"]}
        if address:
            new |= {"podIP": address, "podIPs": [{"ip": address}]}
        if self._inits:
            new["initContainerStatuses"] = [one.status() for one in self._inits]
        return {**old, **new}

    def _phase(self) -> str:
        everyone = [*self._inits, *self._mains]
        failed_init = any(one.is_done and one.exit_code for one in self._inits)
        if failed_init:
            return "Failed"
        if self._mains and all(one.is_done for one in self._mains):
            is_clean = all(one.exit_code == 0 for one in self._mains)
            return "Succeeded" if is_clean else "Failed"
        was_started = any(one.was_started for one in everyone if one in self._mains)
        return "Running" if was_started else "Pending"

    def _conditions(self, pod: Object) -> Sequence[dict[str, Any]]:
        is_ready = all(one.ready for one in self._mains)
        unready = [one.name for one in self._mains if not one.ready]
        why = {
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{' '.join(unready)}]",
        }
        not_ready = {} if is_ready else why
        known: Iterable[tuple[str, bool, dict[str, str]]] = (
            ("PodReadyToStartContainers", bool(self._folders or self.has_place), {}),
            ("Initialized", self._is_initialized, {}),
            ("Ready", is_ready, not_ready),
            ("ContainersReady", is_ready, not_ready),
            ("PodScheduled", "nodeName" in pod["spec"], {}),
        )
        if self._unschedulable:
            return [unschedulable(self._unschedulable)]
        return [
            {"type": kind, "status": "True" if holds else "False", **more}
            for kind, holds, more in known
        ]


def folder_name(pod: Mapping[str, Any]) -> str:
    return f"{namespace_of(pod)}_{name_of(pod)}_{uid_of(pod)}"
