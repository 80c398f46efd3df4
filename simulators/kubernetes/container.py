"""One container of a pod: start it, probe it, restart it, and know its state."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from simulators.kubernetes import environment, log_times, probes, process, quantities
from simulators.kubernetes.folders import Owner
from simulators.kubernetes.images import Image, Images
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.log_times import LogTimes
from simulators.kubernetes.memory import MemoryWatch
from simulators.kubernetes.objects import Object, name_of, namespace_of, now, uid_of
from simulators.kubernetes.probes import Place
from simulators.kubernetes.process import Process, Sandbox, Start
from simulators.kubernetes.recorder import Recorder

KILLED_EXIT = 137  # 128 + SIGKILL
CONFIG_RETRY_SECONDS = 10.0
_TICK_SECONDS = 0.2
UNKNOWN_EXIT = 255  # what the kubelet reports for a container that it lost sight of


class Surroundings(Protocol):
    """What a container needs from its pod."""

    images: Images
    recorder: Recorder
    lifeline: process.Lifeline
    knobs: Knobs
    memory: MemoryWatch
    times: LogTimes
    stopping: asyncio.Event
    folder: Path
    is_leaving: bool

    @property
    def place(self) -> Place: ...
    @property
    def deadline(self) -> float: ...
    def current(self) -> Object: ...
    @property
    def owner(self) -> Owner | None: ...
    def environment(self, spec: Mapping[str, Any]) -> dict[str, str] | None: ...
    def sandbox(self, spec: Mapping[str, Any], image: Image) -> Sandbox | None: ...
    def publish(self) -> None: ...
    async def pause(self, seconds: float, *, until_poked: bool = False) -> None: ...


class Container:
    """Runs one container until its pod stops, or until it is done."""

    def __init__(
        self, pod: Surroundings, spec: Mapping[str, Any], before: Mapping[str, Any], *, group: str
    ) -> None:
        self._pod = pod
        self.name: str = spec["name"]
        self._group = group
        self._back_off = 0.0  # the first restart is at once
        self._outgrew = False
        self._must_end = asyncio.Event()
        self._process: Process | None = None
        self.restart_count: int = before.get("restartCount", 0)
        self.ready = False
        self.started = False
        self.is_done = False
        self.state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: dict[str, Any] = before.get("lastState") or {}
        self._take_up(before)

    def _take_up(self, before: Mapping[str, Any]) -> None:
        """Continue the count of a container that ran in this cluster's former life."""
        running = (before.get("state") or {}).get("running")
        self._has_run = bool(running or self.last_state)
        if running:
            self.last_state = {
                "terminated": {
                    "exitCode": UNKNOWN_EXIT,
                    "reason": "Unknown",
                    "startedAt": running["startedAt"],
                    "finishedAt": now(),
                }
            }

    @property
    def spec(self) -> dict[str, Any]:
        containers = self._pod.current()["spec"][self._group]
        return next(one for one in containers if one["name"] == self.name)

    @property
    def exit_code(self) -> int | None:
        ended = self.state.get("terminated")
        return ended["exitCode"] if ended else None

    @property
    def was_started(self) -> bool:
        return self._process is not None

    @property
    def _part(self) -> str:
        return f"spec.{self._group}{{{self.name}}}"

    @property
    def session(self) -> int | None:
        is_running = self._process is not None and self._process.is_running
        return self._process.session if self._process is not None and is_running else None

    def restart(self, why: str) -> None:
        """End the process so that it starts again."""
        if self._process is not None and self._process.is_running:
            self._pod.recorder.normal(self._pod.current(), "Killing", why, self._part)
            self._must_end.set()

    async def run(self) -> None:
        while not self._pod.stopping.is_set():
            running = await self._started_process()
            if running is None:
                return
            code = await self._attend(running)
            self._note_end(running, code)
            if self._pod.stopping.is_set() or not self._is_restarted(code):
                self.is_done = True
                self._pod.publish()
                return
            await self._wait_before_restart()

    def _is_restarted(self, code: int) -> bool:
        policy = self._pod.current()["spec"]["restartPolicy"]
        if self._group == "initContainers":
            return code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _started_process(self) -> Process | None:
        """Try until the process runs; None when the pod stops first."""
        pause = self._pod.knobs.first_back_off_seconds
        while not self._pod.stopping.is_set():
            spec = self.spec
            if self._pod.images.find(spec["image"]) is None:
                self._lacks_image(spec["image"])
                await self._pod.pause(pause)
                pause = min(pause * 2, self._pod.knobs.longest_back_off_seconds)
                continue
            started = await self._try_to_start(spec)
            if started is not None:
                return started
            await self._pod.pause(CONFIG_RETRY_SECONDS, until_poked=True)
        return None

    def _lacks_image(self, image: str) -> None:
        pod, recorder = self._pod.current(), self._pod.recorder
        known = ", ".join(self._pod.images.names()) or "none"
        problem = (
            f'image "{image}" is not on the list of this development cluster (it has: {known})'
        )
        waiting = self.state.get("waiting") or {}
        if waiting.get("reason") not in {"ErrImagePull", "ImagePullBackOff"}:
            recorder.warning(
                pod, "Failed", f'Failed to pull image "{image}": {problem}', self._part
            )
            recorder.warning(pod, "Failed", "Error: ErrImagePull", self._part)
            self._wait("ErrImagePull", problem)
            return
        message = f'Back-off pulling image "{image}"'
        recorder.normal(pod, "BackOff", message, self._part)
        self._wait("ImagePullBackOff", f"{message}: {problem}")

    async def _try_to_start(self, spec: Mapping[str, Any]) -> Process | None:
        pod, recorder = self._pod.current(), self._pod.recorder
        image = self._pod.images.find(spec["image"])
        try:
            env = self._pod.environment(spec)
        except environment.Unresolved as problem:
            recorder.warning(pod, "Failed", f"Error: {problem}", self._part)
            self._wait("CreateContainerConfigError", str(problem))
            return None
        if env is None or image is None:
            return None
        count = self.restart_count + (1 if self._has_run else 0)
        try:
            started = await process.start(self._pod.lifeline, self._how(image, env, count))
        except OSError as error:
            recorder.warning(pod, "Failed", f"Error: {error}", self._part)
            self._wait("RunContainerError", str(error))
            return None
        self.restart_count, self._has_run = count, True
        self._note_start(started, spec)
        return started

    def _how(self, image: Image, env: dict[str, str], count: int) -> Start:
        """Say what to run.

        Raises:
            OSError: the spec asks for a command that is not on the image's list.
        """
        grace = self._pod.current()["spec"]["terminationGracePeriodSeconds"]
        is_init = self._group == "initContainers"
        command = image.asked_by_init(self.spec) if is_init else image.command
        is_own = command == image.command and not image.as_pod_user
        log_times.forget(self._log_path(count - 2))
        return Start(
            command=command,
            user=None if is_own else self._pod.owner,
            sandbox=self._pod.sandbox(self.spec, image),
            env=env,
            folder=self._pod.folder / "home",
            log=self._log_path(count),
            record=self._pod.folder / f"{self.name}.process",
            grace_seconds=grace,
        )

    def _log_path(self, count: int) -> Path:
        return log_path(self._pod.folder, self.name, count)

    def _note_start(self, started: Process, spec: Mapping[str, Any]) -> None:
        self._process = started
        self._outgrew = False
        self._must_end.clear()
        self._pod.times.follow(self._log_path(self.restart_count))
        self._limit_memory(started, spec)
        self.started = "startupProbe" not in spec
        self.ready = self.started and "readinessProbe" not in spec
        self.state = {"running": {"startedAt": now()}}
        self._pod.publish()
        pod, recorder = self._pod.current(), self._pod.recorder
        present = f'Container image "{spec["image"]}" already present on machine'
        recorder.normal(pod, "Pulled", present, self._part)
        recorder.normal(pod, "Started", f"Started container {self.name}", self._part)
        if skipped := environment.ignored(spec):
            message = (
                f"Keys {skipped} of the environment are taken from images only and were skipped"
            )
            recorder.warning(pod, "InvalidEnvironmentVariableNames", message, self._part)

    def _limit_memory(self, started: Process, spec: Mapping[str, Any]) -> None:
        limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        if limit is None:
            return

        def outgrown(_: int) -> None:
            self._outgrew = True
            started.kill()

        self._pod.memory.add(started.session, int(quantities.parse(limit)), outgrown)

    async def _attend(self, running: Process) -> int:
        """Probe the process until it ends by itself, fails its probes, or the pod stops."""
        exited = asyncio.ensure_future(running.wait())
        watchers = [
            asyncio.ensure_future(self._pod.stopping.wait()),
            asyncio.ensure_future(self._must_end.wait()),
        ]
        prober = asyncio.ensure_future(self._probe(self.spec))
        try:
            await asyncio.wait({exited, *watchers}, return_when=asyncio.FIRST_COMPLETED)
            for each in (*watchers, prober):
                each.cancel()
            if not exited.done():
                await self._end(running, exited)
        finally:
            for each in (*watchers, prober):
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await each
        return await exited

    async def _end(self, running: Process, exited: asyncio.Future[int]) -> None:
        """Ask the process to end; kill it when its grace (which may be cut short) is over."""
        self.ready = False
        self._pod.publish()
        spec = self.spec
        pod_grace = self._pod.current()["spec"]["terminationGracePeriodSeconds"]
        liveness = spec.get("livenessProbe") or {}
        own_deadline = time.monotonic() + liveness.get("terminationGracePeriodSeconds", pod_grace)
        if not self._must_end.is_set() and not self._pod.is_leaving:
            message = f"Stopping container {self.name}"
            self._pod.recorder.normal(self._pod.current(), "Killing", message, self._part)
        running.terminate()
        while not exited.done():
            left = min(own_deadline, self._pod.deadline) - time.monotonic()
            if left <= 0:
                running.kill()
            await asyncio.wait({exited}, timeout=max(0.01, min(left, _TICK_SECONDS)))

    def _note_end(self, ended: Process, code: int) -> None:
        self.ready = self.started = False
        self._pod.memory.remove(ended.session)
        self._pod.times.leave(self._log_path(self.restart_count))
        is_oom = self._outgrew and code == KILLED_EXIT
        reason = "OOMKilled" if is_oom else "Error"
        began = (self.state.get("running") or {}).get("startedAt", now())
        self.state = {
            "terminated": {
                "exitCode": code,
                "reason": "Completed" if code == 0 else reason,
                "startedAt": began,
                "finishedAt": now(),
                "containerID": self.identity,
            }
        }
        if time.monotonic() - ended.started_at > self._pod.knobs.forgiven_after_seconds:
            self._back_off = 0.0

    async def _wait_before_restart(self) -> None:
        """Wait ever longer, but not before the first restart: as the real kubelet."""
        knobs = self._pod.knobs
        self.last_state = self.state
        pause = self._back_off
        self._back_off = max(knobs.first_back_off_seconds, 2 * pause)
        self._back_off = min(self._back_off, knobs.longest_back_off_seconds)
        if not pause:
            return
        pod = self._pod.current()
        whole = f"{name_of(pod)}_{namespace_of(pod)}({uid_of(pod)})"
        told = f"restarting failed container={self.name} pod={whole}"
        text = f"Back-off restarting failed container {self.name} in pod {whole}"
        self._pod.recorder.warning(pod, "BackOff", text, self._part)
        self._wait("CrashLoopBackOff", f"back-off {_duration(pause)} {told}")
        await self._pod.pause(pause)

    def _wait(self, reason: str, message: str) -> None:
        self.state = {"waiting": {"reason": reason, "message": message}}
        self._pod.publish()

    async def _probe(self, spec: Mapping[str, Any]) -> None:
        place = self._pod.place
        if "startupProbe" in spec:
            reactions = self._reactions("Startup", self._pass_startup, self._fail_startup)
            await probes.watch(spec["startupProbe"], place, reactions, until_passed=True)
            if not self.started:
                return
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in spec:
                reactions = self._reactions("Readiness", self._become_ready, self._become_unready)
                watching = probes.watch(
                    spec["readinessProbe"], place, reactions, until_passed=False
                )
                group.create_task(watching)
            if "livenessProbe" in spec:
                reactions = self._reactions("Liveness", _nothing, self._fail_liveness)
                watching = probes.watch(spec["livenessProbe"], place, reactions, until_passed=False)
                group.create_task(watching)

    def _reactions(self, kind: str, passed: Any, failed: Any) -> probes.Reactions:
        def failing(problem: str) -> None:
            message = f"{kind} probe failed: {problem}"
            self._pod.recorder.warning(self._pod.current(), "Unhealthy", message, self._part)

        return probes.Reactions(passed=passed, failing=failing, failed=failed)

    def _pass_startup(self) -> None:
        self.started = True
        self.ready = "readinessProbe" not in self.spec
        self._pod.publish()

    def _become_ready(self) -> None:
        self.ready = True
        self._pod.publish()

    def _become_unready(self, _: str) -> None:
        if self.ready:
            self.ready = False
            self._pod.publish()

    def _fail_startup(self, _: str) -> None:
        self.restart(f"Container {self.name} failed startup probe, will be restarted")

    def _fail_liveness(self, _: str) -> None:
        self.restart(f"Container {self.name} failed liveness probe, will be restarted")

    @property
    def identity(self) -> str:
        return f"process://{uid_of(self._pod.current())}/{self.name}/{self.restart_count}"

    def status(self) -> dict[str, Any]:
        spec = self.spec
        made = {
            "name": self.name,
            "image": spec["image"],
            "imageID": f"list://{spec['image']}" if self.was_started else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restart_count,
            "state": self.state,
            "lastState": self.last_state,
        }
        return made | ({"containerID": self.identity} if self.was_started else {})


def _nothing() -> None:
    """A liveness probe that passes changes nothing."""


def _duration(seconds: float) -> str:
    """Write a duration as Go does: 500ms, 10s, 1m20s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:g}m{rest:g}s" if minutes else f"{rest:g}s"


def log_path(folder: Path, container: str, count: int) -> Path:
    return folder / "logs" / f"{container}.{count}.log"
