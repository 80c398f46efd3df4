"""The sockets below the answers, so that one can be broken off as networks do it."""

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_NOT = struct.pack("ii", 1, 0)  # closing then resets the connection, whatever is under way

_open: dict[Any, asyncio.Transport] = {}


class Connection(HttpToolsProtocol):
    """uvicorn's own, and it can be found by the address of its client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        _open[transport.get_extra_info("peername")] = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        _open.pop(self.transport.get_extra_info("peername"), None)
        super().connection_lost(exc)


def close(client: object) -> None:
    """Close the connection as if the answer had ended."""
    if (transport := _open.get(client)) is not None:
        transport.close()


def reset(client: object) -> None:
    """End the connection as a machine that lost its power and came back does: RST."""
    if (transport := _open.get(client)) is not None:
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT
        )
        transport.abort()
