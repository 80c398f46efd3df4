"""Who runs in a state folder: one lock, a state that others read, and how to end it."""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from openclaw_web.core.errors import OpenClawError
from openclaw_web.local.places import SECRET_FILE, write_secret

LOCK = "supervisor.lock"
STATE = "state.json"
STOP_SECONDS = 30.0
LEFTOVER_SECONDS = 12.0
LOCK_SECONDS = 0.5
POLL_SECONDS = 0.1


class AlreadyRunningError(OpenClawError):
    """Another supervisor owns the state folder."""

    def __init__(self, home: Path, state: dict[str, Any]) -> None:
        url = state.get("url", "an address that it has not told yet")
        super().__init__(
            f"OpenClaw Cloud is already running at {url} (in {home}); `make stop` ends it."
        )


class StopError(OpenClawError):
    """The stack did not end in time."""


@contextlib.contextmanager
def own(home: Path) -> Generator[None]:
    """Be the one supervisor of this state folder; the lock goes with the process, however it ends.

    Raises:
        AlreadyRunningError: somebody else is.
    """
    file = _open_lock(home)
    try:
        if not _locked(file):
            raise AlreadyRunningError(home, read_state(home))
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)
    finally:
        file.close()


def running_pid(home: Path) -> int | None:
    """Return the process id of the supervisor, or `None` when none runs."""
    try:
        file = (home / LOCK).open("r+", encoding="utf-8")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return int(file.read().strip() or 0) or None
        return None


def write_state(home: Path, state: dict[str, Any]) -> None:
    write_secret(home / STATE, json.dumps(state, indent=1))


def read_state(home: Path) -> dict[str, Any]:
    try:
        return json.loads((home / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def forget_state(home: Path) -> None:
    (home / STATE).unlink(missing_ok=True)


def stop(home: Path, *, timeout_seconds: float = STOP_SECONDS) -> bool:
    """End the running stack and wait for it; return whether one ran.

    Raises:
        StopError: it still runs after the time.
    """
    pid = running_pid(home)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_seconds
    while running_pid(home) is not None:
        if time.monotonic() > deadline:
            raise StopError(
                f"The supervisor (process {pid}) did not end within {timeout_seconds:.0f} s; "
                f"end it with: kill -9 {pid}"
            )
        time.sleep(POLL_SECONDS)
    return True


def wait_for_leftovers(home: Path) -> None:
    """Wait until the guardians of a killed supervisor have ended their services."""
    groups = [one["pid"] for one in read_state(home).get("services", []) if one.get("pid")]
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while any(_group_lives(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    forget_state(home)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _locked(file: IO[str]) -> bool:
    """Take the lock; try for a moment, since a `status` elsewhere holds it for an instant too."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True


def _open_lock(home: Path) -> IO[str]:
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, SECRET_FILE)
    return os.fdopen(descriptor, "r+", encoding="utf-8")
