"""When each part of a log was written: output goes straight to a file, which carries no times.

The files' sizes are looked at from time to time and noted beside them. So a line's time is the
moment at which it was first seen, at most a look later than it was written.
"""

import asyncio
import bisect
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

LOOK_SECONDS = 0.5


@dataclass
class _Times:
    ends: list[int] = field(default_factory=list)  # up to this offset …
    stamps: list[float] = field(default_factory=list)  # … the log was there at this time


class LogTimes:
    """Follows the logs of running containers; notes survive in a file beside each log."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._known: dict[Path, _Times] = {}
        self._clock = clock

    def follow(self, log: Path) -> None:
        self._known[log] = _read(log)

    def leave(self, log: Path) -> None:
        """Look a last time, and no longer: the container has ended."""
        if log in self._known:
            self.look(log)
            del self._known[log]

    async def run(self) -> None:
        """Look at all followed logs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for log in list(self._known):
                self.look(log)

    def look(self, log: Path) -> None:
        times = self._known.get(log)
        if times is None:
            return
        with contextlib.suppress(OSError):  # the pod went away meanwhile
            size = log.stat().st_size
            if size > (times.ends[-1] if times.ends else 0):
                stamp = self._clock()
                times.ends.append(size)
                times.stamps.append(stamp)
                with _notes(log).open("a", encoding="ascii") as file:
                    file.write(f"{size} {stamp:.6f}\n")

    def shortened(self, log: Path, removed: int) -> None:
        """Count from the new beginning of a log whose first part was cut off."""
        times = self._times(log)
        kept = [
            (end - removed, stamp)
            for end, stamp in zip(times.ends, times.stamps, strict=True)
            if end > removed
        ]
        times.ends, times.stamps = [one for one, _ in kept], [one for _, one in kept]
        with contextlib.suppress(OSError):
            text = "".join(f"{end} {stamp:.6f}\n" for end, stamp in kept)
            _notes(log).write_text(text, encoding="ascii")

    def written_at(self, log: Path, offset: int) -> datetime:
        """Return when the byte before this offset was there."""
        times = self._times(log)
        place = bisect.bisect_left(times.ends, offset)
        if place < len(times.stamps):
            return datetime.fromtimestamp(times.stamps[place], UTC)
        with contextlib.suppress(OSError):
            return datetime.fromtimestamp(log.stat().st_mtime, UTC)
        return datetime.now(UTC)

    def offset_at(self, log: Path, moment: datetime) -> int:
        """Return where what was written since this moment begins."""
        times = self._times(log)
        place = bisect.bisect_left(times.stamps, moment.timestamp())
        return times.ends[place - 1] if place else 0

    def _times(self, log: Path) -> _Times:
        self.look(log)
        return self._known.get(log) or _read(log)


def _notes(log: Path) -> Path:
    return log.with_suffix(".times")


def forget(log: Path) -> None:
    """Remove a log and what is noted about it."""
    for path in (log, _notes(log)):
        path.unlink(missing_ok=True)


def _read(log: Path) -> _Times:
    times = _Times()
    with contextlib.suppress(OSError, ValueError):
        for line in _notes(log).read_text(encoding="ascii").splitlines():
            end, stamp = line.split()
            times.ends.append(int(end))
            times.stamps.append(float(stamp))
    return times
