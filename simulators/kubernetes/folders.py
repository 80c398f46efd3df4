"""The folders that pods see: who owns them, and files that change all at once.

What holds a pod's folders, and every Secret's files, stays ours even when pods run as another user:
such a user must not be able to put a link where we write next.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRAVERSE_ONLY = 0o711
PRIVATE = 0o700
READABLE = 0o750
_OWNER_READS, _GROUP_READS = 0o400, 0o040
_DATA = "..data"


@dataclass(frozen=True)
class Owner:
    """The user that pods run as, when not the one that runs the cluster."""

    uid: int
    gid: int

    @classmethod
    def parse(cls, text: str) -> "Owner":
        uid, _, gid = text.partition(":")
        return cls(int(uid), int(gid or uid))


@dataclass(frozen=True)
class File:
    """One file of a Secret or a ConfigMap."""

    content: bytes
    mode: int


def private_folder(path: Path, owner: Owner | None) -> Path:
    """Make a folder for its owner alone; the folders above it can be passed through."""
    _open_the_way(path)
    path.mkdir(mode=PRIVATE, exist_ok=True)
    give(path, owner)
    return path


def readable_folder(path: Path, owner: Owner | None) -> Path:
    """Make a folder that stays ours and that the pods' user may read."""
    _open_the_way(path)
    path.mkdir(mode=PRIVATE, exist_ok=True)
    _let_read(path, READABLE, owner)
    return path


def _open_the_way(path: Path) -> None:
    """Make the folders above, whatever the umask: the pods' user has to pass through them."""
    for folder in reversed(path.parents):
        if not folder.exists():
            passage(folder)


def _let_read(path: Path, mode: int, owner: Owner | None) -> None:
    if owner is not None:
        os.chown(path, -1, owner.gid, follow_symlinks=False)
        mode |= _GROUP_READS if mode & _OWNER_READS else 0
        path.chmod(mode)


def passage(path: Path) -> Path:
    """Make a folder that others may pass through but not list."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(TRAVERSE_ONLY)
    return path


def give(path: Path, owner: Owner | None) -> None:
    if owner is not None:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def check_reachable(path: Path, owner: Owner | None) -> None:
    """Make sure that the pods' user can reach a folder.

    Raises:
        SystemExit: a folder above it is closed; the message says which.
    """
    if owner is None:
        return
    for folder in (path, *path.parents):
        found = folder.stat()
        bit = 0o001
        if found.st_uid == owner.uid:
            bit = 0o100
        elif found.st_gid == owner.gid:
            bit = 0o010
        if not found.st_mode & bit:
            raise SystemExit(
                f"user {owner.uid} (--run-as) cannot pass through {folder}, which is on the way to"
                f" {path}; choose another folder, or run: chmod o+x {folder}"
            )


def project(folder: Path, files: Mapping[str, File], owner: Owner | None) -> bool:
    """Show these files in the folder, all of them at once; say whether anything changed.

    As the kubelet does it: `name` links to `..data/name`, and `..data` is flipped to a fresh
    folder, so that a reader never sees half of an update.
    """
    before = _current(folder)
    if before is not None and _same(folder / before, files):
        return False
    fresh = readable_folder(folder / f"..{secrets.token_hex(8)}", owner)
    for name, file in files.items():
        _write(fresh, name, file, owner)
    link = folder / f"{_DATA}_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(folder / _DATA)
    tops = {Path(name).parts[0] for name in files}
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"{_DATA}/{top}")
    if before is not None:
        shutil.rmtree(folder / before, ignore_errors=True)
    return True


def _current(folder: Path) -> str | None:
    link = folder / _DATA
    return str(link.readlink()) if link.is_symlink() else None


def _same(folder: Path, files: Mapping[str, File]) -> bool:
    present = {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()}
    return present == set(files) and all(
        (folder / name).read_bytes() == file.content for name, file in files.items()
    )


def _write(folder: Path, name: str, file: File, owner: Owner | None) -> None:
    path = folder / name
    for parent in reversed(list(path.relative_to(folder).parents)[:-1]):
        readable_folder(folder / parent, owner)
    path.write_bytes(file.content)
    path.chmod(file.mode)
    _let_read(path, file.mode, owner)
