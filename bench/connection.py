"""The load generator's side of one HTTP/1.1 connection: raw, so that it costs little itself."""

import asyncio
import time
from typing import cast

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
TAIL_BYTES = 64
STREAM_ENDS = (b"[DONE]", b"message_stop")

now = time.perf_counter


class CutError(ConnectionError):
    """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """One request at a time; what is left of an answer is a handful of figures."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self.is_closed = False
        self._reset(is_stream=False, leave_after=0)

    def _reset(self, *, is_stream: bool, leave_after: int) -> None:
        self._is_stream = is_stream
        self._leave_after = leave_after
        self._received = b""
        self._tail = b""
        self._length: int | None = None
        self._is_chunked = False
        self._can_keep = True
        self._body_bytes = 0
        self.status = 0
        self.has_retry_after = False
        self.events = 0
        self.has_ended_well = False
        self.has_left = False
        self.first_byte_at: float | None = None
        self.started_at = now()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.is_closed = True
        if self._done is None or self._done.done():
            return
        if self.status and not self._is_chunked and self._length is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(CutError("the connection ended in an answer"))

    def ask(self, request: bytes, *, is_stream: bool, leave_after: int) -> asyncio.Future[None]:
        """Send a request; the future ends with its answer, or when the client leaves it."""
        if self._transport is None:
            raise CutError("not connected")
        self._done = asyncio.get_running_loop().create_future()
        self._reset(is_stream=is_stream, leave_after=leave_after)
        self._transport.write(request)
        return self._done

    def abort(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            return
        if not self.status:
            data = self._read_head(data)
            if not self.status or (not data and self._length != 0):
                return
        self._body_bytes += len(data)
        if self.first_byte_at is None:
            self.first_byte_at = now()
        seen = self._tail + data
        self._tail = seen[-TAIL_BYTES:]
        if self._is_stream and self._watch_stream(data, seen):
            return
        whole = self._length is not None and self._body_bytes >= self._length
        if whole or (self._is_chunked and self._tail.endswith(LAST_CHUNK)):
            self._finish()

    def _read_head(self, data: bytes) -> bytes:
        """Read the head once it is whole, and return what follows it."""
        self._received += data
        head, found, body = self._received.partition(HEAD_END)
        if not found:
            return b""
        self._received = b""
        head = head.lower()
        self.status = int(head[9:12])
        self.has_retry_after = b"\r\nretry-after:" in head
        self._is_chunked = b"transfer-encoding: chunked" in head
        _, given, rest = head.partition(b"content-length:")
        self._length = int(rest.split(b"\r\n", 1)[0]) if given else None
        is_delimited = self._is_chunked or self._length is not None
        self._can_keep = is_delimited and b"connection: close" not in head
        return body

    def _watch_stream(self, data: bytes, seen: bytes) -> bool:
        """Count events; `True` when this is where the client leaves."""
        self.events += data.count(b"data:")
        self.has_ended_well = self.has_ended_well or any(end in seen for end in STREAM_ENDS)
        if self._leave_after and self.events >= self._leave_after:
            self.has_left = True
            self.abort()
            if self._done is not None:
                self._done.set_result(None)
            return True
        return False

    def _finish(self) -> None:
        if not self._can_keep:
            self.abort()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
