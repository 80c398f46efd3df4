"""A model provider that answers exactly the bytes it is told to, good or bad."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

Script = Callable[["Seen", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class ScriptedUpstream:
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    scripts: deque[Script] = field(default_factory=deque)
    connections: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    server: asyncio.Server | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/coding/v1"

    def will(self, *scripts: Script) -> None:
        self.scripts.extend(scripts)

    def hang_up(self) -> None:
        """End all connections, as servers do with those that nobody has used for a while."""
        for writer in self.writers:
            writer.close()

    async def until_seen(self, count: int) -> None:
        while len(self.seen) < count:
            self.news.clear()
            await self.news.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                request = await self._read(reader, number)
                self.seen.append(request)
                self.news.set()
                script = self.scripts.popleft() if self.scripts else whole(completion())
                await script(request, writer)
                await writer.drain()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader, number: int) -> Seen:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in head[1:] if line):
            before = headers.get(name.lower())
            headers[name.lower()] = (
                value.strip() if before is None else f"{before}, {value.strip()}"
            )
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Seen(head[0].split()[1], headers, body, number)


@contextlib.asynccontextmanager
async def serving() -> AsyncGenerator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**26)
    upstream.server = server
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for writer in upstream.writers:
            writer.close()
        await server.wait_closed()


def model_for(asked: str) -> str:
    """Return what a model is called upstream, in tests that need no providers."""
    return "kimi-for-coding" if asked == "k2p5" else asked


def completion(text: str = "hello", usage: dict | None = None, **fields) -> dict:
    usage = {"prompt_tokens": 11, "completion_tokens": 7} if usage is None else usage
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "choices": [choice], "usage": usage} | fields


def chunk(text: str = "", **fields) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    body = {"id": "chatcmpl-1", "choices": [choice]} | fields
    return b"data: " + json.dumps(body).encode() + b"\n\n"


USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
USAGE_CHUNK = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def anthropic_event(name: str, **fields) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


ANTHROPIC_STREAM = (
    anthropic_event(
        "message_start",
        message={
            "id": "msg_1",
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 30,
                "output_tokens": 1,
            },
        },
    ),
    anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
    anthropic_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9}),
    anthropic_event("message_delta", delta={}, usage={"output_tokens": 20}),
    anthropic_event("message_stop"),
)


def whole(body: dict | bytes, *, status: int = 200, headers: str = "") -> Script:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(_: Seen, writer: asyncio.StreamWriter) -> None:
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{headers}\r\n"
        )
        writer.write(head.encode() + data)

    return script


def stream(*parts: bytes, before: asyncio.Event | None = None, cut: bool = False) -> Script:
    """Send parts as chunks of an event stream; `before` holds the second one back."""

    async def script(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number, part in enumerate(parts):
            if number and before is not None:
                await before.wait()
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        if cut:
            writer.close()
        else:
            writer.write(b"0\r\n\r\n")

    return script


def raw(data: bytes) -> Script:
    """Send bytes that need not be HTTP, and hang up."""

    async def script(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return script
