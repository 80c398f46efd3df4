"""One answer: its head, and its body as it arrives."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from openclaw_web.integrations.upstream import errors
from openclaw_web.integrations.upstream.errors import UpstreamError

MAX_WHOLE_BYTES = 64 * 1024 * 1024  # of an answer that is held until it is complete
MAX_DISCARDED_BYTES: Final = 65_536  # more than this costs more than a new connection

_NO_HEADERS: Final[dict[bytes, bytes]] = {}
_PLAIN: Final = frozenset({b"", b"identity"})


class Source(Protocol):
    """Where an answer comes from, while it comes."""

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class Answer:
    """Read it with `read`, or part by part with `parts`; or `abort` or `discard` it.

    Or be its `listener`: called whenever something has arrived, it looks at `status`, `error` and
    `is_complete`, and does `take` what there is. What it does not take holds the sender back.
    """

    __slots__ = (
        "_is_discarded",
        "_loop",
        "_parts",
        "_source",
        "_waiter",
        "error",
        "headers",
        "is_complete",
        "listener",
        "status",
        "waiting_bytes",
    )

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers = _NO_HEADERS
        self.is_complete = False
        self.waiting_bytes = 0
        self._loop = loop
        self._source: Source | None = source
        self._parts: list[bytes] = []
        self.error: UpstreamError | None = None
        self.listener: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_discarded = False

    def header(self, name: bytes) -> bytes | None:
        """Return the header of this name, which is given in lower case."""
        return self.headers.get(name)

    @property
    def is_packed(self) -> bool:
        """Whether the body is compressed, though we asked for it as it is."""
        return self.headers.get(b"content-encoding", b"").lower() not in _PLAIN

    async def begun(self) -> None:
        """Wait for the head.

        Raises:
            UpstreamError: none came.
        """
        while not self.status:
            if self.error is not None:
                raise self.error
            await self._news()

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamError: the answer ended early, was malformed, too large or stood still for too
                long.
        """
        if self.is_complete:
            return self.take() if self._parts else b""
        parts, size = [], 0
        async for part in self:
            size += len(part)
            if size > MAX_WHOLE_BYTES:
                self.abort()
                raise errors.too_large()
            parts.append(part)
        return b"".join(parts)

    def parts(self) -> "Answer":
        """Iterate over the body as it comes; the sender is held back while much is waiting.

        Raises:
            UpstreamError: as `read` does, after everything that did arrive.
        """
        return self

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self.error is not None:
                raise self.error
            if self.is_complete:
                raise StopAsyncIteration
            await self._news()
        return self.take()

    def abort(self) -> None:
        """Give the rest up; the connection is closed unless the answer is complete."""
        if self._source is not None:
            self._source.abort()
            self._source = None

    def discard(self) -> None:
        """Nobody wants the body: if little of it is missing, the connection can be kept."""
        self._parts.clear()
        self._is_discarded = True
        if self._source is not None:
            self._source.resume()

    def add(self, data: bytes) -> None:
        """Take over a part that arrived."""
        self.waiting_bytes += len(data)
        if not self._is_discarded:
            self._parts.append(data)
        elif self.waiting_bytes > MAX_DISCARDED_BYTES:
            self.abort()

    def complete(self) -> None:
        self.is_complete = True
        self._source = None

    def fail(self, error: UpstreamError) -> None:
        """End with an error: of the request before the head, of the body after it."""
        self.abort()
        self.error = error
        self.wake()

    def take(self) -> bytes:
        """Return what has arrived since the last time, and let more come."""
        parts = self._parts
        if not parts:
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.waiting_bytes = 0
        if self._source is not None:
            self._source.resume()
        return data

    def wake(self) -> None:
        """Say that something has arrived: some of it, the last of it, or an error."""
        if self.listener is not None:
            self.listener()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _news(self) -> "asyncio.Future[None]":
        self._waiter = self._loop.create_future()
        return self._waiter
