"""A completion that takes the short way: its answer is written to the socket by whoever has it.

No ASGI messages in between; docs/benchmarks.md has what that saves.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, ClassVar, Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE

from openclaw_web.gateway.calls import Call, late_body
from openclaw_web.gateway.errors import RefusalError
from openclaw_web.gateway.heads import Head
from openclaw_web.gateway.patience import Patience, Waiter

MAX_KNOWN_HEADS: Final = 256

_STREAMED: Final = (
    b"cache-control: no-cache\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n"
)
_NOBODY_WAITS: Final = asyncio.Event()  # uvicorn sets it for its own cycles, which wait for it


class Front(Protocol):
    """Who answers."""

    def expect(self, waiter: Waiter) -> None:
        """Take notice of who waits for the rest of a head or a body."""

    def take(self, call: "DirectCall") -> None:
        """Answer a request that is all here."""

    def drop(self, waiter: Waiter) -> None:
        """Forget who waited: all is here, or will never be."""

    async def watch_over(self, call: Call, answering: Coroutine[Any, Any, None]) -> None:
        """Answer, and turn what goes wrong into an answer of its own."""

    def refuse(self, call: "DirectCall", refusal: RefusalError) -> None:
        """Say why there is no answer."""


class Line(Protocol):
    """The connection to a client, as a call on it sees it. All but two names are uvicorn's."""

    front: Front
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: FlowControl
    tasks: set[asyncio.Task[None]]

    def common_headers(self) -> bytes: ...

    def on_response_complete(self) -> None: ...


class DirectCall(Call):
    """A completion whose answer is written to the socket by whoever has it.

    To uvicorn it is the cycle of a request, and has what that looks at.
    """

    __slots__ = (
        "_is_chunked",
        "_left",
        "_line",
        "_parts",
        "_unsent_head",
        "disconnected",
        "is_passing",
        "is_read",
        "keep_alive",
        "on_drained",
        "on_gone",
        "response_complete",
    )

    message_event: ClassVar[asyncio.Event] = _NOBODY_WAITS

    def __init__(self, line: Line, head: Head, *, keep_alive: bool) -> None:
        super().__init__(head)
        self._line = line
        self._parts: list[bytes] = []
        self._unsent_head = b""
        self._is_chunked = False
        self._left: asyncio.Future[None] | None = None
        self.is_read = False  # the whole body is here
        self.is_passing = False  # no task answers, but what the provider sends
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.on_gone: Callable[[], None] | None = None
        self.on_drained: Callable[[], None] | None = None

    @property
    def is_held_back(self) -> bool:
        """Say whether the client takes less than what is written to it."""
        return self._line.flow.write_paused

    def taken(self) -> bytes:
        """Return the body, which is all here, once: a resting connection shall not keep it."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write_whole(self, kind: bytes, encoding: bytes | None, body: bytes) -> None:
        """Send an answer with one write."""
        start, own = _start(kind, encoding), self._own()
        self._finish(b"%bcontent-length: %d\r\n%b%b" % (start, len(body), own, body))

    def begin_stream(self, kind: bytes, encoding: bytes | None) -> None:
        """Send the head of a stream along with what is written next."""
        self._unsent_head = b"%b%b%b" % (_start(kind, encoding), _STREAMED, self._own())
        self.has_begun = True

    def write_part(self, part: bytes) -> None:
        """Send a part of a stream; an empty one sends the head, if that has not gone yet."""
        head, self._unsent_head = self._unsent_head, b""
        if part:
            self._write(b"%b%x\r\n%b\r\n" % (head, len(part), part))
        elif head:
            self._write(head)

    def write_last(self, part: bytes) -> None:
        """Send the end of a stream."""
        head, self._unsent_head = self._unsent_head, b""
        chunk = b"%x\r\n%b\r\n" % (len(part), part) if part else b""
        self._finish(b"%b%b0\r\n\r\n" % (head, chunk))

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Go on in a task of its own."""
        line, self.is_passing = self._line, False
        self.task = line.loop.create_task(line.front.watch_over(self, answering))
        line.tasks.add(self.task)
        self.task.add_done_callback(self._end_task)

    def close(self) -> None:
        """Close the connection at once: half an answer must not look whole.

        What the client has not taken yet is given up, or it could hold the connection for ever.
        """
        self._line.transport.abort()

    def cancel(self) -> None:
        """Give up waiting for a body that does not come."""
        self.is_read = True  # what comes from now on is too late
        self.keep_alive = False
        self._line.front.refuse(self, late_body())

    async def body(self, patience: Patience) -> bytes:  # noqa: ARG002 - other calls have to wait
        self.length()
        return self.taken()

    async def gone(self) -> None:
        if not self.disconnected:
            self._left = self._line.loop.create_future()
            await self._left

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._is_chunked = not any(name == b"content-length" for name, _ in headers)
        lines = b"".join([header_line(header) for header in headers])
        coding = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
        self._unsent_head = b"%b%b%b%b" % (STATUS_LINE[status], lines, coding, self._own())
        self.has_begun = True
        if self._is_chunked:
            self.write_part(b"")

    async def go_on(self, part: bytes) -> None:
        await self._line.flow.drain()
        self.write_part(part)

    async def end(self, part: bytes) -> None:
        await self._line.flow.drain()
        if self._is_chunked:
            self.write_last(part)
        else:
            head, self._unsent_head = self._unsent_head, b""
            self._finish(head + part)

    def add(self, part: bytes) -> None:
        """Take over a part of the body, unless it comes too late."""
        if not self.is_read:
            self._parts.append(part)

    def complete(self) -> None:
        """Take over that the body is whole."""
        if self.is_read:
            return
        self.is_read = True
        self._line.front.take(self)

    def lose(self) -> None:
        """Take over that the client has left."""
        self.disconnected = True
        if not self.is_read:
            self._line.front.drop(self)
        if self._left is not None and not self._left.done():
            self._left.set_result(None)
        if self.on_gone is not None:
            self.on_gone()

    def _own(self) -> bytes:
        """Return the rest of a head: what every answer says, and the empty line."""
        close = b"" if self.keep_alive else b"connection: close\r\n"
        extra = b"".join([header_line(header) for header in self.extra]) if self.extra else b""
        name = self.request_id.encode()
        common = self._line.common_headers()
        return b"%bx-request-id: %b\r\nrequest-id: %b\r\n%b%b\r\n" % (
            common,
            name,
            name,
            extra,
            close,
        )

    def _write(self, data: bytes) -> None:
        if not self.disconnected:
            self._line.transport.write(data)

    def _finish(self, data: bytes) -> None:
        self._write(data)
        self.has_begun = self.response_complete = True
        self.on_gone = self.on_drained = None
        if not self.keep_alive:
            self._line.transport.close()
        self._line.on_response_complete()

    def _end_task(self, task: "asyncio.Task[None]") -> None:
        self._line.tasks.discard(task)
        if task is not self.task:
            return  # a newer one answers
        failed = task.cancelled() or task.exception() is not None
        is_unanswered = not self.response_complete and not self.is_passing
        if not self.disconnected and (failed or is_unanswered):
            self.close()


@lru_cache(maxsize=MAX_KNOWN_HEADS)
def _start(kind: bytes, encoding: bytes | None) -> bytes:
    """Return how a good answer of a content type begins."""
    headers = [(b"content-type", kind)]
    if encoding is not None:
        headers.append((b"content-encoding", encoding))
    return STATUS_LINE[200] + b"".join([header_line(header) for header in headers])


def header_line(header: tuple[bytes, bytes]) -> bytes:
    """Return a header as a line.

    Raises:
        RuntimeError: as uvicorn does, when its value would be more than one.
    """
    if HEADER_VALUE_RE.search(header[1]):
        raise RuntimeError("Invalid HTTP header value.")
    return b"%b: %b\r\n" % header
