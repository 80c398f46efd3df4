"""`kubectl logs`: what a container wrote, now and as it goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from simulators.kubernetes import errors, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.container import log_path
from simulators.kubernetes.log_times import LogTimes
from simulators.kubernetes.objects import Object, name_of, namespace_of, status_of, uid_of
from simulators.kubernetes.pod import folder_name

LONGEST_BYTES = 10 * 1024 * 1024  # the real kubelet starts a new file here
KEPT_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_POLL_SECONDS = 0.2
_TRIM_SECONDS = 30.0
_TRUE = frozenset({"true", "1"})


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A part of one log, and how it is to be shown."""

    path: Path
    start: int
    limit: int
    has_times: bool


class LogFiles:
    """Finds and reads the log files below the pods' folder."""

    def __init__(self, cluster: Cluster, pods: Path, times: LogTimes) -> None:
        self._cluster = cluster
        self._pods = pods
        self._times = times

    def read(self, pod: Object, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Return a container's output as the query parameters ask for it.

        Raises:
            ApiError: 400, no such container, it has not started, or an option is not offered.
        """
        status = self._status(pod, options.get("container", ""))
        is_previous = options.get("previous") in _TRUE
        path = self._path(pod, status, is_previous=is_previous)
        wanted = _Wanted(
            path=path,
            start=max(_start(path, options.get("tailLines")), self._since(path, options)),
            limit=_number("limitBytes", options.get("limitBytes") or "0"),
            has_times=options.get("timestamps") in _TRUE,
        )
        is_followed = options.get("follow") in _TRUE and not is_previous
        if is_followed:
            chunks = self._follow(pod, status, path, wanted.start)
        else:
            chunks = _read(path, wanted.start)
        if wanted.has_times:
            chunks = self._stamped(chunks, wanted)
        return _limited(chunks, wanted.limit) if wanted.limit else chunks

    def _since(self, path: Path, options: Mapping[str, str]) -> int:
        """Return the offset that sinceSeconds or sinceTime means."""
        seconds, stamp = options.get("sinceSeconds"), options.get("sinceTime")
        if seconds and stamp:
            raise errors.bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified"
            )
        if seconds:
            moment = datetime.now(UTC) - timedelta(seconds=_number("sinceSeconds", seconds))
            return self._times.offset_at(path, moment)
        if stamp:
            try:
                return self._times.offset_at(path, datetime.fromisoformat(stamp))
            except ValueError as error:
                raise errors.bad_request(f"sinceTime: {error}") from error
        return 0

    async def _stamped(self, chunks: AsyncIterator[bytes], wanted: _Wanted) -> AsyncIterator[bytes]:
        """Put before each line when it was written."""
        position, rest = wanted.start, b""
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                position += len(line) + 1
                yield self._stamp(wanted.path, position) + line + b"\n"
        if rest:
            yield self._stamp(wanted.path, position + len(rest)) + rest

    def _stamp(self, path: Path, offset: int) -> bytes:
        moment = self._times.written_at(path, offset)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z ".encode()

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
                    if removed := trim(path):
                        self._times.shortened(path, removed)

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


async def _read(path: Path, start: int) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


async def _limited(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    left = limit
    async for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


def _number(name: str, text: str) -> int:
    if not text.isdigit():
        raise errors.bad_request(f'{name}: Invalid value: "{text}": must be a whole number')
    return int(text)


def trim(path: Path) -> int:
    """Cut a log that has grown too long to its last part; return how many bytes went.

    The process appends to the same file; what it writes in this very moment may be lost.
    """
    if path.stat().st_size <= LONGEST_BYTES:
        return 0
    with path.open("r+b") as file:
        file.seek(-KEPT_BYTES, 2)
        tail = file.read()
        kept = tail.partition(b"\n")[2]
        removed = file.tell() - len(kept)
        file.seek(0)
        file.write(kept)
        file.truncate()
    return removed


def _start(path: Path, tail_lines: str | None) -> int:
    """Return the offset of the last lines, read backwards so that a large log costs little."""
    if not tail_lines:
        return 0
    wanted = _number("tailLines", tail_lines)
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
