"""The whole stack as `make run` starts it, in a folder of its own, for runs that need all of it."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench import machine
from bench.stack import DEFAULT_HOME, HOME, PROJECT
from openclaw_web.core.settings import load
from openclaw_web.local import control, frontend, places, ports, real_openclaw, status
from openclaw_web.local.dev_services import DevServices, dev_services
from openclaw_web.local.stack import REPLACED_BY

OPENCLAW_FOLDER = "OPENCLAW_FOLDER"
WEB_PORT = 3991  # fixed, since it is baked into the pages, which are kept from run to run
KEPT = DEFAULT_HOME / "whole"
PAGES = ("web", "reflex")
START_SECONDS = 600.0  # with building the pages
HIDDEN = ("OPENCLAW_CLOUD_ENV", "PUBLIC_URL", "SECRET_KEY", "DEV_SERVICES", "HOST")
HURRY_SECONDS = 1.0
OK, SEE_OTHER = 200, 303


@dataclass(frozen=True)
class Whole:
    """A running stack: the settings of its processes, and its simulators."""

    home: Path
    environment: dict[str, str]
    supervisor: psutil.Process
    hurried: set[int] = field(default_factory=set)

    async def hurry(self) -> None:
        """Let what is started meanwhile have our priority, too: each service is a session."""
        while os.getpriority(os.PRIO_PROCESS, 0):
            for one in self.supervisor.children(recursive=True):
                if one.pid not in self.hurried:
                    machine.take_along(one.pid)
                    self.hurried.add(one.pid)
            await asyncio.sleep(HURRY_SECONDS)

    @property
    def services(self) -> DevServices:
        return dev_services(load(self.environment))

    @property
    def worker_pid(self) -> int:
        """Return the process id of the worker's guardian."""
        (pid,) = [one.pid for one in status.look(self.home).services if one.name == "worker"]
        if pid is None:
            raise RuntimeError("The worker does not run.")
        return pid

    def ask(self, page: str, path: str, payload: dict[str, Any] | None = None) -> Any:
        """Ask a simulator's control; with a payload it is a POST."""
        body = None if payload is None else json.dumps(payload)
        status, answer = self._call(page, path, body, "application/json")
        if status != OK:
            raise RuntimeError(f"{page} says {status} to {path}: {answer[:500]!r}")
        return json.loads(answer)

    def pay(self, checkout: str, *, card: str) -> None:
        """Submit Stripe's hosted page, as the customer's click does, and do not come back.

        Raises:
            RuntimeError: the card was not taken.
        """
        form = {"email": "payer@example.com", "name": "Pay Er", "card": card}
        body = urllib.parse.urlencode(form)
        status, _ = self._call(
            "stripe", f"/c/pay/{checkout}", body, "application/x-www-form-urlencoded"
        )
        if status != SEE_OTHER:
            raise RuntimeError(f"The payment was refused with status {status}.")

    def _call(self, page: str, path: str, body: str | None, kind: str) -> tuple[int, bytes]:
        known = self.services
        place = urllib.parse.urlsplit(known.addresses[page]).netloc
        headers = {"Content-Type": kind, "X-Simulator-Token": known.token}
        with contextlib.closing(http.client.HTTPConnection(place, timeout=60)) as connection:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def whole_stack(*, is_real: bool = False) -> Generator[Whole]:
    """Start everything as `make run` does, and end it; the built pages are kept."""
    home = Path(tempfile.mkdtemp(prefix="openclaw-cloud-bench-"))
    environment = _environment(home)
    try:
        if is_real:
            _borrow_openclaw(home, environment)
        _take_pages(home)
        with (home / "up.txt").open("wb") as log:
            process = _start(environment, log)
            try:
                _wait(home, process)
                yield Whole(home, environment, psutil.Process(process.pid))
            finally:
                control.stop(home)
                process.wait()
                _keep_pages(home)
    finally:
        places.forget(home)


def _environment(home: Path) -> dict[str, str]:
    hidden = {*HIDDEN, *(name for names in REPLACED_BY.values() for name in names)}
    port = WEB_PORT if ports.is_free(WEB_PORT) else ports.free_port()
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, HOME: str(home), "PORT": str(port)}


def _borrow_openclaw(home: Path, environment: dict[str, str]) -> None:
    """Let the boxes run what `make openclaw` has installed for this machine's own stack."""
    named = environment.get(OPENCLAW_FOLDER)
    if named is None:
        own = {name: value for name, value in environment.items() if name != HOME}
        named = str(real_openclaw.folder_of(places.open_places(load(own).home)))
    opened = places.open_places(home)
    (opened.outside / "openclaw").symlink_to(Path(named).resolve())
    if real_openclaw.find_installed(opened) is None:
        raise SystemExit(f"The real OpenClaw is not in {named}: run `make openclaw` first.")


def _start(environment: dict[str, str], log: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "openclaw_web", "up"],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=PROJECT,
        env=environment,
    )


def _wait(home: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not status.look(home).is_healthy:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The stack did not come up:\n{(home / 'up.txt').read_text()}")
        time.sleep(0.2)


def _take_pages(home: Path) -> None:
    if frontend.is_fresh(KEPT / "web", frontend.build_key(WEB_PORT)):
        for name in PAGES:
            shutil.copytree(KEPT / name, home / name, symlinks=True)
    else:
        sys.stderr.write("Building the pages for the stack (about a minute)\n")


def _keep_pages(home: Path) -> None:
    if frontend.is_fresh(KEPT / "web", frontend.build_key(WEB_PORT)):
        return
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    for name in PAGES:
        if (home / name).is_dir():
            shutil.copytree(home / name, KEPT / name, symlinks=True)
