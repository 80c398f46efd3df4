"""uvicorn's HTTP protocol with a shorter way for completions, and bounds on what comes before them.

Everything else about a connection stays uvicorn's: the parser, keep-alive, pipelining, the end.
What is no plain completion goes its usual way, through the ASGI app.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from openclaw_web.gateway.calls import MOUNT
from openclaw_web.gateway.direct import DirectCall, Front, header_line
from openclaw_web.gateway.heads import Head, KnownHead, Scope, known_head

MAX_BODY_BYTES: Final = 262_144  # taken before anybody asked who sends it; more goes the usual way
MAX_HEAD_BYTES: Final = 65_536
SILENT_SECONDS = 60.0  # for a connection on which nothing was asked yet
UNTAKEN_SECONDS = 60.0  # for a client that takes nothing of an answer that is written

TOO_LATE, TOO_LARGE_HEAD = 408, 431

_PATHS: Final = {
    f"{MOUNT}{path}".encode(): path for path in ("/v1/chat/completions", "/v1/messages")
}
_UNUSUAL: Final = frozenset({b"expect", b"upgrade", b"transfer-encoding"})

DefaultHeaders = list[tuple[bytes, bytes]]


class _Common:
    """The lines that uvicorn's default headers make."""

    def __init__(self) -> None:
        self.headers: DefaultHeaders = []
        self.lines = b""


_common: Final = _Common()


class DirectProtocol(HttpToolsProtocol):
    """One connection, and who answers on it."""

    def __init__(self, front: Front, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.front = front
        self._call: DirectCall | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._rested_at = 0.0
        self._unsent = 0  # bytes that the client had not taken at the last look
        self._known: KnownHead | None = None  # of the request before
        self._fresh: bytes | None = None  # what is being parsed, if a request begins with it
        self._is_between = True  # what comes next begins a request
        self._missing = 0  # bytes of a body that the parser does not read
        self._is_in_head = False
        self._head_bytes = 0  # of a head that did not come in one piece

    def common_headers(self) -> bytes:
        """Return what uvicorn says in every head: a new list every second, for the date."""
        headers = self.server_state.default_headers
        if headers is not _common.headers:
            _common.headers = headers
            _common.lines = b"".join([header_line(header) for header in headers])
        return _common.lines

    def data_received(self, data: bytes) -> None:
        """Take over what has come. A head that has come before need not be parsed again."""
        if self._missing:
            self._read_body(data)
        elif self._known is None or not self._begin_again(self._known, data):
            self._parse(data)

    def on_message_begin(self) -> None:
        """Leave the scope to whoever needs one."""
        self._is_between, self._is_in_head = False, True
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        self._end_head()
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
        if self.flow.read_paused:
            self.flow.resume_reading()
        self._rested_at = self.loop.time()
        if self._rest is None:
            self._rest = self.loop.call_later(self.timeout_keep_alive, self._end_rest)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._rested_at = self.loop.time()
        self._rest = self.loop.call_later(self.timeout_keep_alive, self._end_rest)

    def handle_websocket_upgrade(self) -> None:
        self._stop_resting()  # the connection is somebody else's from now on
        super().handle_websocket_upgrade()

    def cancel(self) -> None:
        """Give up waiting for a head that does not come."""
        self._refuse_head(TOO_LATE)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_head()
        self._stop_resting()
        call, self._call = self._call, None
        if call is not None and not call.response_complete:
            call.lose()
        # It knows us: while we knew it too, only a search for garbage would free the two of us.
        self.cycle = cast("RequestResponseCycle", None)

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
            and _small_length(headers.get(b"content-length", b"")) > 0
            and _UNUSUAL.isdisjoint(headers)
        )

    def _can_begin(self) -> bool:
        """Say whether nothing is under way that the next answer would have to wait for."""
        cycle = self.cycle
        return (cycle is None or cycle.response_complete) and not self.flow.write_paused

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
        length = 0 if found is None else _small_length(found[0])
        if found is None or not length:
            return False
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._begin(known.head, keep_alive=True)
        self._missing = length
        self._read_body(data[found[1] :])
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
        if self._is_in_head:
            self._wait_for_head(len(data))
        elif self._call is not None:
            self._expect(self._call)

    def _wait_for_head(self, received_bytes: int) -> None:
        """Wait for the rest of a head, which has to come in time and to be of a usual size."""
        self._head_bytes += received_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(TOO_LARGE_HEAD)
        else:
            self.front.expect(self)

    def _end_head(self) -> None:
        self._is_in_head = False
        if self._head_bytes:
            self._head_bytes = 0
            self.front.drop(self)

    def _refuse_head(self, status: int) -> None:
        self._end_head()
        if not self._can_begin():  # another answer is under way here
            self.transport.abort()
        elif not self.transport.is_closing():
            end = b"content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + end)
            self.transport.close()

    def _expect(self, call: DirectCall) -> None:
        if not call.is_read and not call.disconnected:
            self.front.expect(call)

    def _stop_resting(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _end_rest(self) -> None:
        """Close a connection that has rested for long enough; one that is at work rests later."""
        self._rest = None
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self._is_in_head:  # others watch over that
            return
        longest = SILENT_SECONDS if self.cycle is None else self.timeout_keep_alive
        left = self._rested_at + longest - self.loop.time()
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


def _small_length(given: bytes) -> int:
    """Return how long a body is by its header; 0 for none, or one that is longer than usual."""
    length = int(given) if given.isdigit() else 0
    return length if length <= MAX_BODY_BYTES else 0
