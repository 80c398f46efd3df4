"""Run one command and end it, with its whole process group, when whoever started us is gone.

`python -I -S guardian.py [--signal INT] [--grace 5] [--user UID --group GID] -- COMMAND...` with a
pipe as standard input. The starter holds the pipe's other end and never writes. End-of-file means
that the starter died, even by SIGKILL, so this works alike on Linux and macOS. Start it with
`start_new_session=True`: the group to end is its own.

The exit code is the command's; 128 + N when signal N ended it.
"""

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

STDIN = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the command, wait for its end or for ours, and return the exit code to use."""
    options = _options(arguments)
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer)
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: asked.append(received))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with subprocess.Popen(  # noqa: S603 - running what it is given is its purpose
        options.command,
        stdin=subprocess.DEVNULL,
        user=options.user,
        group=options.group,
        extra_groups=None if options.user is None else [],
    ) as child:
        while child.poll() is None:
            ready, _, _ = select.select([STDIN, wake_reader], [], [])
            if wake_reader in ready:
                os.read(wake_reader, 1024)
            orphaned = STDIN in ready and not os.read(STDIN, 1024)
            if orphaned or asked:
                _stop(child, getattr(signal, f"SIG{options.signal}"), options.grace)
                break
        code = child.wait()
    _end_the_rest_of_the_group()
    return code if code >= 0 else 128 - code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", default="TERM", choices=["TERM", "INT", "QUIT"])
    parser.add_argument("--grace", type=float, default=5.0, help="seconds before SIGKILL")
    parser.add_argument("--user", type=int, help="another user id for the command; needs root")
    parser.add_argument("--group", type=int, help="the group id that goes with it")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def _stop(child: subprocess.Popen[bytes], number: int, grace_seconds: float) -> None:
    """Ask the command to end; after the grace, kill the group (and so ourselves)."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)
    deadline = time.monotonic() + grace_seconds
    while child.poll() is None:
        if time.monotonic() > deadline:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        time.sleep(0.02)


def _end_the_rest_of_the_group() -> None:
    """Whatever the command left behind in our group gets the polite signal.

    We ignore it ourselves.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
