"""One request as the server hands it over: its head, its body, and what it is answered."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, cast

from openclaw_web.gateway import errors
from openclaw_web.gateway.errors import BadRequestError, Form, RefusalError, TooLargeError
from openclaw_web.gateway.patience import Patience

MOUNT = "/proxy"
MAX_BODY_BYTES = 32 * 1024 * 1024
JSON = b"application/json"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_LENGTH = b"content-length"
_RANDOM = os.urandom(10).hex()
_NAME = f"req_{_RANDOM[:8]}-{_RANDOM[8:12]}-8{_RANDOM[12:15]}-a{_RANDOM[15:18]}-"
_NUMBERS = itertools.count()


class Call:
    """A request. Of a header that comes twice the last counts, except for who is asking."""

    __slots__ = (
        "extra",
        "has_begun",
        "headers",
        "path",
        "receive",
        "request_id",
        "scope",
        "send",
        "task",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.path: str = scope["path"].removeprefix(MOUNT)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = new_request_id()
        self.has_begun = False
        # A server has a task for each request.
        self.task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.extra: Headers = ()  # what the answer's head says beside the answer

    async def body(self, patience: Patience) -> bytes:
        """Return the whole body.

        Raises:
            TooLargeError: it is larger than any request of these APIs.
            BadRequestError: the client left before it was complete, or took too long.
        """
        patience.begin(self.task)
        try:
            return await self._read()
        except asyncio.CancelledError:
            if patience.was_lost(self.task):
                raise BadRequestError("The body did not come in time.", status=408) from None
            raise
        finally:
            patience.end(self.task)

    async def _read(self) -> bytes:
        length = self.headers.get(_LENGTH, b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise TooLargeError("The body may have 32 MB.")
        message = await self.receive()
        data: bytes = message.get("body", b"")
        if not message.get("more_body", False) and message["type"] == "http.request":
            return data
        parts, size = [data], len(data)
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await self.receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY_BYTES:
                raise TooLargeError("The body may have 32 MB.")
        if message["type"] == "http.disconnect":
            raise BadRequestError("The request ended early.")
        return b"".join(parts)

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer; from now on nothing else can be said."""
        headers += errors.request_id_headers(self.request_id)
        headers += self.extra
        self.has_begun = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def go_on(self, part: bytes) -> None:
        """Send a part of the body; more will come."""
        await self.send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, part: bytes) -> None:
        """Send what is left of the body."""
        await self.send({"type": "http.response.body", "body": part})

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


def new_request_id() -> str:
    """Return `req_` and a UUID of our own making (version 8): this process's name, and a number.

    Random ones would cost five times as much. Nobody is let in by knowing one.
    """
    return _NAME + f"{next(_NUMBERS):012x}"
