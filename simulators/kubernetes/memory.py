"""Memory limits: a container whose processes grow beyond theirs is killed, as by the kernel."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK_SECONDS = 1.0
_PROC = Path("/proc")
_AFTER_NAME = b") "
_SESSION_FIELD = 3  # of what follows the name in /proc/PID/stat


@dataclass(frozen=True)
class _Watched:
    limit_bytes: int
    kill: Callable[[int], None]


class MemoryWatch:
    """Measures the resident memory of every container that has a limit, from time to time.

    A container is known by its session, which its guardian leads.
    """

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}

    def add(self, session: int, limit_bytes: int, kill: Callable[[int], None]) -> None:
        """Call `kill` with the measured bytes once the limit is exceeded."""
        self._watched[session] = _Watched(limit_bytes, kill)

    def remove(self, session: int) -> None:
        self._watched.pop(session, None)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._watched:
                self.look()

    def look(self) -> None:
        sizes = _by_session(set(self._watched))
        for session, size in sizes.items():
            watched = self._watched.get(session)
            if watched is not None and size > watched.limit_bytes:
                self.remove(session)
                watched.kill(size)


def _by_session(wanted: set[int]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for session, pid in members(wanted):
        with contextlib.suppress(psutil.Error):
            sizes[session] = sizes.get(session, 0) + psutil.Process(pid).memory_info().rss
    return sizes


def members(wanted: set[int]) -> Iterator[tuple[int, int]]:
    """Yield session and process id of the processes in these sessions, guardians aside."""
    if sys.platform != "linux":
        for session in wanted:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(session).children(recursive=True):
                    yield session, child.pid
        return
    for entry in os.listdir(_PROC):  # noqa: PTH208 - names only: this runs every second
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = (_PROC / entry / "stat").read_bytes()
                session = int(stat.rpartition(_AFTER_NAME)[2].split()[_SESSION_FIELD])
                if session in wanted and session != int(entry):
                    yield session, int(entry)
