"""OpenClaw's health endpoints, in a server as small as can be."""

import asyncio
import contextlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any

READ_SECONDS = 5
BROKEN_REQUEST = (
    OSError,
    TimeoutError,
    ValueError,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
)
REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass
class Health:
    """What is known about this process; `failing` names the parts that do not work, and why."""

    phase: str = "starting"
    failing: dict[str, str] = field(default_factory=dict)
    began_at: float = field(default_factory=time.monotonic)

    def fail(self, part: str, reason: str) -> None:
        self.failing[part] = reason

    def recover(self, part: str) -> None:
        self.failing.pop(part, None)

    @property
    def is_ready(self) -> bool:
        return self.phase == "started" and not self.failing


class HealthServer:
    def __init__(self, health: Health, gateway_token: str) -> None:
        self._health = health
        self._token = gateway_token.encode()

    async def start(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._serve, host, port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*BROKEN_REQUEST):
            async with asyncio.timeout(READ_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                writer.write(self._answer(head))
                await writer.drain()
        writer.close()

    def _answer(self, head: str) -> bytes:
        first, *lines = head.split("\r\n")
        method, target, _version = first.split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        if method not in {"GET", "HEAD"}:
            status, body = 405, {"error": "method not allowed"}
        else:
            status, body = self._status(target.partition("?")[0], headers)
        content = json.dumps(body).encode()
        answer_head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\ncache-control: no-store\r\n"
            "connection: close\r\n\r\n"
        )
        return answer_head.encode() + (content if method == "GET" else b"")

    def _status(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        phase = self._health.phase
        if path in {"/health", "/healthz"}:
            return 200, {"ok": True, "status": "live"}
        if path == "/startupz":
            is_started = phase == "started"
            return 200 if is_started else 503, {"ok": is_started, "status": phase}
        if path in {"/ready", "/readyz"}:
            return 200 if self._health.is_ready else 503, self._readiness(headers)
        return 404, {"error": "not found"}

    def _readiness(self, headers: dict[str, str]) -> dict[str, Any]:
        failing = dict(self._health.failing)
        if self._health.phase != "started":
            failing["gateway"] = self._health.phase
        body: dict[str, Any] = {"ready": self._health.is_ready, "failing": sorted(failing)}
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._token and hmac.compare_digest(given, self._token):
            body["reasons"] = failing
            body["uptime_seconds"] = round(time.monotonic() - self._health.began_at, 1)
        return body
