"""The commands as somebody types them, in a process of their own."""

import json
import os
import socket
import subprocess
import sys

import pytest

from openclaw_web import cli
from openclaw_web.core.errors import OpenClawError
from openclaw_web.local.places import PROJECT


@pytest.fixture
def run(passable_path):
    def run(*words, **more):
        environment = {**os.environ, "OPENCLAW_CLOUD_HOME": str(passable_path / "home"), **more}
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "openclaw_web", *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=PROJECT,
            env=environment,
        )

    return run


def test_the_status_of_nothing_ends_with_code_three(run):
    done = run("status")

    assert done.returncode == 3
    assert "Nothing runs" in done.stdout


def test_the_status_for_programs_is_json(run):
    done = run("status", "--json")

    assert done.returncode == 3
    assert json.loads(done.stdout)["is_running"] is False


def test_the_catalogue_is_not_published_without_a_key_and_the_setting_is_named(run):
    done = run("admin", "publish-catalogue")

    assert done.returncode == 1
    assert "STRIPE_SECRET_KEY" in done.stderr


def test_stopping_nothing_is_no_error(run):
    done = run("stop")

    assert done.returncode == 0
    assert "Nothing runs" in done.stdout


def test_reset_does_nothing_unless_somebody_agrees(run, passable_path):
    (passable_path / "home").mkdir()

    assert run("reset").returncode == 1
    assert (passable_path / "home").exists()
    assert run("reset", "--yes").returncode == 0
    assert not (passable_path / "home").exists()


def test_a_taken_port_is_one_sentence_with_the_cure(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("up", PORT=str(port))

    assert done.returncode == 1
    assert done.stderr.startswith(f"✗ Port {port} is taken by ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7_200), ("35d", 3_024_000)]
)
def test_a_length_of_time_is_read(text, seconds):
    assert cli._seconds(text) == seconds  # noqa: SLF001 - the one rule worth a table


@pytest.mark.parametrize("text", ["", "5", "-1d", "d", "1w", "1.5h"])
def test_nonsense_is_no_length_of_time(text):
    with pytest.raises(OpenClawError, match="35d"):
        cli._seconds(text)  # noqa: SLF001 - see above
