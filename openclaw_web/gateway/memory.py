"""The one-time addresses of keepers: `PUT` takes a backup in, `GET` gives one back.

A bare ASGI app beside the token proxy, since that is the only address of ours that a pod in a
customer's namespace may call; it answers on the internal listener only.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from uuid import UUID

from openclaw_web.boxes.memory import carrying
from openclaw_web.boxes.memory.addresses import PATH, AddressError
from openclaw_web.boxes.memory.carrying import CutOffError, LockedError, TooLargeError
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.gateway.calls import Receive, Scope, Send
from openclaw_web.gateway.origin import FORWARDING_HEADERS, is_inside

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 300.0  # a keeper reads its volume meanwhile; it waits for us as long
BEARER = b"bearer "
TYPE = (b"content-type", b"text/plain; charset=utf-8")


def is_ours(scope: Scope) -> bool:
    return scope["path"].startswith(PATH)


async def memory(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request of a keeper."""
    headers = dict(scope["headers"])
    is_forwarded = not FORWARDING_HEADERS.isdisjoint(headers)
    backup_id = _id(scope["path"])
    if backup_id is None or not is_inside(scope, is_forwarded=is_forwarded):
        await _say(send, HTTPStatus.NOT_FOUND, "There is nothing here.")
        return
    shown = headers.get(b"authorization", b"")
    token = shown[len(BEARER) :].decode("latin-1") if shown.lower().startswith(BEARER) else ""
    try:
        if scope["method"] == "PUT":
            await _take_in(backup_id, token, receive, send)
        elif scope["method"] == "GET":
            await _give_out(backup_id, token, send)
        else:
            await _say(send, HTTPStatus.METHOD_NOT_ALLOWED, "PUT or GET.")
    except AddressError as error:
        await _say(send, HTTPStatus.FORBIDDEN, str(error))
    except LockedError as error:
        await _say(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))


async def _take_in(backup_id: UUID, token: str, receive: Receive, send: Send) -> None:
    try:
        async with aclosing(_pieces(receive)) as pieces:
            size = await carrying.take_in(backup_id, token, pieces)
    except TooLargeError as error:
        await _say(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
    except CutOffError:
        logger.warning("A backup was cut off on its way in.")
    except VendorError as error:
        logger.warning("A backup could not be stored: %s", error)
        await _say(send, HTTPStatus.SERVICE_UNAVAILABLE, "The backup store does not work.")
    else:
        await _say(send, HTTPStatus.CREATED, f"{size} bytes are stored.")


async def _give_out(backup_id: UUID, token: str, send: Send) -> None:
    """Send a backup; one that turns out to be damaged is cut, so that it never looks whole."""
    found = await carrying.give_out(backup_id, token)
    head = [
        (b"content-type", b"application/gzip"),
        (b"content-length", b"%d" % found.size_bytes),
        (b"x-content-sha256", found.sha256.encode()),
    ]
    async with aclosing(found.pieces) as pieces:
        first = await _first(pieces, send)
        if first is None:
            return
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": head})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _first(pieces: AsyncGenerator[bytes], send: Send) -> bytes | None:
    """Open the first piece while an error can still be said."""
    try:
        return await anext(pieces, b"")
    except OpenClawError as error:
        logger.error("A backup cannot be given back: %s", error)  # noqa: TRY400 - no bug of ours
        await _say(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return None


async def _pieces(receive: Receive) -> AsyncGenerator[bytes]:
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await receive()
        except TimeoutError as error:
            raise CutOffError("The sender has sent nothing for too long.") from error
        if message["type"] == "http.disconnect":
            raise CutOffError("The sender went away before it had sent all.")
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body", False):
            return


def _id(path: str) -> UUID | None:
    try:
        return UUID(path.removeprefix(PATH))
    except ValueError:
        return None


async def _say(send: Send, status: HTTPStatus, sentence: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [TYPE]})
    await send({"type": "http.response.body", "body": sentence.encode()})
