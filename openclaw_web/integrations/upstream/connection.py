"""One socket to a provider, with at most one answer under way."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httptools

from openclaw_web.integrations.upstream import errors
from openclaw_web.integrations.upstream.answer import Answer
from openclaw_web.integrations.upstream.errors import UpstreamError

MAX_HEADERS: Final = 128
# Headers, trailers, chunk extensions: whatever is neither head nor body.
MAX_BARREN_BYTES: Final = 65_536
MAX_INTERIM_ANSWERS: Final = 8  # "100 Continue" and its like
HIGH_WATER_BYTES: Final = 262_144
SLICE_BYTES: Final = 262_144  # of a request: more is handed to the socket as it takes it
# A reset after it may come from a machine that had passed the request on.
RESET_SECONDS: Final = 1.0
FIRST_FINAL_STATUS: Final = 200
SWITCHING_PROTOCOLS: Final = 101

CHUNKED: Final = b"chunked"

# Linux' struct tcp_info: the state is its first byte, the segments not yet acknowledged an unsigned
# number at byte 24 (include/uapi/linux/tcp.h). Elsewhere a request counts as taken.
TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_TCP_INFO_BYTES: Final = 28
_CLOSE_WAIT: Final = 8


@dataclass(frozen=True)
class TimeOuts:
    """Seconds. They are looked at twice a second, so that they are kept to within half of one."""

    connect: float = 10.0
    first_byte: float = 600.0  # an answer that is not streamed comes when it is complete
    idle: float = 120.0  # between two parts of an answer, or of a request that is not taken
    unread: float = 600.0  # while the answer's reader is slower than the provider


class Owner(Protocol):
    """The pool, as a connection sees it. `now` is read from the clock twice a second."""

    now: float
    time_outs: TimeOuts

    def release(self, connection: "Connection") -> None: ...

    def remember(self, connection: "Connection") -> None: ...

    def forget(self, connection: "Connection") -> None: ...

    def note_failure(self, error: UpstreamError) -> None: ...


class Connection(asyncio.Protocol):
    """The events of asyncio and httptools have those libraries' names.

    While the parser runs, only what it found is noted: head, body and end are handed to the answer
    when all that had arrived is read. So a burst of small chunks is one part, and wakes its reader
    once. The parser's events for headers and body are methods of a dict and a list, without a
    Python function of ours in between.
    """

    __slots__ = (
        "_answer",
        "_barren_bytes",
        "_can_keep",
        "_headers",
        "_interim_answers",
        "_is_complete",
        "_is_read_paused",
        "_is_taken",
        "_is_write_paused",
        "_loop",
        "_owner",
        "_parser",
        "_parts",
        "_raw_headers",
        "_status",
        "_transport",
        "_unsent",
        "has_heard",
        "heard_at",
        "is_dead",
        "made_at",
        "on_body",
        "on_header",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._parts: list[bytes] = []
        self._raw_headers: dict[bytes, bytes] = {}
        self._headers: dict[bytes, bytes] = {}
        self.on_body = self._parts.append
        self.on_header = self._raw_headers.__setitem__
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._is_complete = False
        self._can_keep = False
        self._interim_answers = 0
        self._barren_bytes = 0
        self._unsent: memoryview | None = None
        self._is_write_paused = False
        self._is_read_paused = False
        self._is_taken = False
        self.is_dead = False
        self.has_heard = False
        self.heard_at = self.made_at = owner.now

    def send(self, head: bytes, body: bytes) -> Answer:
        """Write a request, and return the answer to come. The connection is idle and alive."""
        answer = self._answer = Answer(self, self._loop)
        self._status = self._interim_answers = self._barren_bytes = 0
        self._is_complete = self.has_heard = self._is_taken = False
        self._raw_headers.clear()
        self.heard_at = self._owner.now
        if self._transport is None or self.is_dead:
            self._fail(errors.closed(was_sent=False))
        elif len(body) <= SLICE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._send_more()
        return answer

    def abort(self) -> None:
        """Close at once; the answer under way gets nothing more."""
        self.is_dead = True
        self._answer = self._unsent = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close at once, and tell the reader of an answer."""
        answer = self._answer
        self.abort()
        if answer is not None:
            answer.fail(errors.closed())

    def resume(self) -> None:
        """Read on: the answer's reader has caught up."""
        if self._is_read_paused and self._transport is not None and not self.is_dead:
            self._is_read_paused = False
            self.heard_at = self._owner.now
            self._transport.resume_reading()

    def check(self, now: float, keep_alive_seconds: float) -> None:
        """Close what has been silent for too long: between answers, before or within one."""
        silence = now - self.heard_at
        limits = self._owner.time_outs
        if self._answer is None:
            if silence > keep_alive_seconds:
                self.abort()
        elif self._is_read_paused:
            self._fail_after(limits.unread, silence, errors.unread)
        elif self._status:
            self._fail_after(limits.idle, silence, errors.idle)
        elif self._unsent is not None or self._is_write_paused:
            self._fail_after(limits.idle, silence, errors.stuck)
        else:
            self._fail_after(limits.first_byte, silence, errors.silent)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._owner.remember(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked anything: this connection cannot be trusted
            self.abort()
            return
        self.has_heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_complete:
                self._hand_over(answer, len(data))  # what was read before that
                self._fail(errors.malformed(error))
                return
            self._can_keep = False  # the answer is whole; what came after it was not asked for
        self._hand_over(answer, len(data))
        if self._is_complete:
            self._end(answer)
        answer.wake()

    def eof_received(self) -> None:
        if self._answer is not None and not self.has_heard:
            self._is_taken = _has_taken_all(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_dead = True
        self._owner.forget(self)
        answer = self._answer
        if answer is None:
            return
        if exc is None and self._status and not _has_length(self._headers):
            self._can_keep = False
            self._end(answer)
            answer.wake()
        else:
            waited = self._owner.now - self.heard_at > RESET_SECONDS
            self._fail(errors.closed(was_sent=self.has_heard or self._is_taken or waited))

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self.heard_at = self._owner.now
        self._send_more()

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise httptools.HttpParserError("a second answer")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < FIRST_FINAL_STATUS:
            self._interim_answers += 1
            if status == SWITCHING_PROTOCOLS or self._interim_answers > MAX_INTERIM_ANSWERS:
                raise httptools.HttpParserError("an interim answer too much")
            self._raw_headers.clear()
            return
        if len(self._raw_headers) > MAX_HEADERS:
            raise httptools.HttpParserError("too many headers")
        headers = {}
        for name, value in self._raw_headers.items():
            headers[name.lower()] = value
        if headers.get(b"transfer-encoding", CHUNKED).lower() != CHUNKED:
            raise httptools.HttpParserError("a transfer encoding that was not asked for")
        self._headers = headers
        self._status = status

    def on_message_complete(self) -> None:
        if self._status:  # else it was "100 Continue", and the answer is still to come
            self._is_complete = True
            self._can_keep = self._parser.should_keep_alive()  # it forgets, once this returns

    def _hand_over(self, answer: Answer, received_bytes: int) -> None:
        has_begun = self._status != 0 and not answer.status
        if has_begun:
            answer.status = self._status
            answer.headers = self._headers
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._barren_bytes = 0
            self.heard_at = self._owner.now
            answer.add(data)
            if answer.waiting_bytes > HIGH_WATER_BYTES:
                self._pause()
        elif not self._is_complete:
            self._barren_bytes += received_bytes
            if self._barren_bytes > MAX_BARREN_BYTES:
                self._fail(errors.malformed())
                return
        if has_begun:
            self.heard_at = self._owner.now

    def _end(self, answer: Answer) -> None:
        """The answer is whole. Only a connection that owes nothing, either way, is kept."""
        if self._answer is not answer:  # given up meanwhile
            return
        if self._is_read_paused:
            self.resume()
        self._answer = None
        answer.complete()
        transport = self._transport
        owes_nothing = self._unsent is None and transport and not transport.get_write_buffer_size()
        if self._can_keep and owes_nothing and not self.is_dead:
            self.heard_at = self._owner.now
            self._owner.release(self)
        else:
            self.abort()

    def _fail(self, error: UpstreamError) -> None:
        answer = self._answer
        self.abort()
        self._owner.note_failure(error)
        if answer is not None:
            answer.fail(error)

    def _fail_after(
        self, limit: float, silence: float, make_error: Callable[[], UpstreamError]
    ) -> None:
        if silence > limit:
            self._fail(make_error())

    def _pause(self) -> None:
        if not self._is_read_paused and self._transport is not None and not self.is_dead:
            self._is_read_paused = True
            self._transport.pause_reading()

    def _send_more(self) -> None:
        """Hand the socket as much of the request as it takes now."""
        while self._unsent is not None and self._transport and not self._is_write_paused:
            part, rest = self._unsent[:SLICE_BYTES], self._unsent[SLICE_BYTES:]
            self._unsent = rest if len(rest) else None
            self._transport.write(part)


def _has_length(headers: dict[bytes, bytes]) -> bool:
    return b"content-length" in headers or b"transfer-encoding" in headers


def _has_taken_all(transport: asyncio.Transport | None) -> bool:
    """Say whether a provider that hung up had received the whole request before.

    Its kernel tells: it has acknowledged every byte, and has not refused one since with a reset.
    Otherwise the request and the end of a kept connection crossed on their way.
    """
    used = None if transport is None else transport.get_extra_info("socket")
    if used is None or TCP_INFO is None:
        return True
    try:
        told = used.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return True
    (unacknowledged,) = struct.unpack_from("=I", told, 24)
    return told[0] == _CLOSE_WAIT and not unacknowledged
