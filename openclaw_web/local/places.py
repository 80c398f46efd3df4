"""Where the embedded stack keeps things: a state folder, and what another user must reach."""

import hashlib
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from openclaw_web.core.errors import OpenClawError

PROJECT = Path(__file__).resolve().parents[2]
PRIVATE = 0o700
PASSABLE = 0o711  # others may pass through to what they know by name, but not look around
SECRET_FILE = 0o600
OUTSIDE_PARENT = Path("/var/tmp")  # noqa: S108 - survives a reboot; the owner of what we find there is checked
OUTSIDE_NOTE = "outside.txt"


class PlaceError(OpenClawError):
    """The state folder cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Identity:
    """The system user that runs what must not run as root."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of one stack. `outside` is `home`, unless `identity` cannot reach that."""

    home: Path
    outside: Path
    identity: Identity | None

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def web(self) -> Path:
        return self.home / "web"

    @property
    def simulators(self) -> Path:
        return self.home / "simulators"

    @property
    def cluster(self) -> Path:
        """The cluster's state; the boxes' user passes through it to the boxes' own folders."""
        return self.outside / "cluster"

    @property
    def volumes(self) -> Path:
        return self.outside / "volumes"

    @property
    def postgres(self) -> Path:
        return self.outside / "postgres"

    @property
    def valkey(self) -> Path:
        return self.home / "valkey"

    @property
    def stack_file(self) -> Path:
        return self.home / "stack.env"

    @property
    def admin_file(self) -> Path:
        return self.home / "admin.txt"

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def secret(self, name: str) -> Path:
        return self.secrets / name


def open_places(home: Path) -> Places:
    """Make the state folder, or open it again.

    Raises:
        PlaceError: the folder cannot be made or written.
    """
    home = home.expanduser().resolve()
    identity = unprivileged_identity()
    _make_private(home)
    outside = home
    if identity is not None:
        if is_passable(home.parent):
            home.chmod(PASSABLE)
        else:
            outside = _make_outside(home)
    places = Places(home=home, outside=outside, identity=identity)
    for folder in (places.logs, places.secrets, places.simulators, places.valkey):
        folder.mkdir(mode=PRIVATE, exist_ok=True)
    make_passable(places.volumes)
    return places


def forget(home: Path) -> None:
    """Remove the state folder and what belongs to it elsewhere."""
    note = home / OUTSIDE_NOTE
    if note.is_file():
        shutil.rmtree(_owned(Path(note.read_text(encoding="utf-8").strip())), ignore_errors=True)
    shutil.rmtree(home)


def unprivileged_identity() -> Identity | None:
    """Return the user for servers that refuse to run as root; `None` when we are not root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Identity(nobody.pw_uid, nobody.pw_gid)


def is_passable(folder: Path) -> bool:
    """Say whether any user may pass through this folder and all above it."""
    return all(
        one.stat().st_mode & stat.S_IXOTH for one in (folder.resolve(), *folder.resolve().parents)
    )


def make_passable(folder: Path) -> None:
    """Make a folder that others may pass through, whatever the umask says."""
    folder.mkdir(exist_ok=True)
    folder.chmod(PASSABLE)


def write_secret(path: Path, value: str) -> None:
    """Write a file that only its owner may read, in one step."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, SECRET_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(value)
    fresh.replace(path)


def _make_private(home: Path) -> None:
    try:
        home.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        probe = home / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PlaceError(
            f"The state folder {home} cannot be written ({error.strerror}); make it yours, or name "
            "another one: OPENCLAW_CLOUD_HOME=~/openclaw-cloud make run"
        ) from error
    if home.stat().st_uid == os.geteuid():
        home.chmod(PRIVATE)


def _make_outside(home: Path) -> Path:
    """Make a folder for what `nobody` must reach when the state folder lies in a private one."""
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    outside = OUTSIDE_PARENT / f"openclaw-cloud-{digest}"
    outside.mkdir(mode=PRIVATE, exist_ok=True)
    _owned(outside).chmod(PASSABLE)
    (home / OUTSIDE_NOTE).write_text(f"{outside}\n", encoding="utf-8")
    return outside


def _owned(folder: Path) -> Path:
    """Refuse a folder that somebody else put where ours belongs.

    Raises:
        PlaceError: it is a link, or another user's.
    """
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
        return folder
    raise PlaceError(
        f"{folder} is not ours; remove it, or name another state folder in OPENCLAW_CLOUD_HOME."
    )
