"""The connections to one provider: kept while they are good, and never more than the limit."""

import asyncio
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from openclaw_web.integrations.upstream import errors
from openclaw_web.integrations.upstream.answer import Answer
from openclaw_web.integrations.upstream.connection import Connection, TimeOuts
from openclaw_web.integrations.upstream.errors import UnsafeHeaderError, UpstreamError

TICK_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 30.0  # less than what servers usually wait, so that we are the first to close
MAX_AGE_SECONDS: Final = 600.0  # then a provider's new addresses are found
MAX_IDLE_CONNECTIONS: Final = 128
MAX_KNOWN_HEADERS: Final = 512  # agents say the same of themselves, request after request

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Limits:
    """How many connections, and who may wait for one for how long."""

    connections: int = 1_000
    waiting: int = 1_000
    wait_seconds: float = 5.0


class Upstream:
    """A pool of connections to one address. `open` it nowhere: the first request does."""

    def __init__(
        self,
        url: str,
        *,
        time_outs: TimeOuts | None = None,
        limits: Limits | None = None,
        ca_file: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        address = urlsplit(url)
        is_secure = address.scheme == "https"
        self.host = address.hostname or ""
        self.time_outs = time_outs or TimeOuts()
        self.limits = limits or Limits()
        self.failures: Counter[str] = Counter()
        self.now = clock()
        self._clock = clock
        self._port = address.port or (443 if is_secure else 80)
        self._tls = make_tls(ca_file) if is_secure else None
        self._host_header = address.netloc.rpartition("@")[2].encode()
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        return sum(not connection.is_dead for connection in self._idle)

    @property
    def waiting_requests(self) -> int:
        return sum(not waiter.done() for waiter in self._waiters)

    def prepare(self, path: str, headers: Headers = ()) -> bytes:
        """Return what stays the same in all requests to a path, for `post`.

        Raises:
            UnsafeHeaderError: the path or a header would end its line.
        """
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise UnsafeHeaderError(f"{path!r} is no path.")
        return b"".join(
            (
                b"POST " + path.encode() + b" HTTP/1.1\r\n",
                b"Host: " + self._host_header + b"\r\n",
                b"Content-Type: application/json\r\n",
                b"Accept-Encoding: identity\r\n",  # a packed body would hide its usage
                _lines(headers),
            )
        )

    def post_now(self, prepared: bytes, body: bytes, headers: Headers = ()) -> Answer | None:
        """Send a request on a kept connection, if there is one; the answer is still to come.

        Raises:
            UnsafeHeaderError: a header would end its line; nothing was sent.
        """
        head = _head(prepared, body, headers)
        connection = self._take_idle()
        return None if connection is None else connection.send(head, body)

    async def post(
        self, prepared: bytes, body: bytes, headers: Headers = (), *, sent: Answer | None = None
    ) -> Answer:
        """Send a request and return the answer once its head has arrived.

        Sent a second time only when a kept connection had ended before it took the request. `sent`
        is what `post_now` returned for the same request.

        Raises:
            UpstreamError: there was no connection, no answer in time, or none that is HTTP.
            UnsafeHeaderError: a header would end its line; nothing was sent.
        """
        kept = sent or self.post_now(prepared, body, headers)
        while True:
            answer = kept
            if answer is None:
                connection = await self._connect_or_wait()
                answer = connection.send(_head(prepared, body, headers), body)
            try:
                await answer.begun()
            except UpstreamError as error:
                if answer is not kept or error.was_sent:
                    raise
                kept = None
            except asyncio.CancelledError:
                answer.abort()
                raise
            else:
                return answer

    async def close(self) -> None:
        """Drop all connections, those with a running answer too."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(errors.closed(was_sent=False))
        for connection in tuple(self._open):
            connection.close()
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self) -> None:
        """Close what is overdue. A timer calls it while there are connections."""
        self.now = now = self._clock()
        for connection in tuple(self._open):
            connection.check(now, KEEP_ALIVE_SECONDS)
        if self._idle and self._idle[0].is_dead:
            self._idle = deque(one for one in self._idle if not one.is_dead)

    def release(self, connection: Connection) -> None:
        """Take back a connection that is good for another request."""
        if self.now - connection.made_at > MAX_AGE_SECONDS:
            connection.abort()
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if len(self._idle) >= MAX_IDLE_CONNECTIONS:
            connection.abort()
        else:
            self._idle.append(connection)

    def remember(self, connection: Connection) -> None:
        self._open.add(connection)

    def forget(self, connection: Connection) -> None:
        """A connection has ended; whoever waits may open another."""
        self._open.discard(connection)
        self._give_place()

    def note_failure(self, error: UpstreamError) -> None:
        self.failures[error.code] += 1

    @property
    def _used(self) -> int:
        return len(self._open) + self._connecting

    def _take_idle(self) -> Connection | None:
        """Return the connection that was used last."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_dead:
                return connection
        return None

    async def _connect_or_wait(self) -> Connection:
        while self._used >= self.limits.connections:
            connection = await self._wait()
            if connection is None:
                break  # a place is ours, and counted as connecting
            if not connection.is_dead:
                return connection
        else:
            self._connecting += 1
        is_made = False
        try:
            made = await self._connect()
            is_made = True
        finally:
            self._connecting -= 1
            if not is_made:
                self._give_place()
        return made

    async def _wait(self) -> Connection | None:
        """Wait for another request's connection, or (`None`) for the right to open one."""
        if len(self._waiters) >= self.limits.waiting:
            self._waiters = deque(waiter for waiter in self._waiters if not waiter.done())
        if len(self._waiters) >= self.limits.waiting:
            raise self._noted(errors.busy())
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self.limits.wait_seconds):
                return await waiter
        except TimeoutError as error:
            self._give_back(waiter)
            raise self._noted(errors.busy()) from error
        except asyncio.CancelledError:
            self._give_back(waiter)
            raise

    def _give_back(self, waiter: "asyncio.Future[Connection | None]") -> None:
        """Pass on what a waiter got in the moment in which it gave up."""
        if not waiter.done() or waiter.cancelled() or waiter.exception() is not None:
            return
        connection = waiter.result()
        if connection is not None and not connection.is_dead:
            self.release(connection)
        elif connection is None:
            self._connecting -= 1
            self._give_place()

    def _give_place(self) -> None:
        while self._waiters and self._used < self.limits.connections:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._connecting += 1
                waiter.set_result(None)
                return

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self.now = self._clock()
            self._timer = loop.call_later(TICK_SECONDS, self._tick, loop)
        try:
            async with asyncio.timeout(self.time_outs.connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop), self.host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            raise self._noted(errors.unreachable()) from error
        return connection

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        try:
            self.sweep()
        finally:
            if self._open or self._connecting:
                self._timer = loop.call_later(TICK_SECONDS, self._tick, loop)

    def _noted(self, error: UpstreamError) -> UpstreamError:
        self.note_failure(error)
        return error


def make_tls(ca_file: str = "") -> ssl.SSLContext:
    """Return a context that checks certificates, against `ca_file` alone where one is given.

    Raises:
        OSError: the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _head(prepared: bytes, body: bytes, headers: Headers) -> bytes:
    return b"%b%bContent-Length: %d\r\n\r\n" % (prepared, _lines(headers), len(body))


@lru_cache(maxsize=MAX_KNOWN_HEADERS)
def _lines(headers: Headers) -> bytes:
    """Return headers as lines, each of them one line."""
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    count = len(headers)
    if lines.count(b"\n") != count or lines.count(b"\r") != count or b"\0" in lines:
        raise UnsafeHeaderError("A header has a line break in it.")
    return lines
