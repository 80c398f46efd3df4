"""`kubectl logs`: what a container wrote, now and as it goes on.

Output goes from the process straight to a file, without times: `timestamps` and `since` are
refused.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from simulators.kubernetes import errors, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.container import log_path
from simulators.kubernetes.objects import Object, name_of, namespace_of, status_of, uid_of
from simulators.kubernetes.pod import folder_name

LONGEST_BYTES = 10 * 1024 * 1024  # the real kubelet starts a new file here
KEPT_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_POLL_SECONDS = 0.2
_TRIM_SECONDS = 30.0
_NOT_OFFERED = ("timestamps", "sinceSeconds", "sinceTime")


class LogFiles:
    """Finds and reads the log files below the pods' folder."""

    def __init__(self, cluster: Cluster, pods: Path) -> None:
        self._cluster = cluster
        self._pods = pods

    def read(self, pod: Object, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Return a container's output as the query parameters ask for it.

        Raises:
            ApiError: 400, no such container, it has not started, or an option is not offered.
        """
        for option in _NOT_OFFERED:
            if options.get(option) not in {None, "", "false"}:
                raise errors.bad_request(
                    f"{option} is not offered by this development cluster: its logs carry no times"
                )
        status = self._status(pod, options.get("container", ""))
        is_previous = options.get("previous") in {"true", "1"}
        path = self._path(pod, status, is_previous=is_previous)
        start = _start(path, options.get("tailLines"))
        limit = int(options.get("limitBytes") or 0)
        if options.get("follow") in {"true", "1"} and not is_previous:
            return self._follow(pod, status, path, start)
        return _read(path, start, limit)

    def tail(self, pod: Object, lines: int) -> str:
        """Return the last lines of a pod's first container, for the page."""
        found = status_of(pod).get("containerStatuses") or []
        if not found:
            return ""
        path = log_path(self._pods / folder_name(pod), found[0]["name"], found[0]["restartCount"])
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(_start(path, str(lines)))
            return file.read(_CHUNK_BYTES).decode(errors="replace")

    async def keep_short(self) -> None:
        """Trim long logs from time to time, until cancelled."""
        while True:
            await asyncio.sleep(_TRIM_SECONDS)
            for path in list(self._pods.glob("*/logs/*.log")):
                with contextlib.suppress(OSError):  # its pod went away meanwhile
                    trim(path)

    def _status(self, pod: Object, container: str) -> dict[str, object]:
        specs = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
        names = [one["name"] for one in specs]
        mains = [one["name"] for one in pod["spec"]["containers"]]
        if not container and len(mains) > 1:
            listed = " ".join(mains)
            raise errors.bad_request(
                f"a container name must be specified for pod {name_of(pod)}, choose one of:"
                f" [{listed}]"
            )
        container = container or mains[0]
        if container not in names:
            raise errors.bad_request(f"container {container} is not valid for pod {name_of(pod)}")
        status = status_of(pod)
        every = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
        found = next((one for one in every if one["name"] == container), None)
        return found or {"name": container, "restartCount": 0, "state": {}}

    def _path(self, pod: Object, status: Mapping[str, object], *, is_previous: bool) -> Path:
        name, count = str(status["name"]), int(str(status["restartCount"]))
        folder = self._pods / folder_name(pod)
        path = log_path(folder, name, count - 1 if is_previous else count)
        if path.exists():
            return path
        if is_previous:
            raise errors.bad_request(
                f'previous terminated container "{name}" in pod "{name_of(pod)}" not found'
            )
        state = status["state"] if isinstance(status["state"], dict) else {}
        reason = (state.get("waiting") or {}).get("reason", "ContainerCreating")
        raise errors.bad_request(
            f'container "{name}" in pod "{name_of(pod)}" is waiting to start: {reason}'
        )

    async def _follow(
        self, pod: Object, status: Mapping[str, object], path: Path, start: int
    ) -> AsyncIterator[bytes]:
        """Yield what is there and what comes, until the container has ended."""
        with path.open("rb") as file:
            file.seek(start)
            is_over = False
            while True:
                chunk = file.read(_CHUNK_BYTES)
                if chunk:
                    yield chunk
                elif is_over:
                    return
                else:
                    is_over = self._has_ended(pod, status)
                    await asyncio.sleep(0 if is_over else _POLL_SECONDS)

    def _has_ended(self, pod: Object, status: Mapping[str, object]) -> bool:
        now = self._cluster.find(resources.PODS, namespace_of(pod), name_of(pod))
        if now is None or uid_of(now) != uid_of(pod) or self._cluster.store.is_closing:
            return True
        current = self._status(now, str(status["name"]))
        state = current["state"] if isinstance(current["state"], dict) else {}
        return "running" not in state or current["restartCount"] != status["restartCount"]


async def _read(path: Path, start: int, limit: int) -> AsyncIterator[bytes]:
    left = limit
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(min(_CHUNK_BYTES, left) if limit else _CHUNK_BYTES):
            yield chunk
            left -= len(chunk)
            if limit and left <= 0:
                return


def trim(path: Path) -> None:
    """Cut a log that has grown too long to its last part.

    The process appends to the same file; what it writes in this very moment may be lost.
    """
    if path.stat().st_size <= LONGEST_BYTES:
        return
    with path.open("r+b") as file:
        file.seek(-KEPT_BYTES, 2)
        kept = file.read().partition(b"\n")[2]
        file.seek(0)
        file.write(kept)
        file.truncate()


def _start(path: Path, tail_lines: str | None) -> int:
    """Return the offset of the last lines, read backwards so that a large log costs little."""
    if not tail_lines:
        return 0
    wanted = int(tail_lines)
    size = path.stat().st_size
    if wanted <= 0:
        return size
    position, tail = size, b""
    with path.open("rb") as file:
        while position and tail.rstrip(b"\n").count(b"\n") < wanted:
            step = min(_CHUNK_BYTES, position)
            position -= step
            file.seek(position)
            tail = file.read(step) + tail
    lines = tail.splitlines(keepends=True)[-wanted:]
    return size - sum(len(line) for line in lines)
