"""The spool: each event is on disk before its answer ends, so a killed proxy loses nothing.

Each process has a folder of its own, locked as long as it lives. Events go into the newest segment;
a flush starts the next one, and a segment is deleted once its events are in the database. A folder
that nobody locks belongs to a dead process: its segments are read again, and the ledger knows which
events it has.
"""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import msgspec

from openclaw_web.metering.ledger import Event

logger = logging.getLogger(__name__)

LOCK = "lock"
SEGMENT = "{:08d}.jsonl"
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Event)


class Spool:
    """The folder of one process under `root`."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        name = uuid4().hex
        unlocked = root / f".{name}"  # seen by others only once it is locked
        unlocked.mkdir(mode=PRIVATE_FOLDER)
        self._lock = _lock(unlocked)
        self._folder = unlocked.rename(root / name)
        self._number = 0
        self._segment: int | None = None

    def append(self, event: Event) -> None:
        """Write one line.

        Raises:
            OSError: the disk is full or gone; the event is in memory only.
        """
        if self._segment is None:
            self._number += 1
            self._segment = os.open(
                self._path(self._number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE
            )
        os.write(self._segment, _ENCODER.encode(event) + b"\n")

    def turn(self) -> list[Path]:
        """Close the newest segment and return all; delete them once their events are safe."""
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None
        return _segments(self._folder)

    def close(self) -> None:
        """Give the folder up; what is left in it is for the next process."""
        left = self.turn()
        if not left:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def _path(self, number: int) -> Path:
        return self._folder / SEGMENT.format(number)


@contextlib.contextmanager
def leftovers(root: Path) -> Generator[list[Path]]:
    """Hold the segments of dead processes while the block runs, then tidy their folders."""
    taken = [(folder, lock) for folder in _folders(root) if (lock := _lock(folder)) is not None]
    try:
        yield [segment for folder, _ in taken for segment in _segments(folder)]
    finally:
        for folder, lock in taken:
            if not _segments(folder):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def read(segment: Path) -> list[Event]:
    """Return the events of a segment; a line that was torn by a crash is reported and left out."""
    events = []
    for line in segment.read_bytes().splitlines():
        try:
            events.append(_DECODER.decode(line))
        except msgspec.DecodeError:
            logger.exception("A spool line in %s cannot be read.", segment)
    return events


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if not path.name.startswith("."))


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _lock(folder: Path) -> int | None:
    """Return the descriptor that holds the folder, or `None` while its owner lives."""
    try:
        descriptor = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
