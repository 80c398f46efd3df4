"""The kubelet: follows the pods and keeps one runner for each that should run here."""

import asyncio
import contextlib
import os
import platform
import shutil
from collections.abc import Coroutine
from typing import Any

from simulators.kubernetes import process, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import (
    Object,
    is_finished,
    is_terminating,
    namespace_of,
    now,
    uid_of,
)
from simulators.kubernetes.pod import HOST_IP, NODE_NAME, Node, PodRunner, folder_name
from simulators.kubernetes.resources import SERVER_VERSION
from simulators.kubernetes.store import DELETED, MODIFIED, Change

LEAVING_GRACE_SECONDS = 1.5  # the whole cluster must be down three seconds after SIGTERM
_MOST_PODS = 110


class Kubelet:
    """Starts, follows and ends the pods of this machine."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._runners: dict[str, PodRunner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_leaving = False

    def start(self) -> None:
        """Clean up after a former life, then take up every pod that is known."""
        self._sweep()
        self._node.cluster.store.listen(self._on_change)
        register_node(self._node.cluster)
        for pod in self._node.cluster.store.objects(resources.PODS):
            self._take_up(pod)

    def leave(self) -> None:
        """Begin to end every process; the pods stay and are started anew in the next life."""
        self._is_leaving = True
        for runner in self._runners.values():
            runner.leave(LEAVING_GRACE_SECONDS)

    async def close(self) -> None:
        self.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVING_GRACE_SECONDS * 2)

    def _sweep(self) -> None:
        known = {folder_name(pod) for pod in self._node.cluster.store.objects(resources.PODS)}
        process.end_leftovers(list(self._node.pods.glob("*/*.process")))
        for folder in self._node.pods.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def _on_change(self, change: Change) -> None:
        if self._is_leaving:
            return
        if change.resource is resources.PODS:
            self._follow_pod(change)
        elif change.resource in (resources.SECRETS, resources.CONFIG_MAPS):
            self._in_namespace(namespace_of(change.obj), "refresh")
        elif change.resource in (resources.CLAIMS, resources.VOLUMES):
            self._in_namespace(namespace_of(change.obj), "poke")

    def _in_namespace(self, namespace: str, what: str) -> None:
        for runner in self._runners.values():
            if namespace in {"", namespace_of(runner.current())}:
                runner.refresh() if what == "refresh" else runner.poke()

    def _follow_pod(self, change: Change) -> None:
        runner = self._runners.get(uid_of(change.obj))
        if change.kind == DELETED:
            if runner is not None:
                runner.stop(0)
            else:
                self._spawn(self._remove_folder(change.obj))
            self._in_namespace(namespace_of(change.obj), "poke")
        elif runner is None:
            self._take_up(change.obj)
        elif is_terminating(change.obj):
            runner.stop(change.obj["metadata"]["deletionGracePeriodSeconds"])
        elif change.kind == MODIFIED and change.before is not None:
            runner.restart_changed(change.before, change.obj)

    def _take_up(self, pod: Object) -> None:
        if pod["spec"].get("nodeName", NODE_NAME) != NODE_NAME:
            return
        runner = PodRunner(self._node, pod, self._runners)
        if is_terminating(pod):
            runner.stop(0)
            self._spawn(runner.forget())
        elif not is_finished(pod):
            self._runners[uid_of(pod)] = runner
            self._spawn(self._run(runner))

    async def _remove_folder(self, pod: Object) -> None:
        folder = self._node.pods / folder_name(pod)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _run(self, runner: PodRunner) -> None:
        try:
            await runner.run()
        finally:
            self._runners.pop(runner.uid, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def register_node(cluster: Cluster) -> None:
    """Announce this machine as the cluster's only node."""
    node = cluster.find(resources.NODES, "", NODE_NAME)
    if node is None:
        labels = {
            "kubernetes.io/hostname": NODE_NAME,
            "kubernetes.io/os": platform.system().lower(),
            "kubernetes.io/arch": platform.machine(),
            "node-role.kubernetes.io/control-plane": "",
        }
        with contextlib.suppress(ApiError):
            node = cluster.create(
                resources.NODES, "", {"metadata": {"name": NODE_NAME, "labels": labels}}
            )
    if node is not None:
        cluster.write_status(resources.NODES, node, _node_status())


def _node_status() -> dict[str, Any]:
    stamp = now()
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": _memory(), "pods": str(_MOST_PODS)}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
        "lastHeartbeatTime": stamp,
        "lastTransitionTime": stamp,
    }
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [ready],
        "addresses": [
            {"type": "InternalIP", "address": HOST_IP},
            {"type": "Hostname", "address": NODE_NAME},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "architecture": platform.machine(),
            "bootID": "",
            "containerRuntimeVersion": "process://1",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": f"{SERVER_VERSION}+simulator",
            "machineID": "",
            "operatingSystem": platform.system().lower(),
            "osImage": f"{platform.system()} {platform.release()}",
            "systemUUID": "",
        },
    }


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size // 1024}Ki"
