"""One container's process: behind a guardian, so that it dies when we do, even by SIGKILL."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import simulators
from simulators.kubernetes.folders import Owner

SANDBOX = Path(__file__).parent / "sandbox.py"
GUARDIAN = Path(simulators.__file__ or "").parent / "guardian.py"
CLOCK_TICK_SECONDS = 0.01  # the unit in which the system says when a process began
KILL_SLACK_SECONDS = 2.0  # we kill when a grace ends; the guardian only if we did not


class Lifeline:
    """The pipe whose end-of-file tells every guardian that this process is gone."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()

    def close(self) -> None:
        os.close(self._writer)
        os.close(self.reader)


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What a command may see of this machine; `root` is an empty folder to build it upon."""

    root: Path
    readable: Sequence[Path]
    writable: Sequence[Path]
    scratch: Path | None = None

    def words(self, user: Owner | None) -> list[str]:
        found = [sys.executable, "-I", "-S", str(SANDBOX), "--root", str(self.root)]
        for option, folders in (("--readable", self.readable), ("--writable", self.writable)):
            found += [word for folder in folders for word in (option, str(folder))]
        if self.scratch is not None:
            found += ["--scratch", str(self.scratch)]
        return [*found, *_as(user), "--"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """What to run, and where. The record lets the next life find what this one left behind.

    With `user` the command runs as that user from its first instruction on.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    log: Path
    record: Path
    grace_seconds: float
    user: Owner | None = None
    sandbox: Sandbox | None = None

    @property
    def words(self) -> list[str]:
        """The command behind its guardian and, if it has one, inside its sandbox."""
        grace = self.grace_seconds + KILL_SLACK_SECONDS
        guarded = [sys.executable, "-I", "-S", str(GUARDIAN), "--grace", str(grace)]
        if self.sandbox is None:
            return [*guarded, *_as(self.user), "--", *self.command]
        return [*guarded, "--", *self.sandbox.words(self.user), *self.command]


@dataclass
class Process:
    """A started process with its guardian and their process group."""

    _guardian: asyncio.subprocess.Process
    _record: Path
    started_at: float = field(default_factory=time.monotonic)

    @property
    def session(self) -> int:
        """The session that the container's processes belong to; its guardian leads it."""
        return self._guardian.pid

    @property
    def is_running(self) -> bool:
        return self._guardian.returncode is None

    async def wait(self) -> int:
        """Return the exit code as Kubernetes reports it: 128 + N when signal N ended it."""
        code = await self._guardian.wait()
        self._record.unlink(missing_ok=True)
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._guardian.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.is_running:
            _kill_group(self._guardian.pid)


async def start(lifeline: Lifeline, how: Start) -> Process:
    """Start the command in a group of its own, with exactly this environment.

    Raises:
        OSError: it cannot be started.
    """
    output = os.open(how.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        guardian = await asyncio.create_subprocess_exec(
            *how.words,
            stdin=lifeline.reader,
            stdout=output,
            stderr=output,
            cwd=how.folder,
            env=dict(how.env),
            start_new_session=True,
        )
    finally:
        os.close(output)
    with contextlib.suppress(psutil.NoSuchProcess):
        created_at = psutil.Process(guardian.pid).create_time()
        how.record.write_text(f"{guardian.pid} {created_at}", encoding="ascii")
    return Process(guardian, how.record)


def end_leftovers(records: Sequence[Path]) -> None:
    """Kill what a former life of the cluster left running, so that no volume has two users.

    A record names a process and when it began: another process that got the same id is left alone.
    """
    for record in records:
        text = record.read_text(encoding="ascii").split()
        with contextlib.suppress(psutil.Error, ValueError):
            pid, created_at = int(text[0]), float(text[1])
            if abs(psutil.Process(pid).create_time() - created_at) < CLOCK_TICK_SECONDS:
                _kill_group(pid)
        record.unlink(missing_ok=True)


def _as(user: Owner | None) -> list[str]:
    return [] if user is None else ["--user", str(user.uid), "--group", str(user.gid)]


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
