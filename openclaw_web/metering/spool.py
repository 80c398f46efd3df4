"""The spool: each event is on disk before its answer ends, so a killed proxy loses nothing.

Each process has a folder of its own, locked as long as it lives. Events go into the newest segment;
a flush starts the next one, and a segment is deleted once its events are in the database. A folder
that nobody locks belongs to a dead process: its segments are read again, and the ledger knows which
events it has.

What is written survives the process, and with `secure` the machine: a proxy asks for that once
events have waited for half a second, so not while the database takes them at once.

A line that cannot be read is kept below `.torn`, for a person. When the disk is full, an event is
in memory only: `append` raises, the proxy goes on, and the log says what a crash would lose.

Lines are JSON objects with the fields of `Event`. A release may add a field that has a default, and
must go on reading what the one before wrote: a roll-out replays the old process's segments.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from openclaw_web.core.clock import real_now
from openclaw_web.metering.ledger import Event

logger = logging.getLogger(__name__)

LOCK = "lock"
TORN = ".torn"
SEGMENT = "{number:08d}-{begun:.0f}.jsonl"  # so its age is known, however often it is written
PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Event)


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
        self._is_torn = False

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
        line = _ENCODER.encode(event) + b"\n"
        if self._is_torn:  # half a line stands there: the next one starts on its own
            line = b"\n" + line
        written = os.write(self._segment, line)
        self._is_torn = written != len(line)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def turn(self) -> list[Path]:
        """Close the newest segment and return all; delete them once their events are safe."""
        if self._segment is not None:
            os.close(self._segment)
            self._segment, self._is_torn = None, False
        return _segments(self._folder)

    def segments(self) -> list[Path]:
        """Return all segments, the oldest first; the last one may still be written."""
        return _segments(self._folder)

    def close(self) -> None:
        """Give the folder up; what is left in it is for the next process."""
        left = self.turn()
        if not left:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def _path(self, number: int) -> Path:
        return self._folder / SEGMENT.format(number=number, begun=real_now().timestamp())


@contextlib.contextmanager
def leftovers(root: Path) -> Generator[list[Path]]:
    """Hold the segments of dead processes while the block runs, then tidy their folders."""
    taken = [(folder, lock) for folder in _folders(root) if (lock := _try(folder)) is not None]
    try:
        yield [segment for folder, _ in taken for segment in _segments(folder)]
    finally:
        for folder, lock in taken:
            if not _segments(folder):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def read(segment: Path) -> list[Event]:
    """Return the events of a segment; lines that a crash has torn are left out.

    Raises:
        OSError: the disk does not give it.
    """
    return _read(segment)[0]


def secure(segments: Sequence[Path]) -> None:
    """Have the disk itself hold these segments, which until then a power cut could take.

    Raises:
        OSError: it does not.
    """
    for path in [*segments, *{segment.parent for segment in segments}]:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # in the ledger meanwhile
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def finish(segment: Path) -> None:
    """Delete a segment whose events are safe; lines that a crash has torn are kept aside first.

    Raises:
        OSError: they cannot be kept now, or it cannot be deleted: it is still there.
    """
    for_a_person = _read(segment)[1]
    if for_a_person:
        logger.error("%d lines of %s cannot be read; they are kept.", len(for_a_person), segment)
        _keep(segment, for_a_person)
    segment.unlink(missing_ok=True)


def _read(segment: Path) -> tuple[list[Event], list[bytes]]:
    """Return the events, and the lines that are none."""
    events, torn = [], []
    for line in segment.read_bytes().split(b"\n"):
        try:
            if line:
                events.append(_DECODER.decode(line))
        except msgspec.DecodeError:
            torn.append(line)
    return events, torn


def torn_files(root: Path) -> list[Path]:
    """Return the files of lines that could not be read; delete one to say that it was looked at."""
    return sorted((root / TORN).glob("*.torn"))


def oldest_seconds(root: Path) -> float:
    """Return for how long the oldest event in any process's folder has waited; 0 without one."""
    begun = [_begun(segment) for folder in _folders(root) for segment in _segments(folder)]
    return max(0.0, real_now().timestamp() - min(begun)) if begun else 0.0


def _begun(segment: Path) -> float:
    """Return when a segment was begun, in seconds of real time."""
    _, _, seconds = segment.stem.partition("-")
    try:
        return float(seconds or segment.stat().st_mtime)
    except (FileNotFoundError, ValueError):  # just written and deleted, or not of our making
        return real_now().timestamp()


def _keep(segment: Path, lines: list[bytes]) -> None:
    """Write torn lines beside the folders, under a name that a second reading writes again."""
    aside = segment.parent.parent / TORN
    aside.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    kept = aside / f"{segment.parent.name}-{segment.stem}.torn"
    kept.write_bytes(b"\n".join(lines) + b"\n")
    kept.chmod(PRIVATE_FILE)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _try(folder: Path) -> int | None:
    """Lock a folder if that is possible now: one that cannot be locked keeps no other waiting."""
    try:
        return _lock(folder)
    except OSError:
        logger.exception("The spool folder %s cannot be locked now.", folder)
        return None


def _lock(folder: Path) -> int | None:
    """Return the descriptor that holds the folder, or `None` while its owner lives."""
    try:
        descriptor = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE)
    except FileNotFoundError:  # another heir has just tidied it away
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
