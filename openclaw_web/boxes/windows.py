"""A look at what a box writes and what the cluster says of it, for as long as somebody watches.

The web processes hold no key to the cluster. A page asks through Redis (`watch_box`, renewed while
it is open); a worker hears the bell, fetches, takes the secrets out, and leaves the view in Redis
(`boxes/looking.py`) until nobody asks any more. Nothing of it is stored anywhere else.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from openclaw_web.integrations import redis

BELL = "windows"
ASKED_SECONDS = 60.0
LOCK_SECONDS = 10.0  # a worker that dies is followed by another after so long
KEPT_SECONDS = 60.0
_FINE = re.compile(r"(?<=\.\d{6})\d+")


class Seen(StrEnum):
    """How the worker's look went."""

    OK = "ok"
    NO_POD = "no_pod"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a log; `at` is its time in ISO 8601, or empty."""

    at: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One event of the cluster about a box."""

    at: str
    is_warning: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a customer sees of the inside; `before` is the end of the run that crashed."""

    seen: Seen
    at: str
    lines: tuple[Line, ...] = ()
    before: tuple[Line, ...] = ()
    events: tuple[Happening, ...] = ()


async def watch_box(box_id: UUID) -> Window | None:
    """Ask for a box's logs for the next minute, and return the newest view if there is one."""
    await redis.keep(_asked(box_id), "1", seconds=ASKED_SECONDS)
    text, owner = await redis.kept(_view(box_id), _lock(box_id))
    if owner is None:
        await redis.ring(BELL, str(box_id))
    return _read(text) if text else None


async def stop_watching(box_id: UUID) -> None:
    """Say that nobody looks any more; the worker stops within two seconds."""
    await redis.forget(_asked(box_id))


async def is_watched(box_id: UUID, owner: str) -> bool:
    """Say whether somebody still asks, and this worker is the one that looks for them."""
    if await redis.kept(_asked(box_id)) == [None]:
        return False
    return await redis.hold(_lock(box_id), owner, seconds=LOCK_SECONDS)


async def let_go(box_id: UUID, owner: str) -> None:
    """Let another worker look, unless one does already."""
    await redis.let_go(_lock(box_id), owner)


async def leave_view(box_id: UUID, window: Window) -> None:
    """Put a view where the box's pages find it for a minute."""
    await redis.keep(_view(box_id), json.dumps(asdict(window)), seconds=KEPT_SECONDS)


def moment(at: str) -> datetime | None:
    """Return a time of a window; the cluster's have more digits than Python reads."""
    try:
        return datetime.fromisoformat(_FINE.sub("", at))
    except ValueError:
        return None


def _read(text: str) -> Window | None:
    """Return a view as the worker wrote it; one of another release is as good as none."""
    try:
        found = json.loads(text)
        return Window(
            seen=Seen(found["seen"]),
            at=found["at"],
            lines=tuple(Line(**one) for one in found["lines"]),
            before=tuple(Line(**one) for one in found["before"]),
            events=tuple(Happening(**one) for one in found["events"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _asked(box_id: UUID) -> str:
    return f"window:asked:{box_id}"


def _view(box_id: UUID) -> str:
    return f"window:view:{box_id}"


def _lock(box_id: UUID) -> str:
    return f"window:lock:{box_id}"
