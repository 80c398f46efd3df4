"""`make run`: bring one stack up, say where it is, and keep it until somebody ends it."""

import json
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import Settings
from openclaw_web.local import box_images, control, keys, places, ports, stack
from openclaw_web.local.places import Places
from openclaw_web.local.screen import BOLD, CYAN, DIM, Screen
from openclaw_web.local.stack import Stack
from openclaw_web.local.supervisor import Run, Supervisor

MIN_FREE_BYTES = 2 * 1024**3
MAX_LOG_BYTES = 10 * 1024**2
PORTS_FILE = "ports.json"
TEST_CARD = "4242 4242 4242 4242"
ADDRESS_WIDTH = 44


class CannotStartError(OpenClawError):
    """Something of this machine is in the way; the text names it and the cure."""


def up(chosen: Settings, environment: Mapping[str, str]) -> None:
    """Run the stack of this state folder until a signal ends it.

    Raises:
        OpenClawError: something is in the way, or a service does not start.
    """
    began = time.monotonic()
    if chosen.is_production:
        raise CannotStartError(
            "OPENCLAW_CLOUD_ENV=production is set, and this would start a development stack; unset "
            "it, or run `web`, `worker` and `proxy`."
        )
    # Without PORT the default counts, not what the last run wrote into the state folder.
    port = chosen.port if environment.get("PORT") else Settings().port
    screen = Screen()
    opened = places.open_places(chosen.home)
    with control.own(opened.home):
        control.wait_for_leftovers(opened.home)
        _check_machine(opened, port)
        made = _stack(opened, port, environment)
        _turn_logs(opened)
        stack.write_settings(made)
        screen.line(f"OpenClaw Cloud is starting in {opened.home}\n")
        _tell_warnings(made, screen)
        Supervisor(
            stack.services_of(made),
            logs=opened.logs,
            screen=screen,
            on_change=lambda runs: _write_state(made, runs),
            on_ready=lambda: _welcome(made, screen, time.monotonic() - began),
        ).run()
        control.forget_state(opened.home)
        screen.line("\nOpenClaw Cloud has ended; `make run` brings it back as it was.")


def _check_machine(opened: Places, port: int) -> None:
    for folder in {opened.home, opened.outside}:
        free = shutil.disk_usage(folder).free
        if free < MIN_FREE_BYTES:
            raise CannotStartError(
                f"Only {free / 1024**3:.1f} GB are free at {folder}, and 2 GB are needed; make "
                "room, or keep the state elsewhere: OPENCLAW_CLOUD_HOME=/somewhere/roomy make run"
            )
    if not ports.is_free(port) or _answers_on_ipv6(port):
        raise CannotStartError(ports.busy_sentence(port))


def _answers_on_ipv6(port: int) -> bool:
    """Browsers try ::1 first for `localhost`, so a stranger there would get our visitors."""
    try:
        socket.create_connection(("::1", port), 0.2).close()
    except OSError:
        return False
    return True


def _stack(opened: Places, port: int, environment: Mapping[str, str]) -> Stack:
    ports_file = opened.home / PORTS_FILE
    chosen = ports.choose_ports(stack.PORT_NAMES, kept=keys.read_ports(ports_file), never={port})
    ports_file.write_text(json.dumps(chosen, indent=1), encoding="utf-8")
    return Stack(places=opened, port=port, ports=chosen, environment=environment)


def _turn_logs(opened: Places) -> None:
    """Put a log that has grown big aside; the one before it goes."""
    for log in opened.logs.glob("*.log"):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _tell_warnings(made: Stack, screen: Screen) -> None:
    for part, title in stack.TITLES.items():
        if not made.has(part):
            names = " or ".join(stack.REPLACED_BY[part])
            screen.warning(f"{title}: yours is used, since {names} is set")
    if box_images.denied_tools(made.places):
        screen.warning(box_images.NO_SANDBOX.format(why=box_images.sandbox_refusal()))


def _write_state(made: Stack, runs: Sequence[Run]) -> None:
    services: list[dict[str, Any]] = [
        {
            "name": run.service.name,
            "title": run.service.title,
            "kind": run.service.kind.value,
            "phase": run.phase.value,
            "pid": run.pid,
            "port": run.service.port,
            "sign_of_life": str(run.service.sign_of_life or ""),
            "address": run.service.address,
            "restarts": run.restarts,
            "log": str(run.log),
        }
        for run in runs
    ]
    state = {
        "pid": os.getpid(),
        "url": made.url,
        "home": str(made.places.home),
        "outside": str(made.places.outside),
        "kubeconfig": str(made.kubeconfig),
        "stack_file": str(made.places.stack_file),
        "services": services,
    }
    control.write_state(made.places.home, state)


def _welcome(made: Stack, screen: Screen, seconds: float) -> None:
    """Print the one block: the addresses, and what to try first."""

    def row(title: str, address: str, note: str) -> None:
        pad = " " * max(1, ADDRESS_WIDTH - len(address))
        screen.line(f"  {title:<16}{screen.paint(address, CYAN)}{pad}{screen.paint(note, DIM)}")

    rule = "─" * 100
    screen.line(
        f"\n{rule}\n  {screen.paint('OpenClaw Cloud is running', BOLD)} ({seconds:.1f} s)\n"
    )
    row("Be a customer", f"{made.url}/start", f"say hi; the test card is {TEST_CARD}")
    for part, title, note in (
        ("telegram", "Your phone", "Telegram: make a bot, then talk to your box"),
        ("mail", "Mail", "sign-in codes and letters arrive here"),
        ("stripe", "Stripe", "payments, renewals, failing cards"),
        ("kimi", "Kimi", "what the boxes asked the model"),
        ("kubernetes", "Kubernetes", "namespaces and pods of the boxes"),
    ):
        if made.has(part):
            row(title, f"{made.page(part)}/", note)
    email, password = _admin(made.places)
    row("Admin", f"{made.url}/login?step=password", f"{email}  {password}")
    screen.line(f"\n  {'kubectl':<16}kubectl --kubeconfig {made.kubeconfig} get pods -A")
    screen.line(f"  {'Logs':<16}{made.places.logs}{os.sep}*.log")
    screen.line(f"  {'Secrets':<16}{made.places.admin_file}, {made.places.stack_file}")
    screen.line(
        f"\n  Ctrl-C ends it, or `make stop` from elsewhere; `make reset` forgets the data.\n{rule}"
    )


def _admin(opened: Places) -> tuple[str, str]:
    """Return the admin's address, and the password the first time that it is shown."""
    shown = opened.home / "admin-shown"
    try:
        email, password = opened.admin_file.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "the admin of your database", ""
    if shown.exists():
        return email, f"(password in {_short(opened.admin_file)})"
    shown.touch()
    return email, password


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
