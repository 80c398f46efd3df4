"""The two commands of the README fail with one sentence when this machine cannot run them."""

import os
import shutil
import subprocess

import pytest

from openclaw_web.local.places import PROJECT

MAKE = shutil.which("make") or ""
pytestmark = pytest.mark.skipif(not MAKE, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path):
    """A copy of what `make run` needs before there is an environment."""
    for name in (
        "Makefile",
        "requirements.txt",
        "requirements-compile.txt",
        "requirements-dev.txt",
    ):
        shutil.copy(PROJECT / name, tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "awk", "df", "test", "touch"):
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def _script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _make(checkout, target):
    return subprocess.run(  # noqa: S603 - our own Makefile
        [MAKE, target],
        check=False,
        capture_output=True,
        text=True,
        cwd=checkout,
        env={"PATH": str(checkout / "programs"), "HOME": os.environ.get("HOME", "/")},
    )


def test_without_a_supported_python_make_run_names_the_versions(checkout):
    _script(checkout / "programs" / "python3", "exit 1")  # as 3.10 would: the check fails

    done = _make(checkout, "run")

    assert done.returncode == 2
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_full_disk_stops_before_anything_is_installed(checkout):
    (checkout / "programs" / "df").unlink()
    _script(
        checkout / "programs" / "df", "echo Filesystem; echo '/dev/x 9000000 8000000 1000000 90% /'"
    )

    done = _make(checkout, "run")

    assert "976 MB are free here, and 2 GB are needed" in done.stderr
    assert not (checkout / ".venv").exists()


def test_stop_and_status_work_before_anything_is_installed(checkout):
    assert "Nothing runs" in _make(checkout, "stop").stdout
    assert "Nothing runs" in _make(checkout, "status").stdout


def test_help_lists_the_commands(checkout):
    listed = _make(checkout, "help").stdout

    assert all(f"make {one}" in listed for one in ("run", "test", "check", "stop", "reset"))
