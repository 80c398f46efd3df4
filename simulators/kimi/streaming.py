"""Sending answers: whole or as a stream of events, and broken in every way that was asked for."""

import asyncio
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from simulators.kimi import connections
from simulators.kimi.events import Event
from simulators.kimi.faults import CUTS, MALFORMED, Delivery, Kind

GZIP = 16 + zlib.MAX_WBITS


@dataclass
class Sent:
    """How much of an answer went out."""

    size_bytes: int = 0
    is_cut: bool = False


class Wire:
    """One answer on its way down to one client."""

    def __init__(
        self, delivery: Delivery, sent: Sent, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._delivery = delivery
        self._sent = sent
        self._client = scope.get("client")
        self._receive = receive
        self._send = send
        self._packer = zlib.compressobj(wbits=GZIP) if delivery.is_gzip else None

    async def start(self, status: int, headers: dict[str, str]) -> None:
        if self._packer is not None:
            headers = headers | {"content-encoding": "gzip"}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        if self._packer is not None:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        size = self._delivery.split_bytes or len(data)
        for at in range(0, len(data), max(1, size)):
            await self._body(data[at : at + size])
            if self._delivery.split_bytes:
                await asyncio.sleep(0)

    async def end(self) -> None:
        rest = self._packer.flush() if self._packer is not None else b""
        await self._send({"type": "http.response.body", "body": rest})

    async def break_off(self, kind: Kind) -> None:
        """Do what the fault says; the answer does not go on after this."""
        self._sent.is_cut = True
        if kind is Kind.END:
            await self.end()
            return
        if kind is Kind.RESET:
            connections.reset(self._client)
        elif kind is Kind.CLOSE:
            connections.close(self._client)
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _body(self, data: bytes) -> None:
        self._sent.size_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


class Silence:
    """No answer at all: the connection hangs, or ends."""

    def __init__(self, kind: Kind, sent: Sent) -> None:
        self._kind = kind
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Wire(Delivery(), self._sent, scope, receive, send).break_off(self._kind)


class EventStream:
    """A server-sent event stream."""

    def __init__(
        self,
        events: Iterator[Event],
        *,
        headers: dict[str, str],
        delivery: Delivery,
        failure: Event,
        sent: Sent,
    ) -> None:
        self._events = events
        self._headers = headers
        self._delivery = delivery
        self._failure = failure
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(self._delivery, self._sent, scope, receive, send)
        standard = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
        }
        await wire.start(200, standard | self._headers)
        content_seen = 0
        for event in self._events:
            if event.is_content:
                if await self._has_failed(wire, content_seen):
                    return
                content_seen += 1
                await asyncio.sleep(self._delivery.chunk_delay_seconds)
            await wire.write(event.encode())
        await wire.end()

    async def _has_failed(self, wire: Wire, content_seen: int) -> bool:
        fault = self._delivery.fault
        if fault is None or content_seen != (fault.after_chunks or 0):
            return False
        if fault.kind is Kind.MALFORMED:
            await wire.write(MALFORMED)
            return False
        if fault.kind is Kind.ERROR:
            await wire.write(self._failure.encode())
        await wire.break_off(Kind.END if fault.kind is Kind.ERROR else fault.kind)
        return True


class WholeAnswer:
    """A JSON answer; a broken one promises more bytes than it brings."""

    def __init__(
        self,
        status: int,
        body: dict[str, Any],
        *,
        headers: dict[str, str],
        sent: Sent,
        delivery: Delivery | None = None,
    ) -> None:
        self._status = status
        self._body = json.dumps(body, ensure_ascii=False).encode()
        self._headers = headers
        self._delivery = delivery or Delivery()
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(self._delivery, self._sent, scope, receive, send)
        fault, body = self._delivery.fault, self._body
        headers = {"content-type": "application/json"} | self._headers
        if fault is not None:
            body = body[: len(body) // 2]
        is_framed = fault is None or fault.kind in {Kind.HANG, Kind.CLOSE, Kind.RESET}
        if is_framed and not self._delivery.is_gzip:
            headers["content-length"] = str(len(self._body))
        await wire.start(self._status, headers)
        await wire.write(body)
        if fault is not None and fault.kind in CUTS:
            await wire.break_off(Kind.END if fault.kind is Kind.ERROR else fault.kind)
        else:
            await wire.end()
