"""Posts a body over HTTP/1.1 on connections that are kept: little work for each of many events.

Hundreds of webhooks a second are sent to one receiver on the same machine; a general client spends
five times as long on each (measured).
"""

import asyncio
import contextlib
import ssl
from collections import defaultdict
from urllib.parse import urlsplit

SECONDS_TO_ANSWER = 10.0
LONGEST_HEAD = 64 * 1024
WITHOUT_BODY = frozenset({204, 304})
FINAL = 200  # what stands before is only said in between

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Place = tuple[str, int, bool]


class PostError(Exception):
    """The receiver did not answer, or not in HTTP; the text says what happened."""


class Poster:
    """Keeps connections between posts; `close` ends them."""

    def __init__(self) -> None:
        self._idle: dict[Place, list[Connection]] = defaultdict(list)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """Return the answer's status.

        Raises:
            PostError: there was no answer in time.
        """
        parts = urlsplit(url)
        is_secret = parts.scheme == "https"
        host = parts.hostname or ""
        place = (host, parts.port or (443 if is_secret else 80), is_secret)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        message = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        try:
            async with asyncio.timeout(SECONDS_TO_ANSWER):
                return await self._exchange(place, message)
        except TimeoutError:
            raise PostError("no answer in time") from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise PostError(type(error).__name__) from error

    async def close(self) -> None:
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()
        self._idle.clear()

    async def _exchange(self, place: Place, message: bytes) -> int:
        while self._idle[place]:
            with contextlib.suppress(OSError, EOFError):  # it was closed while it lay idle
                return await self._ask(place, self._idle[place].pop(), message)
        host, port, is_secret = place
        context = ssl.create_default_context() if is_secret else None
        connection = await asyncio.open_connection(host, port, ssl=context, limit=LONGEST_HEAD)
        return await self._ask(place, connection, message)

    async def _ask(self, place: Place, connection: Connection, message: bytes) -> int:
        reader, writer = connection
        is_kept = False
        try:
            writer.write(message)
            await writer.drain()
            status, is_kept = await _read_answer(reader)
        finally:
            if is_kept:
                self._idle[place].append(connection)
            else:
                writer.close()
        return status


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Read a whole answer; return its status, and whether the connection can be used again."""
    status = 0
    headers: dict[str, str] = {}
    version = ""
    while status < FINAL:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.rstrip().split("\r\n")
        version, code = first.split(" ", 2)[:2]
        status = int(code)
        pairs = (line.partition(":") for line in rest)
        headers = {name.strip().lower(): value.strip().lower() for name, _, value in pairs}
    if status not in WITHOUT_BODY:
        if headers.get("transfer-encoding") == "chunked":
            await _skip_chunks(reader)
        elif "content-length" in headers:
            await reader.readexactly(int(headers["content-length"]))
        else:
            return status, False  # its body ends with the connection, and says nothing to us
    return status, version == "HTTP/1.1" and headers.get("connection") != "close"


async def _skip_chunks(reader: asyncio.StreamReader) -> None:
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        await reader.readexactly(size + 2)
        if size == 0:
            return
