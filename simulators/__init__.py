"""The outside world on a laptop, speaking the vendors' own protocols.

Each subpackage stands alone and knows nothing of the product. This module is what all of them
share: how a simulator is started, and the safety rules that keep web pages of the same machine out.
"""

import argparse
import asyncio
import hmac
import json
import os
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = "127.0.0.1"
TOKEN_HEADER = b"x-simulator-token"
METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a simulator was asked to run.

    `public_url` is where a browser finds this simulator's pages (they are forwarded by the
    product's web process); `token` opens its pages and control endpoints.
    """

    port: int
    state: Path
    public_url: str
    token: str

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


def parser(description: str) -> argparse.ArgumentParser:
    """Return the arguments that every simulator takes; a simulator may add its own."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--state", type=Path, required=True, help="folder that keeps the state")
    made.add_argument("--public-url", required=True, help="where a browser reaches the pages")
    made.add_argument("--token-file", type=Path, required=True, help="0600 file with the token")
    return made


def options(arguments: argparse.Namespace) -> Options:
    arguments.state.mkdir(parents=True, exist_ok=True)
    return Options(
        port=arguments.port,
        state=arguments.state,
        public_url=arguments.public_url.rstrip("/"),
        token=read_secret(arguments.token_file),
    )


def read_secret(path: Path) -> str:
    """Read a secret from a file that only its owner may read.

    Raises:
        SystemExit: others may read the file; the message says how to mend it.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SystemExit(f"{path} may be read by others; run: chmod 600 {path}")
    return path.read_text(encoding="utf-8").strip()


def serve(
    app: Asgi,
    chosen: Options,
    *,
    content_types: frozenset[str],
    vendor_paths: tuple[str, ...],
    connection: type[asyncio.Protocol] | None = None,
) -> None:
    """Serve on loopback only, behind the safety rules, until a signal ends the process.

    `connection` is the protocol of one connection; uvicorn's own unless given.
    """
    guarded = LoopbackGuard(app, chosen, content_types=content_types, vendor_paths=vendor_paths)
    uvicorn.run(
        guarded,
        host=LOOPBACK,
        port=chosen.port,
        http=connection or "auto",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )


class LoopbackGuard:
    """Keep other people's web pages out of a development server.

    Host must be ours (no DNS rebinding), a foreign Origin is refused, a body's Content-Type must be
    exactly one that the vendor takes (so a page cannot send a "simple" request), and everything
    outside the vendor's own paths needs the token. The vendor's paths are guarded by the vendor's
    own credential.
    """

    def __init__(
        self,
        app: Asgi,
        chosen: Options,
        *,
        content_types: frozenset[str],
        vendor_paths: tuple[str, ...],
    ) -> None:
        self._app = app
        self._hosts = {f"{name}:{chosen.port}" for name in (LOOPBACK, "localhost")}
        parts = urlsplit(chosen.public_url)
        self._origins = {
            f"{parts.scheme}://{parts.netloc}",
            *(f"http://{host}" for host in self._hosts),
        }
        self._content_types = content_types
        self._vendor_paths = vendor_paths
        self._token = chosen.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in {"http", "websocket"} else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(send, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if host not in self._hosts:
            return 421, f"Host {host!r} is not this simulator."
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin not in self._origins:
            return 403, f"Origin {origin!r} may not use this simulator."
        if self._needs_token(scope["path"]) and not hmac.compare_digest(
            headers.get(TOKEN_HEADER, b""), self._token
        ):
            return (
                401,
                (
                    "This page needs the token from the state folder; open it through the "
                    "product's /dev pages."
                ),
            )
        return self._body_refusal(scope, headers)

    def _needs_token(self, path: str) -> bool:
        return not any(
            path == known or path.startswith(f"{known}/") for known in self._vendor_paths
        )

    def _body_refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        if scope.get("method") not in METHODS_WITH_BODY or not has_body:
            return None
        content_type = (
            headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        )
        if content_type in self._content_types:
            return None
        wanted = " or ".join(sorted(self._content_types))
        return (
            415,
            f"Content-Type {content_type!r} is not taken here; send {wanted}.",
        )


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def write_secret(path: Path, value: str) -> None:
    """Write a secret that only its owner may read, in one step."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(value)
