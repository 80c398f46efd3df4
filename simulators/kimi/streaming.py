"""Sending answers, also broken off in the middle: the connection then closes without an end."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from simulators.kimi.reading import Event


@dataclass
class Sent:
    """How much of an answer went out."""

    size_bytes: int = 0
    is_cut: bool = False


class EventStream:
    """A server-sent event stream; after `cut_after` pieces of content it stops in mid-air."""

    def __init__(
        self,
        events: Iterator[Event],
        *,
        headers: dict[str, str],
        chunk_delay_seconds: float,
        cut_after: int | None,
        sent: Sent,
    ) -> None:
        self._events = events
        self._headers = headers
        self._chunk_delay = chunk_delay_seconds
        self._cut_after = cut_after
        self._sent = sent

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
        } | self._headers
        await send(_start(200, headers))
        content_seen = 0
        for event in self._events:
            if event.is_content:
                if content_seen == self._cut_after:
                    # An unfinished response makes the server drop the connection.
                    self._sent.is_cut = True
                    return
                content_seen += 1
                await asyncio.sleep(self._chunk_delay)
            await self._send(send, event.encode())
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent.size_bytes += len(data)
        await send({"type": "http.response.body", "body": data, "more_body": True})


class WholeAnswer:
    """A JSON answer; a cut one promises more bytes than it brings."""

    def __init__(
        self,
        status: int,
        body: dict[str, Any],
        *,
        headers: dict[str, str],
        is_cut: bool,
        sent: Sent,
    ) -> None:
        self._status = status
        self._body = json.dumps(body, ensure_ascii=False).encode()
        self._headers = headers
        self._is_cut = is_cut
        self._sent = sent

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = {
            "content-type": "application/json",
            "content-length": str(len(self._body)),
        } | self._headers
        await send(_start(self._status, headers))
        body = self._body[: len(self._body) // 2] if self._is_cut else self._body
        self._sent.size_bytes = len(body)
        self._sent.is_cut = self._is_cut
        await send({"type": "http.response.body", "body": body, "more_body": self._is_cut})


def _start(status: int, headers: dict[str, str]) -> dict[str, Any]:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}
