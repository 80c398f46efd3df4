"""The kubelet: follows the pods and keeps one runner for each that should run here."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Coroutine, Generator
from typing import Any

from simulators.kubernetes import nodes, process, resources
from simulators.kubernetes.memory import members
from simulators.kubernetes.objects import (
    Object,
    annotations_of,
    is_finished,
    is_terminating,
    labels_of,
    namespace_of,
    uid_of,
)
from simulators.kubernetes.pod import Node, PodRunner, folder_name
from simulators.kubernetes.scheduler import LOCAL_NODE
from simulators.kubernetes.store import DELETED, MODIFIED, Change

LEAVING_GRACE_SECONDS = 1.5  # the whole cluster must be down three seconds after SIGTERM


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
        nodes.register(self._node.cluster, self._node.knobs)
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
            self._spread(namespace_of(change.obj))
        elif change.resource in (resources.CLAIMS, resources.VOLUMES):
            self._in_namespace(namespace_of(change.obj), "poke")

    def _in_namespace(self, namespace: str, what: str) -> None:
        for runner in self._runners.values():
            if namespace in {"", namespace_of(runner.current())}:
                runner.refresh() if what == "refresh" else runner.poke()

    def _spread(self, namespace: str) -> None:
        """Bring changed contents to mounted files, as late as the settings say."""
        delay = self._node.knobs.now.secret_delay_seconds
        if delay:
            self._in_namespace(namespace, "poke")  # who lacks something may look at once
            loop = asyncio.get_running_loop()
            loop.call_later(delay, self._in_namespace, namespace, "refresh")
        else:
            self._in_namespace(namespace, "refresh")

    def look_again(self) -> None:
        """Take up changed settings: another capacity may have room for those who wait."""
        nodes.register(self._node.cluster, self._node.knobs)
        self._poke_waiting()

    @contextlib.contextmanager
    def frozen(self, namespace: str, claim: str) -> Generator[None]:
        """Let every process that has this claim mounted stand still for a moment."""
        sessions = {
            session
            for runner in self._runners.values()
            if namespace_of(runner.current()) == namespace and claim in runner.claims
            for session in runner.sessions
        }
        stopped = [pid for _, pid in members(sessions)] if sessions else []
        _signal(stopped, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(stopped, signal.SIGCONT)

    def _poke_waiting(self) -> None:
        for runner in list(self._runners.values()):
            if not runner.has_place:
                runner.poke()

    def _follow_pod(self, change: Change) -> None:
        runner = self._runners.get(uid_of(change.obj))
        if change.kind == DELETED:
            if runner is not None:
                runner.stop(0)
            else:
                self._spawn(self._remove_folder(change.obj))
            self._in_namespace(namespace_of(change.obj), "poke")
            self._poke_waiting()
        elif runner is None:
            self._take_up(change.obj)
        elif is_terminating(change.obj):
            runner.stop(change.obj["metadata"]["deletionGracePeriodSeconds"])
        elif change.kind == MODIFIED and change.before is not None:
            runner.restart_changed(change.before, change.obj)
            if _notes(change.before) != _notes(change.obj):
                runner.refresh()  # a real kubelet, too, syncs the pod at once

    def _take_up(self, pod: Object) -> None:
        elsewhere = pod["spec"].get("nodeName", LOCAL_NODE) != LOCAL_NODE
        if elsewhere or self._node.is_record(pod):
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


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _notes(pod: Object) -> tuple[dict[str, str], dict[str, str]]:
    return annotations_of(pod), labels_of(pod)
