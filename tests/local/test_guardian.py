"""What a guardian promises: nothing outlives whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from openclaw_web.local import children
from openclaw_web.local.children import Command
from openclaw_web.local.places import unprivileged_identity

PATIENCE_SECONDS = 10.0
# A command with a child of its own: both belong to the guardian's group.
FAMILY = (
    "import subprocess, sys, time, pathlib;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid));"
    "time.sleep(60)"
)


def test_a_guardian_ends_the_whole_group_when_its_starter_closes_the_pipe(tmp_path):
    child, grandchild = _family(tmp_path)

    child.end(PATIENCE_SECONDS)

    assert _gone(grandchild)


def test_nothing_survives_the_sudden_death_of_the_starter(tmp_path):
    note = tmp_path / "pid"
    words = [sys.executable, "-c", _STARTER, str(note), FAMILY]
    starter = subprocess.Popen(words)  # noqa: S603 - our own program
    grandchild = _pid_in(note)
    family = psutil.Process(starter.pid).children(recursive=True)

    starter.send_signal(signal.SIGKILL)
    starter.wait()

    assert all(_gone(one.pid) for one in family)
    assert _gone(grandchild)


def test_nothing_survives_the_sudden_death_of_the_guardian(tmp_path):
    child, grandchild = _family(tmp_path)

    os.kill(child.pid, signal.SIGKILL)

    assert _exit_code(child) == 128 + signal.SIGKILL
    assert _gone(grandchild)


def test_a_command_that_ignores_the_signal_is_killed_after_the_grace(tmp_path):
    note = tmp_path / "ready"
    stubborn = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).write_text('1'); time.sleep(60)"
    )
    words = [sys.executable, "-c", stubborn, str(note)]
    child = children.start(Command(words=words, grace_seconds=0.2), log=tmp_path / "log")
    _pid_in(note)

    child.end(PATIENCE_SECONDS)

    assert child.exit_code() == 128 + signal.SIGKILL


def test_the_exit_code_is_the_commands(tmp_path):
    child = children.start(
        Command(words=[sys.executable, "-c", "raise SystemExit(7)"]), log=tmp_path / "log"
    )

    assert _exit_code(child) == 7


def test_what_the_command_prints_is_in_the_log(tmp_path):
    log = tmp_path / "log"
    child = children.start(Command(words=[sys.executable, "-c", "print('hello')"]), log=log)

    assert _exit_code(child) == 0
    assert log.read_text() == "hello\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a process another user")
def test_as_root_a_command_can_run_as_another_user(tmp_path):
    identity = unprivileged_identity()
    assert identity
    log = tmp_path / "log"
    child = children.start(Command(words=["/usr/bin/id", "-u"], identity=identity), log=log)

    assert _exit_code(child) == 0
    assert log.read_text().strip() == str(identity.uid)


_STARTER = (
    "import sys, time, pathlib; sys.path.insert(0, '.');"
    "from openclaw_web.local import children;"
    "from openclaw_web.local.children import Command;"
    "words = [sys.executable, '-c', sys.argv[2], sys.argv[1]];"
    "child = children.start(Command(words=words), log=pathlib.Path(sys.argv[1] + '.log'));"
    "time.sleep(60)"
)


def _family(folder: Path) -> tuple[children.Child, int]:
    note = folder / "pid"
    words = [sys.executable, "-c", FAMILY, str(note)]
    child = children.start(Command(words=words), log=folder / "log")
    return child, _pid_in(note)


def _pid_in(note: Path) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if note.exists() and (text := note.read_text()):
            return int(text)
        time.sleep(0.01)
    raise AssertionError(f"nobody wrote {note}")


def _exit_code(child: children.Child) -> int | None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while child.exit_code() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return child.exit_code()


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False
