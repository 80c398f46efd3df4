"""uvicorn's HTTP protocol with a shorter way for completions: no ASGI messages in between.

Everything else about a connection stays uvicorn's: the parser, keep-alive, pipelining, the end.
What is no plain completion goes its usual way, through the ASGI app. docs/benchmarks.md has what
the shorter way saves.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, ClassVar, Protocol, cast

from uvicorn.protocols.http.httptools_impl import (
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from openclaw_web.gateway.calls import MOUNT, Call, late_body
from openclaw_web.gateway.errors import RefusalError
from openclaw_web.gateway.heads import Head, KnownHead, Scope, known_head
from openclaw_web.gateway.patience import Patience

MAX_BODY_BYTES = 262_144  # taken before anybody asked who sends it; more goes the usual way
MAX_KNOWN_HEADS = 256
UNTAKEN_SECONDS = 60.0  # for a client that takes nothing of an answer that is written

_PATHS = {f"{MOUNT}{path}".encode(): path for path in ("/v1/chat/completions", "/v1/messages")}
_UNUSUAL = frozenset({b"expect", b"upgrade", b"transfer-encoding"})
_STREAMED = b"cache-control: no-cache\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n"
_NOBODY_WAITS = asyncio.Event()  # uvicorn sets it for its own cycles, which wait for it

DefaultHeaders = list[tuple[bytes, bytes]]


class Front(Protocol):
    """Who answers."""

    def expect(self, call: "DirectCall") -> None:
        """Take notice of a request whose body has not come with its head."""

    def take(self, call: "DirectCall") -> None:
        """Answer a request that is all here."""

    def drop(self, call: "DirectCall") -> None:
        """Forget a request whose client left, or was too slow, before it was all here."""

    async def watch_over(self, call: Call, answering: Coroutine[Any, Any, None]) -> None:
        """Answer, and turn what goes wrong into an answer of its own."""

    def refuse(self, call: "DirectCall", refusal: RefusalError) -> None:
        """Say why there is no answer."""


class DirectCall(Call):
    """A completion whose answer is written to the socket by whoever has it.

    To uvicorn it is the cycle of a request, and has what that looks at.
    """

    __slots__ = (
        "_head",
        "_is_chunked",
        "_left",
        "_parts",
        "_protocol",
        "disconnected",
        "is_passing",
        "is_read",
        "keep_alive",
        "on_drained",
        "on_gone",
        "response_complete",
    )

    message_event: ClassVar[asyncio.Event] = _NOBODY_WAITS

    def __init__(self, protocol: "DirectProtocol", head: Head, *, keep_alive: bool) -> None:
        super().__init__(head)
        self._protocol = protocol
        self._parts: list[bytes] = []
        self._head = b""
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
        return self._protocol.flow.write_paused

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
        self._head = b"%b%b%b" % (_start(kind, encoding), _STREAMED, self._own())
        self.has_begun = True

    def write_part(self, part: bytes) -> None:
        """Send a part of a stream; an empty one sends the head, if that has not gone yet."""
        head, self._head = self._head, b""
        if part:
            self._write(b"%b%x\r\n%b\r\n" % (head, len(part), part))
        elif head:
            self._write(head)

    def write_last(self, part: bytes) -> None:
        """Send the end of a stream."""
        head, self._head = self._head, b""
        chunk = b"%x\r\n%b\r\n" % (len(part), part) if part else b""
        self._finish(b"%b%b0\r\n\r\n" % (head, chunk))

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Go on in a task of its own."""
        protocol, self.is_passing = self._protocol, False
        self.task = protocol.loop.create_task(protocol.front.watch_over(self, answering))
        protocol.tasks.add(self.task)
        self.task.add_done_callback(self._end_task)

    def close(self) -> None:
        """Close the connection at once: half an answer must not look whole.

        What the client has not taken yet is given up, or it could hold the connection for ever.
        """
        self._protocol.transport.abort()

    def cancel(self) -> None:
        """Give up waiting for a body that does not come."""
        self.is_read = True  # what comes from now on is too late
        self.keep_alive = False
        self._protocol.front.refuse(self, late_body())

    async def body(self, patience: Patience) -> bytes:  # noqa: ARG002 - other calls have to wait
        self.length()
        return self.taken()

    async def gone(self) -> None:
        if not self.disconnected:
            self._left = self._protocol.loop.create_future()
            await self._left

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._is_chunked = not any(name == b"content-length" for name, _ in headers)
        lines = b"".join([_line(header) for header in headers])
        coding = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
        self._head = b"%b%b%b%b" % (STATUS_LINE[status], lines, coding, self._own())
        self.has_begun = True
        if self._is_chunked:
            self.write_part(b"")

    async def go_on(self, part: bytes) -> None:
        await self._protocol.flow.drain()
        self.write_part(part)

    async def end(self, part: bytes) -> None:
        await self._protocol.flow.drain()
        if self._is_chunked:
            self.write_last(part)
        else:
            head, self._head = self._head, b""
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
        self._protocol.front.take(self)

    def lose(self) -> None:
        """Take over that the client has left."""
        self.disconnected = True
        if not self.is_read:
            self._protocol.front.drop(self)
        if self._left is not None and not self._left.done():
            self._left.set_result(None)
        if self.on_gone is not None:
            self.on_gone()

    def _own(self) -> bytes:
        """Return the rest of a head: what every answer says, and the empty line."""
        close = b"" if self.keep_alive else b"connection: close\r\n"
        extra = b"".join([_line(header) for header in self.extra]) if self.extra else b""
        name = self.request_id.encode()
        common = self._protocol.common_headers()
        return b"%bx-request-id: %b\r\nrequest-id: %b\r\n%b%b\r\n" % (
            common,
            name,
            name,
            extra,
            close,
        )

    def _write(self, data: bytes) -> None:
        if not self.disconnected:
            self._protocol.transport.write(data)

    def _finish(self, data: bytes) -> None:
        self._write(data)
        self.has_begun = self.response_complete = True
        self.on_gone = self.on_drained = None
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()

    def _end_task(self, task: "asyncio.Task[None]") -> None:
        self._protocol.tasks.discard(task)
        if task is not self.task:
            return  # a newer one answers
        failed = task.cancelled() or task.exception() is not None
        is_unanswered = not self.response_complete and not self.is_passing
        if not self.disconnected and (failed or is_unanswered):
            self.close()


class DirectProtocol(HttpToolsProtocol):
    """One connection. A subclass says who answers."""

    front: ClassVar[Front]

    _common: ClassVar[tuple[DefaultHeaders, bytes]] = ([], b"")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._call: DirectCall | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._rested_at = 0.0
        self._unsent = 0  # bytes that the client had not taken at the last look
        self._known: KnownHead | None = None  # of the request before
        self._fresh: bytes | None = None  # what is being parsed, if a request begins with it
        self._is_between = True  # what comes next begins a request
        self._missing = 0  # bytes of a body that the parser does not read

    def common_headers(self) -> bytes:
        """Return what uvicorn says in every head: a new list every second, for the date."""
        headers, lines = DirectProtocol._common
        if headers is not self.server_state.default_headers:
            headers = self.server_state.default_headers
            lines = b"".join([_line(header) for header in headers])
            DirectProtocol._common = (headers, lines)
        return lines

    def data_received(self, data: bytes) -> None:
        """Take over what has come. A head that has come before need not be parsed again."""
        self._rested_at = self.loop.time()
        if self._missing:
            self._read_body(data)
        elif self._known is None or not self._begin_again(self._known, data):
            self._parse(data)

    def on_message_begin(self) -> None:
        """Leave the scope to whoever needs one."""
        self._is_between = False
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        path = _PATHS.get(self.url)
        fresh, self._fresh, self._known = self._fresh, None, None
        if path is not None and self._is_plain():
            keep_alive = cast("Any", self.parser).should_keep_alive()
            head = self._head(path)
            self._begin(head, keep_alive=keep_alive)
            if fresh is not None and keep_alive:
                self._known = known_head(fresh, head)
            return
        url, given, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, given, expects
        self.scope["headers"] = given
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        call = self._call
        if call is None or call is not self.cycle:
            super().on_body(body)
        else:
            call.add(body)

    def on_message_complete(self) -> None:
        self._is_between, call = True, self._call
        if call is None or call is not self.cycle:
            super().on_message_complete()
        else:  # or an upgrade ends, of which there is no cycle: then the call is answered already
            call.complete()

    def on_response_complete(self) -> None:
        """Do as uvicorn does, but with one timer for a connection and not one for each answer."""
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._rested_at = self.loop.time()
        if self._rest is None:
            self._rest = self.loop.call_later(self.timeout_keep_alive, self._end_rest)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        call, self._call = self._call, None
        if call is not None and not call.response_complete:
            call.lose()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._call is not None and self._call.on_drained is not None:
            self._call.on_drained()

    def _is_plain(self) -> bool:
        headers, parser = dict(self.headers), cast("Any", self.parser)
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and self._can_begin()
            and _is_small(headers.get(b"content-length", b""))
            and _UNUSUAL.isdisjoint(headers)
        )

    def _can_begin(self) -> bool:
        """Say whether nothing is under way that the next answer would have to wait for."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _head(self, path: str) -> Head:
        scope: Scope = {
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
            "method": "POST",
            "path": path,
        }
        return Head(scope, path)

    def _begin(self, head: Head, *, keep_alive: bool) -> None:
        self._call = DirectCall(self, head, keep_alive=keep_alive)
        self.cycle = cast("RequestResponseCycle", self._call)

    def _begin_again(self, known: KnownHead, data: bytes) -> bool:
        """Begin a request that differs from the one before in its body alone, if this is one."""
        found = known.find(data) if self._is_between and self._can_begin() else None
        if found is None or not _is_small(found[0]):
            return False
        length, end = found
        self._unset_keepalive_if_required()
        self._begin(known.head, keep_alive=True)
        self._missing = int(length)
        self._read_body(data[end:])
        return True

    def _read_body(self, data: bytes) -> None:
        """Take over a part of the body; what is behind it begins another request."""
        call, missing = self._call, self._missing
        self._missing = max(0, missing - len(data))
        if call is None:
            return
        call.add(data if len(data) <= missing else data[:missing])
        if self._missing:
            self._expect(call)
            return
        call.complete()
        if len(data) > missing:
            self._parse(data[missing:])

    def _parse(self, data: bytes) -> None:
        self._fresh = data if self._is_between else None
        super().data_received(data)
        self._fresh = None
        if self._call is not None:
            self._expect(self._call)

    def _expect(self, call: DirectCall) -> None:
        if not call.is_read and not call.disconnected:
            self.front.expect(call)

    def _end_rest(self) -> None:
        """Close a connection that has rested for long enough; one that is at work rests later."""
        self._rest = None
        if self.cycle is not None and not self.cycle.response_complete:
            return
        left = self._rested_at + self.timeout_keep_alive - self.loop.time()
        unsent, before = self.transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        if left > 0:
            self._rest = self.loop.call_later(left, self._end_rest)
        elif not unsent:
            self.timeout_keep_alive_handler()
        elif unsent == before:
            self.transport.abort()
        else:  # its answer is still on its way
            self._rest = self.loop.call_later(UNTAKEN_SECONDS, self._end_rest)


@lru_cache(maxsize=MAX_KNOWN_HEADS)
def _start(kind: bytes, encoding: bytes | None) -> bytes:
    """Return how a good answer of a content type begins."""
    headers = [(b"content-type", kind)]
    if encoding is not None:
        headers.append((b"content-encoding", encoding))
    return STATUS_LINE[200] + b"".join([_line(header) for header in headers])


def _is_small(length: bytes) -> bool:
    return length.isdigit() and 0 < int(length) <= MAX_BODY_BYTES


def _line(header: tuple[bytes, bytes]) -> bytes:
    """Return a header as a line.

    Raises:
        RuntimeError: as uvicorn does, when its value would be more than one.
    """
    if HEADER_VALUE_RE.search(header[1]):
        raise RuntimeError("Invalid HTTP header value.")
    return b"%b: %b\r\n" % header
