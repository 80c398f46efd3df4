"""What runs beside a box's volume while the box does not: it carries the memory out, or back in.

It is a program, not a module of ours: it imports nothing but Python's own library, so that a pod in
a customer's namespace holds no code and no settings of the platform. It runs as
`python -I -S keeper.py` and is told everything by its environment:

* `KEEPER_ACT` is `save` or `restore`, `KEEPER_FOLDER` the volume;
* `KEEPER_URL` and `KEEPER_TOKEN` are an address of the platform, good for one use;
* `KEEPER_MARK` names the restore, so that one that was interrupted is finished and not begun anew.

A save reads the volume and writes nothing. A restore unpacks beside what is there, and only a
complete archive takes its place: first the old files move aside, then the new ones in, then the old
ones are deleted. Ended anywhere, the next run goes on from there, and a save before that saves what
lies in both places.
"""

import codecs
import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

WORK = ".openclaw-restore"
NOT_MEMORY = frozenset({WORK, "lost+found"})
NEW, OLD, COMPLETE, EMPTIED = "new", "old", "complete", "emptied"
TIMEOUT_SECONDS = 300
LEVEL = 1  # gzip: memory is text and SQLite, and a pod has half a core
CREATED, FINE = 201, 200
REFUSED = 3
CODECS = ("ascii", "idna", "latin-1", "utf-8")  # Python loads each when it is first used


class RefusedError(Exception):
    """The platform does not take or give the archive."""


class Outgoing:
    """A body of unknown length, as HTTP/1.1 sends it: what `tarfile` writes goes out at once."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        if data:
            self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))
        return len(data)

    def finish(self) -> None:
        self._connection.send(b"0\r\n\r\n")


class Incoming:
    """A body of known length, hashed as it is read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self._hash = hashlib.sha256()
        self._left = int(response.headers["content-length"])
        self._wanted = response.headers.get("x-content-sha256", "")

    def read(self, size: int) -> bytes:
        data = self._response.read(min(size, self._left))
        self._left -= len(data)
        self._hash.update(data)
        return data

    def check(self) -> None:
        """Read what is left, and make sure that all of it came as it was sent."""
        while self.read(65_536):
            continue
        if self._left or self._hash.hexdigest() != self._wanted:
            raise RefusedError("the archive did not arrive whole")


def main() -> int:
    become_user()
    folder, act = Path(os.environ["KEEPER_FOLDER"]), os.environ["KEEPER_ACT"]
    try:
        {"save": save, "restore": restore}[act](folder)
    except (OSError, RefusedError, tarfile.TarError, http.client.HTTPException) as error:
        print(f"keeper: {act} failed: {error}", file=sys.stderr)
        return REFUSED
    print(f"keeper: {act} is done")
    return 0


def become_user() -> None:
    """Give up root where a development cluster started us as root.

    From then on Python's own library may be out of reach, in root's home for instance.
    """
    for name in CODECS:
        codecs.lookup(name)
    user = os.environ.get("RUN_AS_UID")
    if user and os.getuid() == 0:
        os.setgroups([])
        os.setgid(int(os.environ["RUN_AS_GID"]))
        os.setuid(int(user))


def save(folder: Path) -> None:
    connection, path = connect()
    connection.putrequest("PUT", path)
    connection.putheader("authorization", f"Bearer {os.environ['KEEPER_TOKEN']}")
    connection.putheader("content-type", "application/gzip")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    body = Outgoing(connection)
    try:
        pack(folder, body)
        body.finish()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise RefusedError(said(connection) or "the connection was cut") from error
    response = connection.getresponse()
    text = response.read(1_000).decode("utf-8", "replace")
    if response.status != CREATED:
        raise RefusedError(f"{response.status} {text}")


def pack(folder: Path, body: Any) -> None:
    """Write a folder as an archive; all that the body is asked for is `write`.

    What cannot be read, or never fits into the volume again (a file of holes), is left out and
    named: it must not keep all the rest from being saved.
    """
    longest = shutil.disk_usage(folder).total
    with (
        gzip.GzipFile(fileobj=body, mode="wb", compresslevel=LEVEL) as zipped,
        tarfile.open(fileobj=zipped, mode="w|") as archive,
    ):
        for name, path in whole_memory(folder).items():
            for one in all_in(path):
                inside = name / one.relative_to(path)
                if trouble := trouble_with(one, longest):
                    print(f"keeper: left out {inside}: {trouble}", file=sys.stderr)
                else:
                    archive.add(one, arcname=inside, recursive=False, filter=worth_keeping)


def all_in(path: Path) -> Iterator[Path]:
    """Yield a path, and what is in it: a folder comes before what it holds."""
    yield path
    if path.is_dir() and not path.is_symlink() and not trouble_with(path, 0):
        for one in sorted(path.iterdir()):
            yield from all_in(one)


def trouble_with(path: Path, longest: int) -> str:
    """Say why a file or folder cannot be saved; nothing when it can be."""
    if path.is_symlink():
        return ""
    needed = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
    if not os.access(path, needed, effective_ids=True):
        return "it cannot be read"
    is_too_long = path.is_file() and path.stat().st_size > longest
    return "it is longer than the volume" if is_too_long else ""


def worth_keeping(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Keep files, folders and links; a pipe or a device is no memory."""
    is_kept = entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()
    return entry if is_kept else None


def restore(folder: Path) -> None:
    work, mark = folder / WORK, os.environ["KEEPER_MARK"]
    if written(work / EMPTIED):  # an interrupted run was moving in: nothing is whole before it is
        finished = written(work / EMPTIED)
        move_in(folder, work)
        if finished == mark:
            return
    if written(work / COMPLETE) != mark:
        begin_anew(folder, work)
        try:
            fetch(work / NEW)
        except BaseException:
            remove(work)  # it holds nothing else: what was moved aside is back
            raise
        os.sync()  # a machine that dies must not leave a mark without the files
        (work / COMPLETE).write_text(mark, encoding="ascii")
        settle(work / COMPLETE, work)
    for one in memory_in(folder):
        shift(one, work / OLD / one.name)
    settle(work / OLD, folder)
    (work / COMPLETE).rename(work / EMPTIED)
    settle(work)
    move_in(folder, work)


def begin_anew(folder: Path, work: Path) -> None:
    """Forget what an earlier restore fetched, but never what it had moved aside."""
    with contextlib.suppress(FileNotFoundError):
        for one in sorted((work / OLD).iterdir()):
            back = folder / one.name
            while os.path.lexists(back):  # something ran since: it keeps its name
                back = back.with_name(f"{back.name}.before-restore")
            shift(one, back)
        settle(work / OLD, folder)
    (work / COMPLETE).unlink(missing_ok=True)
    remove(work)
    (work / OLD).mkdir(parents=True)
    (work / NEW).mkdir()


def move_in(folder: Path, work: Path) -> None:
    """Put the new files where the old ones were, and only then delete the old ones.

    The mark goes last: whatever was ended in between is finished by the next run.
    """
    with contextlib.suppress(FileNotFoundError):
        for one in sorted((work / NEW).iterdir()):
            remove(folder / one.name)
            shift(one, folder / one.name)
        settle(work / NEW, folder)
    remove(work / OLD)
    remove(work / NEW)
    (work / EMPTIED).unlink()
    remove(work)


def shift(one: Path, to: Path) -> None:
    """Rename; a folder that may not be written to does not move to another one as it is."""
    mode = one.lstat().st_mode
    if not stat.S_ISDIR(mode) or mode & stat.S_IWUSR:
        one.rename(to)
        return
    one.chmod(0o700)
    one.rename(to)
    to.chmod(stat.S_IMODE(mode))


def remove(path: Path) -> None:
    """Delete whatever is there, also folders that do not let themselves be emptied."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for place, folders, _ in os.walk(path):
        for one in (Path(place, name) for name in folders):
            if not one.is_symlink():
                one.chmod(0o700)
    shutil.rmtree(path)


def settle(*paths: Path) -> None:
    """Have what was written and renamed there survive the end of the machine."""
    for path in paths:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def memory_in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.name not in NOT_MEMORY)


def whole_memory(folder: Path) -> dict[Path, Path]:
    """Return where each part of the memory lies; an interrupted restore has it in two places."""
    work = folder / WORK
    beside = work / (NEW if written(work / EMPTIED) else OLD)
    moved = sorted(beside.iterdir()) if beside.is_dir() else []
    return {Path(one.name): one for one in [*moved, *memory_in(folder)]}


def written(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def fetch(folder: Path) -> None:
    connection, path = connect()
    headers = {"authorization": f"Bearer {os.environ['KEEPER_TOKEN']}"}
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    if response.status != FINE:
        raise RefusedError(f"{response.status} {response.read(1_000).decode('utf-8', 'replace')}")
    body = Incoming(response)
    stream: Any = body
    with tarfile.open(fileobj=stream, mode="r|gz") as archive:
        # `tar` and not `data`: an assistant's folder may hold links to its own program. Nothing
        # is written outside of the folder, also not through a link.
        archive.extractall(folder, filter="tar")
    body.check()


def connect() -> tuple[http.client.HTTPConnection, str]:
    address: SplitResult = urlsplit(os.environ["KEEPER_URL"])
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[address.scheme](
        address.hostname or "", address.port, timeout=TIMEOUT_SECONDS
    )
    return connection, address.path


def said(connection: http.client.HTTPConnection) -> str:
    """Return what the platform answered before it hung up, if anything."""
    try:
        response = connection.getresponse()
        return f"{response.status} {response.read(1_000).decode('utf-8', 'replace')}"
    except (OSError, http.client.HTTPException):
        return ""


if __name__ == "__main__":
    sys.exit(main())
