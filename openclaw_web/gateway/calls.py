"""One request as the server hands it over: its head, its body, and what it is answered."""

import asyncio
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast

from openclaw_web.gateway import errors
from openclaw_web.gateway.errors import BadRequestError, Form, RefusalError, TooLargeError
from openclaw_web.gateway.heads import Head, Headers, Scope
from openclaw_web.gateway.patience import Patience

MOUNT: Final = "/proxy"
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
JSON: Final = b"application/json"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LENGTH: Final = b"content-length"
_RANDOM: Final = os.urandom(10).hex()
_NAME: Final = f"req_{_RANDOM[:8]}-{_RANDOM[8:12]}-8{_RANDOM[12:15]}-a{_RANDOM[15:18]}-"
_NUMBERS: Final = itertools.count(10**11)  # so that all have twelve digits


class Call(ABC):
    """A request."""

    __slots__ = ("extra", "has_begun", "head", "request_id", "task")

    task: asyncio.Task[Any]  # in which it is answered

    def __init__(self, head: Head) -> None:
        self.head = head
        self.request_id = new_request_id()
        self.has_begun = False
        self.extra: Headers = ()  # what the answer's head says beside the answer

    @abstractmethod
    async def body(self, patience: Patience) -> bytes:
        """Return the whole body.

        Raises:
            TooLargeError: it is larger than any request of these APIs.
            BadRequestError: the client left before it was complete, or took too long.
        """

    @abstractmethod
    async def gone(self) -> None:
        """Wait until the client has left."""

    @abstractmethod
    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer; from now on nothing else can be said."""

    @abstractmethod
    async def go_on(self, part: bytes) -> None:
        """Send a part of the body; more will come."""

    @abstractmethod
    async def end(self, part: bytes) -> None:
        """Send what is left of the body."""

    def length(self) -> int:
        """Return how long the body is by its header; 0 when it does not say.

        Raises:
            TooLargeError: it is larger than any request of these APIs.
        """
        length = self.head.headers.get(_LENGTH, b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise too_large_body()
        return int(length)

    def own_headers(self) -> Headers:
        """Return what every answer's head says of the request."""
        return (*errors.request_id_headers(self.request_id), *self.extra)

    async def answer(
        self, body: bytes, *, status: int = 200, content_type: bytes = JSON, extra: Headers = ()
    ) -> None:
        """Send a whole answer."""
        head = [(b"content-type", content_type), (_LENGTH, b"%d" % len(body)), *extra]
        await self.begin(status, head)
        await self.end(body)

    async def refuse(self, refusal: RefusalError, form: Form) -> None:
        """Say in the form of the API that was called why there is no answer."""
        extra = list(refusal.headers)
        if refusal.retry_after is not None:
            extra.append((b"retry-after", str(refusal.retry_after).encode()))
        await self.answer(errors.body_of(refusal, form), status=refusal.status, extra=extra)


class AsgiCall(Call):
    """A request as any ASGI server hands it over."""

    __slots__ = ("_receive", "_send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(Head(scope, scope["path"].removeprefix(MOUNT)))
        self._receive = receive
        self._send = send
        # A server has a task for each request.
        self.task = cast("asyncio.Task[Any]", asyncio.current_task())

    async def body(self, patience: Patience) -> bytes:
        patience.begin(self.task)
        try:
            return await self._read()
        except asyncio.CancelledError:
            if patience.was_lost(self.task):
                raise late_body() from None
            raise
        finally:
            patience.end(self.task)

    async def gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        headers += self.own_headers()
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def go_on(self, part: bytes) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, part: bytes) -> None:
        await self._send({"type": "http.response.body", "body": part})

    async def _read(self) -> bytes:
        self.length()
        message = await self._receive()
        data: bytes = message.get("body", b"")
        if not message.get("more_body", False) and message["type"] == "http.request":
            return data
        parts, size = [data], len(data)
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await self._receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY_BYTES:
                raise too_large_body()
        if message["type"] == "http.disconnect":
            raise BadRequestError("The request ended early.")
        return b"".join(parts)


def late_body() -> RefusalError:
    return BadRequestError("The body did not come in time.", status=408)


def too_large_body() -> RefusalError:
    return TooLargeError("The body may have 32 MB.")


def new_request_id() -> str:
    """Return `req_` and a UUID of our own making (version 8): this process's name, and a number.

    Random ones would cost five times as much. Nobody is let in by knowing one.
    """
    return _NAME + str(next(_NUMBERS))
