"""What the supervisor needs to know of one thing that it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from openclaw_web.local.children import Command

START_SECONDS = 60.0


class Kind(StrEnum):
    """A service runs on; a task ends, and is ready when it ended well."""

    SERVICE = "service"
    TASK = "task"


class Phase(StrEnum):
    """How far a service has come."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    BROKEN = "restarting"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Service:
    """One child of the supervisor.

    `prepare` runs before every start and may write files; `is_ready` looks from outside whether it
    serves; `sign_of_life` is a file that a service without a port keeps touching. `needs` names
    what must be ready before the first start. A lower `ending` ends earlier.
    """

    name: str
    title: str
    prepare: Callable[[], Command]
    is_ready: Callable[[], bool] = lambda: True
    needs: tuple[str, ...] = ()
    kind: Kind = Kind.SERVICE
    port: int | None = None
    sign_of_life: Path | None = None
    address: str = ""
    ending: int = 0
    start_seconds: float = START_SECONDS
