"""The model provider over HTTP/1.1: a keep-alive pool that passes bytes, made for the token proxy.

General clients cost ten to a hundred times the proxy's own work here, so this one is our own: a
socket, the httptools parser, and no objects for headers that nobody reads.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from openclaw_web.core.errors import VendorError

CONNECT_SECONDS = 10.0
FIRST_BYTE_SECONDS = 600.0  # an answer that is not streamed comes when it is complete
IDLE_SECONDS = 120.0  # between two parts of an answer
KEEP_ALIVE_SECONDS = 30.0
MAX_IDLE_CONNECTIONS = 128
MAX_CONNECTIONS = 2_000
MAX_HEADER_BYTES = 65_536
HIGH_WATER_BYTES = 262_144

FIRST_FINAL_STATUS = 200

Headers = list[tuple[bytes, bytes]]


class ConnectionDiedError(VendorError):
    """The connection ended before the answer did."""


@dataclass(frozen=True)
class TimeOuts:
    connect: float = CONNECT_SECONDS
    first_byte: float = FIRST_BYTE_SECONDS
    idle: float = IDLE_SECONDS


class Upstream:
    """A pool of connections to one provider."""

    def __init__(self, url: str, *, time_outs: TimeOuts | None = None) -> None:
        address = urlsplit(url)
        is_secure = address.scheme == "https"
        self.host = address.hostname or ""
        self._port = address.port or (443 if is_secure else 80)
        self._path = address.path.rstrip("/")
        self._tls = ssl.create_default_context() if is_secure else None
        self._host_header = address.netloc.rpartition("@")[2].encode()
        self._time_outs = time_outs or TimeOuts()
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    async def post(self, path: str, body: bytes, headers: Headers) -> "Answer":
        """Send a request and return the answer once its head has arrived.

        Sent a second time only when a kept connection turned out to be dead before any byte came.

        Raises:
            VendorError: there was no connection, no answer in time, or none that is HTTP.
        """
        request = self._head(path, body, headers) + body
        if (kept := self._take_idle()) is not None:
            try:
                return await kept.send(request, self._time_outs)
            except ConnectionDiedError:
                if kept.has_heard:
                    raise
        fresh = await self._connect()
        return await fresh.send(request, self._time_outs)

    async def close(self) -> None:
        """Drop all connections, those with a running answer too."""
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()

    def put_back(self, connection: "_Connection") -> None:
        """Keep a connection for the next request, or close it when enough are kept."""
        if len(self._idle) >= MAX_IDLE_CONNECTIONS:
            connection.abort()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def forget(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def _take_idle(self) -> "_Connection | None":
        """Return the connection that was used last; those kept for too long are closed."""
        deadline = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while self._idle and self._idle[0].idle_since < deadline:
            self._idle.popleft().abort()
        return self._idle.pop() if self._idle else None

    async def _connect(self) -> "_Connection":
        if len(self._open) >= MAX_CONNECTIONS:
            raise VendorError("Too many requests are under way.", can_retry=True, code="busy")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._time_outs.connect):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self), self.host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise VendorError(
                "The model provider cannot be reached.", can_retry=True, code="unreachable"
            ) from error
        self._open.add(connection)
        return connection

    def _head(self, path: str, body: bytes, headers: Headers) -> bytes:
        lines = [
            f"POST {self._path}{path} HTTP/1.1".encode(),
            b"Host: " + self._host_header,
            b"Content-Type: application/json",
            b"Accept-Encoding: identity",  # a packed body would hide its usage
            b"Content-Length: %d" % len(body),
            *(name + b": " + value for name, value in headers),
            b"\r\n",
        ]
        return b"\r\n".join(lines)


class Answer:
    """One answer: its head, and its body as it arrives."""

    def __init__(self, connection: "_Connection", idle_seconds: float) -> None:
        self.status = 0
        self.headers: Headers = []
        self._connection = connection
        self._idle_seconds = idle_seconds
        self._parts: list[bytes] = []
        self.waiting_bytes = 0
        self._is_complete = False
        self._error: VendorError | None = None
        self._news = asyncio.Event()

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of this name, in lower case."""
        return next((value for known, value in self.headers if known == name), None)

    async def read(self) -> bytes:
        return b"".join([part async for part in self.parts()])

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes, and hold the sender back while much is waiting.

        Raises:
            VendorError: the answer ended early, was malformed or stood still for too long.
        """
        while True:
            if self._parts:
                data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                self.waiting_bytes = 0
                self._connection.resume()
                yield data
            elif self._error is not None:
                raise self._error
            elif self._is_complete:
                return
            else:
                await self._wait()

    def abort(self) -> None:
        """Give the rest up; the connection is closed unless the answer is complete."""
        if not self._is_complete:
            self._connection.abort()

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self.waiting_bytes += len(data)
        if self.waiting_bytes > HIGH_WATER_BYTES:
            self._connection.pause()
        self._news.set()

    def complete(self) -> None:
        self._is_complete = True
        self._news.set()

    def fail(self, error: VendorError) -> None:
        self._error = error
        self._news.set()

    async def _wait(self) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._news.wait()
        except TimeoutError as error:
            self._connection.abort()
            raise VendorError(
                "The model provider stopped answering.", can_retry=True, code="idle"
            ) from error


class _Connection(asyncio.Protocol):
    """One socket with at most one answer under way; its events have the libraries' names."""

    def __init__(self, pool: Upstream) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._head: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._header_bytes = 0
        self._has_length = False
        self._is_paused = False
        self._is_dead = False
        self.has_heard = False
        self.idle_since = 0.0

    async def send(self, request: bytes, time_outs: TimeOuts) -> Answer:
        self.has_heard = False
        if self._transport is None or self._is_dead:
            raise _died()
        self._begin_answer(Answer(self, time_outs.idle))
        head = self._head = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            async with asyncio.timeout(time_outs.first_byte):
                return await head
        except TimeoutError as error:
            self.abort()
            raise VendorError(
                "The model provider did not answer in time.", can_retry=True, code="timeout"
            ) from error
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        self._is_dead = True
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._is_paused and not self._is_dead:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._is_paused and not self._is_dead:
            self._is_paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked anything: this connection cannot be trusted
            self.abort()
            return
        self.has_heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(_malformed(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_dead = True
        self._pool.forget(self)
        is_end_of_body = self._answer is not None and self._answer.status and not self._has_length
        if is_end_of_body and exc is None:
            self._end_answer()
        elif self._answer is not None:
            self._fail(_died())

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._has_length = False
        if self._answer is None:
            raise httptools.HttpParserError("a second answer")
        self._answer.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise httptools.HttpParserError("headers too large")
        name = name.lower()
        self._has_length |= name in {b"content-length", b"transfer-encoding"}
        if self._answer is not None:
            self._answer.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < FIRST_FINAL_STATUS or self._answer is None:
            return
        self._answer.status = status
        if self._head is not None and not self._head.done():
            self._head.set_result(self._answer)

    def on_body(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer.add(data)

    def on_message_complete(self) -> None:
        if self._answer is None or not self._answer.status:
            return  # "100 Continue": the answer is still to come
        can_keep = self._parser.should_keep_alive() and not self._is_dead
        self._end_answer()
        if can_keep:
            self._pool.put_back(self)
        else:
            self.abort()

    def _begin_answer(self, answer: Answer) -> None:
        self._answer = answer
        self._has_length = False
        self._parser = httptools.HttpResponseParser(self)

    def _end_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self.resume()
            answer.complete()

    def _fail(self, error: VendorError) -> None:
        answer, self._answer = self._answer, None
        self.abort()
        if answer is None:
            return
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        else:
            answer.fail(error)


def _died() -> ConnectionDiedError:
    return ConnectionDiedError(
        "The model provider closed the connection.", can_retry=True, code="closed"
    )


def _malformed(error: Exception) -> VendorError:
    problem = VendorError(
        "The model provider's answer is malformed.", can_retry=True, code="malformed"
    )
    problem.__cause__ = error
    return problem
