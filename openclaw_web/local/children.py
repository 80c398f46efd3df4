"""Start processes that cannot outlive us: each behind a guardian that holds a pipe of ours."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openclaw_web.local.places import PROJECT, Identity

GUARDIAN = PROJECT / "simulators" / "guardian.py"
GRACE_SECONDS = 5.0
PRIVATE_FILES = 0o077  # the umask: what a child writes is its own, whatever our shell says


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run and how to end it: `stop_signal` first, SIGKILL after the grace."""

    words: Sequence[str]
    environment: Mapping[str, str] | None = None
    identity: Identity | None = None
    stop_signal: str = "TERM"
    grace_seconds: float = GRACE_SECONDS


class Child:
    """A guarded process. Its process id is the guardian's, which is also its process group's."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return the exit code once it ended (128 + N for signal N), else `None`."""
        code = self._process.poll()
        if code is None:
            return None
        self.ask_to_end()  # closes our end of the pipe
        self._end_group()
        return code if code >= 0 else 128 - code

    def ask_to_end(self) -> None:
        """Let the guardian see the end of the pipe; it does the rest."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def end(self, timeout_seconds: float) -> None:
        """End it and wait; kill the group when the guardian itself does not come back."""
        self.ask_to_end()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._end_group()
            self._process.wait()

    def _end_group(self) -> None:
        """Leave nothing behind even when somebody killed the guardian."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def start(command: Command, *, log: Path) -> Child:
    """Start a command behind a guardian; what it prints is appended to `log`."""
    who = command.identity
    identity = ["--user", str(who.uid), "--group", str(who.gid)] if who else []
    guardian = [sys.executable, "-I", "-S", str(GUARDIAN), *identity]
    ending = ["--signal", command.stop_signal, "--grace", str(command.grace_seconds)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*guardian, *ending, "--", *command.words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if command.environment is None else dict(command.environment),
            cwd="/" if command.identity else PROJECT,
            start_new_session=True,
            umask=PRIVATE_FILES,
        )
    return Child(process)
