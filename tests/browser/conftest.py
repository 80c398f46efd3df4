"""A full stack of its own, as `make run` starts it, and a browser that visits it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from openclaw_web.core.settings import Settings, load
from openclaw_web.local import control, places, ports, status
from openclaw_web.local.dev_services import dev_services
from openclaw_web.local.places import PROJECT
from openclaw_web.local.stack import REPLACED_BY
from tests.browser.story import Story
from tests.browser_setup import MISSING, find_chromium

HOME = PROJECT / ".openclaw-cloud-test"
KEPT = ("web", "reflex", "port")  # built pages are the same next time, for the same port
START_SECONDS = 300.0
STEP_MS = 15_000
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PICTURES = PROJECT / "test-results" / "pictures"


@dataclass(frozen=True)
class Stack:
    """A stack of its own: where people find it, and the settings of its processes."""

    home: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return load(self.environment)

    @property
    def url(self) -> str:
        return self.settings.public_url

    def start(self) -> None:
        """Start it, as `make run` does, and wait until everything is healthy."""
        log = self.home / "up.txt"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "openclaw_web", "up"],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env=self.environment,
            )
        self.started.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not status.look(self.home).is_healthy:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"The stack did not come up:\n{log.read_text()}")
            time.sleep(0.2)

    def stop(self) -> None:
        control.stop(self.home)
        for process in self.started:
            process.wait()

    def status(self) -> dict[str, Any]:
        """Return what `python -m openclaw_web status --json` prints."""
        return status.look(self.home).as_dict()

    def control(self, page: str, path: str, payload: dict[str, Any]) -> Any:
        """POST to a simulator's control endpoint and return its JSON answer, if any."""
        known = dev_services(self.settings)
        request = urllib.request.Request(  # noqa: S310 - our own simulator
            known.addresses[page] + path,
            data=json.dumps(payload).encode(),
            headers={"X-Simulator-Token": known.token, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            body = answer.read()
        return json.loads(body) if body else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever is in this folder needs a browser."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("browser")


def take_pictures(page: Page, name: str) -> None:
    """Keep what the page looks like: wide and narrow, light and dark."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for size, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
        page.set_viewport_size(viewport)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(
                path=PICTURES / f"{name}-{size}-{scheme}.png", full_page=True, animations="disabled"
            )
    page.emulate_media(color_scheme=None)
    page.set_viewport_size(DESKTOP)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Start everything from nothing, with simulators for the whole outside world."""
    control.stop(HOME)
    _forget_all_but_the_pages()
    running = Stack(HOME, _environment())
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs a Chromium.")
        pytest.skip(MISSING)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser, stack: Stack) -> Iterator[BrowserContext]:
    """Open a fresh visitor: no cookies, no history."""
    opened = browser.new_context(base_url=stack.url, viewport=DESKTOP)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def told(browser: Browser, stack: Stack) -> Iterator[Story]:
    """Let one customer live through the whole story; the tests then look at what became of it."""
    opened = browser.new_context(base_url=stack.url, viewport=DESKTOP)
    opened.set_default_timeout(STEP_MS)
    story = Story(opened, stack)
    story.live_through()
    yield story
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


def _forget_all_but_the_pages() -> None:
    HOME.mkdir(mode=places.PRIVATE, exist_ok=True)
    note = HOME / places.OUTSIDE_NOTE
    if note.exists():
        shutil.rmtree(note.read_text().strip(), ignore_errors=True)
    for one in HOME.iterdir():
        if one.name in KEPT:
            continue
        if one.is_dir():
            shutil.rmtree(one)
        else:
            one.unlink()


def _environment() -> dict[str, str]:
    given = {name for names in REPLACED_BY.values() for name in names}
    hidden = {*given, "OPENCLAW_CLOUD_ENV", "PUBLIC_URL", "SECRET_KEY", "__REFLEX_SKIP_COMPILE"}
    kept = HOME / "port"
    chosen = ports.choose_ports(
        ["web"], kept={"web": int(kept.read_text())} if kept.exists() else {}
    )
    kept.write_text(str(chosen["web"]))
    return {
        **{name: value for name, value in os.environ.items() if name not in hidden},
        "OPENCLAW_CLOUD_HOME": str(HOME),
        "PORT": str(chosen["web"]),
    }
