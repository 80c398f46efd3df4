"""The suite with the real OpenClaw: `make test-openclaw` alone collects it."""

import os
from pathlib import Path

import pytest

from openclaw_web.local.real_openclaw import Installed, find_installed
from tests.openclaw.openclaw_world import places_of_install, real_world

MISSING = (
    "The real OpenClaw is not installed in {folder}: run `make openclaw` first (1 GB, one to three "
    "minutes), then `make test-openclaw`."
)


def pytest_configure(config):
    config.addinivalue_line("markers", "openclaw: runs the real OpenClaw; `make test-openclaw`")


def pytest_ignore_collect(config):
    """Leave this folder out of every run that does not name its marker."""
    return None if "openclaw" in (config.option.markexpr or "") else True


FIGURES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)


@pytest.fixture
def figures(request):
    """Return a function that has a line shown when the run is over."""
    return request.config.stash.setdefault(FIGURES, []).append


@pytest.fixture(scope="session")
def installed() -> Installed:
    folder = Path(os.environ.get("OPENCLAW_FOLDER", "the state folder"))
    found = find_installed(places_of_install(folder))
    if found is None:
        pytest.fail(MISSING.format(folder=folder), pytrace=False)
    return found


@pytest.fixture
async def world(installed, database, redis, passable_path, monkeypatch):
    assert database
    assert redis
    async with real_world(installed, passable_path, monkeypatch) as made:
        yield made
