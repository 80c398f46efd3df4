"""The secure door: the same API by TLS, on a second port, for kubectl.

kubectl ignores a kubeconfig's token unless the server's address is https, so a kubeconfig that
works for every client needs this.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn

from simulators import LOOPBACK, Asgi, LoopbackGuard, Options

AUTHORITY, CERTIFICATE, KEY = "authority.pem", "certificate.pem", "key.pem"
_PORT_FILE = "secure-port"


@dataclass(frozen=True)
class SecureDoor:
    """A bound socket and the certificate that goes with it."""

    listener: socket.socket
    folder: Path
    options: Options

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self.options.port}"

    @property
    def authority(self) -> bytes:
        return (self.folder / AUTHORITY).read_bytes()

    @asynccontextmanager
    async def serving(
        self, app: Asgi, content_types: frozenset[str], vendor_paths: tuple[str, ...]
    ) -> AsyncGenerator["_Server"]:
        """Serve beside the plain port, behind the same safety rules."""
        guarded = LoopbackGuard(
            app, self.options, content_types=content_types, vendor_paths=vendor_paths
        )
        server = _Server(
            uvicorn.Config(
                guarded,
                lifespan="off",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=1,
                ssl_certfile=self.folder / CERTIFICATE,
                ssl_keyfile=str(self.folder / KEY),
            )
        )
        task = asyncio.ensure_future(server.serve(sockets=[self.listener]))
        try:
            yield server
        finally:
            server.end()
            await task


class _Server(uvicorn.Server):
    """A server that leaves the signals to the one on the plain port."""

    def end(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def open_door(options: Options) -> SecureDoor:
    """Bind the port of the last time if it is free, and make a certificate if there is none."""
    folder = options.state / "tls"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not all((folder / name).exists() for name in (AUTHORITY, CERTIFICATE, KEY)):
        command = [sys.executable, "-m", "simulators.kubernetes.certificate", str(folder)]
        subprocess.run(command, check=True)  # noqa: S603 - our own module, with our own folder
    remembered = folder / _PORT_FILE
    port = int(remembered.read_text(encoding="ascii")) if remembered.exists() else 0
    listener = _bound(port)
    port = listener.getsockname()[1]
    remembered.write_text(str(port), encoding="ascii")
    return SecureDoor(listener, folder, replace(options, port=port))


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError:
        listener.bind((LOOPBACK, 0))
    return listener
