"""How a running stack is, looked at from outside by whoever may read its state folder."""

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openclaw_web.core.settings import read_stack_file
from openclaw_web.local import box_images, control, ports
from openclaw_web.local.places import open_places
from openclaw_web.local.screen import BOLD, DIM, GREEN, RED, Screen
from openclaw_web.local.services import Kind, Phase

OK, UNHEALTHY, NOT_RUNNING = 0, 1, 3  # 3: "not running", as init scripts say it (LSB)
SIGN_SECONDS = 30.0  # the worker gives one every 5 s
TITLE_WIDTH, STATE_WIDTH, PID_WIDTH = 18, 12, 9


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """One service as seen now."""

    name: str
    title: str
    state: str
    is_healthy: bool
    pid: int | None
    address: str
    restarts: int
    log: str


@dataclass(frozen=True, kw_only=True)
class StackStatus:
    """The whole stack as seen now. `pid` is the supervisor's."""

    home: str
    is_running: bool
    is_healthy: bool
    pid: int | None
    url: str
    kubeconfig: str
    database: str
    database_url: str = field(repr=False)  # with its password: for `psql`, never for a screen
    stack_file: str
    services: tuple[ServiceStatus, ...]
    boxes: str = ""

    @property
    def exit_code(self) -> int:
        if not self.is_running:
            return NOT_RUNNING
        return OK if self.is_healthy else UNHEALTHY

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs; `database` is an address that `psql` takes as it is."""
        found = asdict(self)
        return {**found, "database": found.pop("database_url")}


def look(home: Path) -> StackStatus:
    """Look at the stack of a state folder; its lock says whether it runs, not an old file."""
    pid = control.running_pid(home)
    state = control.read_state(home) if pid else {}
    services = tuple(_service(one) for one in state.get("services", []))
    return StackStatus(
        home=str(home),
        is_running=pid is not None,
        is_healthy=bool(services) and all(one.is_healthy for one in services),
        pid=pid,
        url=state.get("url", ""),
        kubeconfig=state.get("kubeconfig", ""),
        database=next((one.address for one in services if one.name == "postgres"), ""),
        database_url=read_stack_file(home).get("DATABASE_URL", "") if pid else "",
        stack_file=state.get("stack_file", ""),
        services=services,
        boxes=_boxes(home, services),
    )


def show(found: StackStatus, screen: Screen) -> None:
    """Print the status for a person."""
    if not found.is_running:
        screen.line(f"Nothing runs in {found.home}; `make run` starts it.")
        return
    screen.line(f"{screen.paint('OpenClaw Cloud', BOLD)} {found.url} (supervisor {found.pid})\n")
    for one in found.services:
        mark = screen.paint("✓", GREEN) if one.is_healthy else screen.paint("✗", RED)
        pid = str(one.pid or "")
        again = f"  restarted {one.restarts} times" if one.restarts else ""
        screen.line(
            f"  {mark} {one.title:<{TITLE_WIDTH}}{one.state:<{STATE_WIDTH}}{pid:<{PID_WIDTH}}"
            f"{screen.paint(one.address + again, DIM)}"
        )
    screen.line(f"\n  boxes run   {found.boxes or 'what your own cluster has'}")
    screen.line(f"  kubeconfig  {found.kubeconfig}")
    screen.line(f"  database    {found.database or 'yours (DATABASE_URL)'}")
    screen.line(f"  passwords   {found.stack_file}")


def _boxes(home: Path, services: tuple[ServiceStatus, ...]) -> str:
    has_own_cluster = any(one.name == "kubernetes" for one in services)
    return box_images.sentence(open_places(home)) if has_own_cluster else ""


def _service(kept: dict[str, Any]) -> ServiceStatus:
    is_task = kept["kind"] == Kind.TASK
    is_there = kept["phase"] == (Phase.DONE if is_task else Phase.READY)
    answers = not kept["port"] or ports.answers(kept["port"])
    answers = answers and _is_fresh(kept["sign_of_life"])
    is_healthy = is_there and (is_task or (_lives(kept["pid"]) and answers))
    return ServiceStatus(
        name=kept["name"],
        title=kept["title"],
        state=kept["phase"] if is_healthy or not is_there else "silent",
        is_healthy=is_healthy,
        pid=kept["pid"],
        address=kept["address"],
        restarts=kept["restarts"],
        log=kept["log"],
    )


def _is_fresh(sign_of_life: str) -> bool:
    """Say whether the file was touched lately; a service that has none cannot fail this."""
    if not sign_of_life:
        return True
    try:
        return time.time() - Path(sign_of_life).stat().st_mtime < SIGN_SECONDS
    except OSError:
        return False


def _lives(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
