"""Run one command where it sees nothing of this machine but what it is given; Linux only.

`python -I -S sandbox.py --root EMPTY [--readable DIR]... [--writable DIR]... [--scratch DIR]
[--user UID --group GID] -- COMMAND...` gives the command mount, process, IPC and host name
namespaces of its own: the system's programs and libraries and the readable folders read-only, the
writable ones, `--scratch` as /tmp, and no process but its own. The network stays the machine's.
As root nothing more is needed; other users need user namespaces, which some systems forbid: then
this ends with code 126 and says why. SIGTERM is passed on; the exit code is the command's.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

CANNOT = 126
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "nix/store")
# What programs look up: names, certificates, the time zone. Nothing else of /etc.
LOOKED_UP = (
    *("alternatives", "ca-certificates", "group", "hosts", "ld.so.cache", "localtime"),
    *("nsswitch.conf", "passwd", "pki", "resolv.conf", "ssl"),
)
DEVICES = ("full", "null", "random", "urandom", "zero")
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
# A mount's own flags, which a user namespace may not take away.
KEPT_FLAGS = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC, 1024: 1024}
FORWARDED = (signal.SIGTERM, signal.SIGINT)
libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the place, run the command in it, and return the exit code to use."""
    given = _options(arguments)
    try:
        folder = Path.cwd()
        _leave_the_machine()
        _build(given)
    except OSError as error:
        sys.stderr.write(f"No sandbox: {error.strerror or error} ({error.filename or 'mount'})\n")
        return CANNOT
    first = os.fork()
    if first == 0:
        _exit_with(lambda: _be_first(given, folder))
    return _wait(first)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="an empty folder to build upon")
    parser.add_argument("--readable", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--writable", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="what shall be /tmp")
    parser.add_argument("--user", type=int, help="the user of the command; needs root")
    parser.add_argument("--group", type=int, help="the group that goes with it")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def _leave_the_machine() -> None:
    spaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    user, group = os.geteuid(), os.getegid()
    _call("unshare", spaces | (CLONE_NEWUSER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def _build(given: argparse.Namespace) -> None:
    """Put the new root together on a small file system in memory."""
    root: Path = given.root
    before = os.umask(0o022)
    writable = [*given.writable, *([given.scratch] if given.scratch else [])]
    sources = [_opened(one) for one in (*given.readable, *writable)]
    _mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    _show_system(root)
    _show_devices(root)
    (root / "proc").mkdir()
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    if given.scratch:  # first: what else is shown may lie below /tmp
        _bind(sources[-1], root / "tmp")
    for source, place in zip(sources, (*given.readable, *writable), strict=True):
        is_readable = place in given.readable
        _bind(source, root / place.resolve().relative_to("/"), read_only=is_readable)
    for source in sources:
        os.close(int(source.name))
    _remount(root, MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.umask(before)


def _opened(place: Path) -> Path:
    """Return a name for a folder that holds when something is mounted above it."""
    return Path("/proc/self/fd") / str(os.open(place, os.O_PATH | os.O_DIRECTORY))


def _show_system(root: Path) -> None:
    for name in SYSTEM:
        place = Path("/") / name
        if place.is_symlink():
            (root / name).symlink_to(place.readlink())
        elif place.is_dir():
            _bind(place, root / name, read_only=True)
    (root / "etc").mkdir()
    for name in LOOKED_UP:
        place = Path("/etc") / name
        if place.exists():
            _bind(place.resolve(), root / "etc" / name, read_only=True)


def _show_devices(root: Path) -> None:
    folder = root / "dev"
    (folder / "shm").mkdir(parents=True)
    for name in DEVICES:
        _bind(Path("/dev") / name, folder / name)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (folder / name).symlink_to(f"/proc/self/fd/{number}")
    (folder / "fd").symlink_to("/proc/self/fd")
    _mount("tmpfs", folder / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")


def _bind(source: Path, place: Path, *, read_only: bool = False) -> None:
    """Show a file or folder at another place; a device stays usable."""
    kind = source.stat().st_mode
    if stat.S_ISDIR(kind):
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.touch()
    _mount(str(source), place, "", MS_BIND | MS_REC)
    if not stat.S_ISCHR(kind):
        _remount(place, MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0))


def _remount(place: Path, flags: int) -> None:
    there = os.statvfs(place).f_flag
    kept = sum(flag for known, flag in KEPT_FLAGS.items() if there & known and not flags & flag)
    _mount("none", place, "", MS_REMOUNT | MS_BIND | flags | kept)


def _be_first(given: argparse.Namespace, folder: Path) -> int:
    """Live as the first process inside: start the command, pass signals on, bury the dead."""
    _call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    _mount("proc", given.root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(given.root)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir(folder if folder.is_dir() else "/")
    command = os.fork()
    if command == 0:
        _exit_with(lambda: _become(given))
    return _wait(command)


def _become(given: argparse.Namespace) -> int:
    if given.user is not None:
        os.setgroups([])
        os.setgid(given.group)
        os.setuid(given.user)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    os.execvp(given.command[0], given.command)  # noqa: S606 - running it is the purpose


def _exit_with(work: Callable[[], int]) -> None:
    """End a forked process without running what belongs to its parent."""
    code = CANNOT
    try:
        code = work()
    except OSError as error:
        sys.stderr.write(f"No sandbox: {error.strerror or error} ({error.filename or 'mount'})\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int:
    """Pass signals on until this child ends; children of the dead are buried on the way."""
    for number in FORWARDED:
        signal.signal(number, lambda received, _frame: _pass_on(child, received))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
    words = (source.encode(), os.fsencode(place), kind.encode() or None)
    _call("mount", *words, ctypes.c_ulong(flags), options.encode() or None, about=str(place))


def _call(name: str, *arguments: object, about: str = "") -> None:
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", about or name)


if __name__ == "__main__":
    sys.exit(main())
