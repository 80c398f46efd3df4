"""The short way of a completion: what a connection may do, and what goes the usual way instead."""

# ruff: noqa: SLF001 - what a connection waits for can be seen only in it

import asyncio
import contextlib
import gc
import json
from urllib.parse import urlsplit

import pytest

from openclaw_web.gateway.connection import MAX_BODY_BYTES, DirectProtocol
from openclaw_web.gateway.direct import DirectCall
from openclaw_web.metering import service as metering
from tests.gateway.test_settling import settled
from tests.gateway.upstream_server import DONE, USAGE_CHUNK, chunk, completion, stream, whole

CHAT = json.dumps({"model": "k2p5", "messages": []}).encode()
STREAMED = json.dumps({"model": "k2p5", "messages": [], "stream": True}).encode()
LENGTH = len(CHAT)


class Line:
    """A connection of a client that speaks HTTP byte by byte."""

    def __init__(self, reader, writer, clear):
        self._reader = reader
        self._writer = writer
        self._clear = clear

    def head(self, *more, length=LENGTH, version="1.1"):
        lines = [
            f"POST /proxy/v1/chat/completions HTTP/{version}",
            "Host: localhost",
            f"Authorization: Bearer {self._clear}",
            *([] if length is None else [f"Content-Length: {length}"]),
            *more,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def say(self, *parts):
        for part in parts:
            self._writer.write(part)

    async def answer(self):
        """Return the next answer's status, headers and body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        status = int(head[0].split()[1])
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
        }
        if "content-length" in headers:
            return status, headers, await self._reader.readexactly(int(headers["content-length"]))
        return status, headers, await self._chunks()

    async def is_closed(self):
        with contextlib.suppress(ConnectionResetError):  # it sent something after the end
            return await self._reader.read(1) == b""
        return True

    def leave(self):
        self._writer.close()

    def stop_reading(self):
        self._writer.transport.pause_reading()

    def go_on_reading(self):
        self._writer.transport.resume_reading()

    async def _chunks(self):
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readline()
        await self._reader.readline()
        return body


@pytest.fixture
async def call(holder, base_url):
    """Return a function that opens a line; all are closed at the end."""
    address = urlsplit(base_url)
    async with contextlib.AsyncExitStack() as lines:

        async def connect():
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            line = Line(reader, writer, holder.clear)
            lines.callback(line.leave)
            return line

        yield connect


async def test_a_connection_is_used_again(call, upstream):
    line = await call()
    for _ in range(3):
        line.say(line.head(), CHAT)
        status, headers, body = await line.answer()
        assert status == 200
        assert "choices" in json.loads(body)
        assert headers["x-request-id"] == headers["request-id"]
        assert "date" in headers
    assert len(upstream.seen) == 3


async def test_a_connection_that_has_ended_leaves_nothing_to_the_garbage_collector(call):
    gc.collect()
    gc.disable()
    try:
        before = kept()
        line = await call()
        for _ in range(2):
            line.say(line.head(), CHAT)
            await line.answer()
        assert kept() > before
        line.leave()
        async with asyncio.timeout(5):
            while kept() > before:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert kept() == before
    finally:
        gc.enable()


def kept() -> int:
    """Return how many connections of clients, and requests on them, are in memory."""
    return sum(isinstance(one, DirectProtocol | DirectCall) for one in gc.get_objects())


async def test_requests_that_are_sent_ahead_are_answered_in_turn(call, upstream):
    go_on = asyncio.Event()
    upstream.will(stream(chunk("first"), USAGE_CHUNK, DONE, before=go_on))
    line = await call()
    line.say(line.head(length=len(STREAMED)), STREAMED, line.head(), CHAT)
    await upstream.until_seen(1)
    go_on.set()
    _, _, first = await line.answer()
    _, _, second = await line.answer()
    assert b"first" in first
    assert "choices" in json.loads(second)


async def test_who_wants_to_go_is_let_go(call):
    line = await call()
    line.say(line.head("Connection: close"), CHAT)
    status, headers, _ = await line.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert await line.is_closed()


async def test_a_body_may_come_in_pieces(call, upstream):
    line = await call()
    line.say(line.head())
    for at in range(0, len(CHAT), 7):
        line.say(CHAT[at : at + 7])
        await asyncio.sleep(0)
    assert (await line.answer())[0] == 200
    assert len(upstream.seen) == 1


UNUSUAL = {
    "an old version": ((), "1.0", len(CHAT), CHAT),
    "without a length": (
        ("Transfer-Encoding: chunked",),
        "1.1",
        None,
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT),
    ),
    "a large body": (
        (),
        "1.1",
        len(CHAT) + MAX_BODY_BYTES,
        CHAT + b" " * MAX_BODY_BYTES,
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_what_is_unusual_is_answered_all_the_same(name, call, upstream):
    more, version, length, body = UNUSUAL[name]
    line = await call()
    line.say(line.head(*more, version=version, length=length), body)
    assert (await line.answer())[0] == 200
    assert len(upstream.seen) == 1


async def test_who_asks_whether_to_go_on_is_told_so(call):
    line = await call()
    line.say(line.head("Expect: 100-continue"))
    assert (await line._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    line.say(CHAT)
    assert (await line.answer())[0] == 200


async def test_who_leaves_in_the_middle_of_a_body_is_forgotten(call, upstream, proxy):
    line = await call()
    line.say(line.head(), CHAT[:5])
    patience = proxy._running.patience
    while not patience._waiting:  # noqa: ASYNC110 - a wait has no event
        await asyncio.sleep(0.005)
    line.leave()
    while patience._waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    assert upstream.seen == []


async def test_a_body_that_never_comes_is_refused(impatient, call, upstream):
    line = await call()
    line.say(line.head(), CHAT[:5])
    while not impatient._waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    impatient.look()
    line.say(CHAT[5:])  # too late
    status, headers, body = await line.answer()
    assert (status, headers["connection"]) == (408, "close")
    assert "in time" in json.loads(body)["error"]["message"]
    assert await line.is_closed()
    assert upstream.seen == []


@pytest.fixture
def counted(holder, ledger):
    """Return a function that waits for the one event there is."""

    async def wait():
        (found,) = await settled(holder, ledger)
        return found

    return wait


@pytest.mark.interpreted
async def test_who_takes_nothing_holds_the_provider_back_is_left_and_still_counted(
    impatient, connections, call, upstream, counted
):
    many = [chunk("x" * 65_536) for _ in range(200)]
    upstream.will(stream(*many, USAGE_CHUNK, DONE))
    line = await call()
    line.stop_reading()
    line.say(line.head(length=len(STREAMED)), STREAMED)
    while not impatient._waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    impatient.look()
    event, meta = await counted()
    assert (event.prompt_tokens, event.completion_tokens) == (100, 20)
    assert meta.outcome == "complete"
    (connection,) = connections
    while connection.parser is not None:  # noqa: ASYNC110 - uvicorn's sign that it is closed
        await asyncio.sleep(0.005)


async def test_a_slow_reader_gets_every_byte(call, upstream):
    many = [chunk(f"{number:06d}" + "x" * 65_536) for number in range(100)]
    upstream.will(stream(*many, USAGE_CHUNK, DONE))
    line = await call()
    line.stop_reading()
    line.say(line.head(length=len(STREAMED)), STREAMED)
    await upstream.until_seen(1)
    line.go_on_reading()
    _, _, body = await line.answer()
    assert body == b"".join([*many, DONE])


@pytest.fixture
def connections(monkeypatch):
    """Return the server's side of each connection that is made from now on."""
    made = []
    connection_made = DirectProtocol.connection_made

    def remember(self, transport):
        made.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(DirectProtocol, "connection_made", remember)
    return made


@pytest.mark.interpreted
async def test_a_connection_that_rests_for_too_long_is_closed_and_keeps_no_body(connections, call):
    line = await call()
    line.say(line.head(), CHAT)
    await line.answer()
    (protocol,) = connections
    assert protocol._call._parts == []
    protocol._end_rest()
    line.say(line.head(), CHAT)
    assert (await line.answer())[0] == 200  # it had rested for a moment only
    protocol._rested_at -= protocol.timeout_keep_alive + 1
    protocol._end_rest()
    assert await line.is_closed()


@pytest.mark.parametrize("ws", ["wsproto"])
async def test_an_upgrade_does_not_repeat_the_request_before_it(call, upstream):
    line = await call()
    line.say(line.head(), CHAT)
    await line.answer()
    line.say(
        b"GET /proxy/v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = await line._reader.read()
    assert b"choices" not in answer
    assert len(upstream.seen) == 1


async def test_an_answer_may_be_larger_than_what_is_held_in_one_piece(holder, upstream):
    upstream.will(whole(completion("x" * 2_000_000)))
    answer = await holder.chat()
    assert len(answer.json()["choices"][0]["message"]["content"]) == 2_000_000


@pytest.fixture
def parsed(monkeypatch):
    """Return the beginnings of what is given to a parser from now on."""
    made = []
    parse = DirectProtocol._parse

    def remember(self, data):
        made.append(data[:40])
        parse(self, data)

    monkeypatch.setattr(DirectProtocol, "_parse", remember)
    return made


def chat_with(text):
    return json.dumps({"model": "kimi-for-coding", "messages": [text]}).encode()


@pytest.mark.interpreted
async def test_a_head_that_comes_again_is_not_parsed_again_and_each_body_is_its_own(
    call, upstream, parsed
):
    line = await call()
    for size in (1, 30, 2_000, 5):
        body = chat_with("x" * size)
        line.say(line.head(length=len(body)) + body)
        assert (await line.answer())[0] == 200
        assert upstream.seen[-1].body == body
    assert len(parsed) == 1


@pytest.mark.interpreted
async def test_behind_a_known_head_a_body_may_come_in_pieces_too(call, upstream, parsed):
    line, body = await call(), chat_with("y" * 500)
    line.say(line.head() + CHAT)
    await line.answer()
    line.say(line.head(length=len(body)))
    for at in range(0, len(body), 100):
        line.say(body[at : at + 100])
        await asyncio.sleep(0.005)
    assert (await line.answer())[0] == 200
    assert upstream.seen[-1].body == body
    assert len(parsed) == 1


async def test_what_is_sent_ahead_behind_a_known_head_is_answered_in_turn(call, upstream):
    line = await call()
    bodies = [chat_with(str(number)) for number in range(4)]
    line.say(line.head(length=len(bodies[0])) + bodies[0])
    await line.answer()
    line.say(b"".join(line.head(length=len(body)) + body for body in bodies[1:]))
    for _ in bodies[1:]:
        assert (await line.answer())[0] == 200
    assert [seen.body for seen in upstream.seen] == bodies


@pytest.mark.interpreted
async def test_a_head_with_another_word_in_it_is_another_head(call, upstream, parsed):
    line = await call()
    for more in ((), (), ("User-Agent: one",), ("User-Agent: two",), ("User-Agent: two",)):
        line.say(line.head(*more) + CHAT)
        assert (await line.answer())[0] == 200
        agent = upstream.seen[-1].headers.get("user-agent")
        assert [f"User-Agent: {agent}"] == list(more) or (agent, more) == (None, ())
    assert len(parsed) == 3


@pytest.mark.parametrize("length", ["0", "-1", "+1", "x", "", "12 3", "99999999999"])
async def test_a_length_that_is_none_is_refused_behind_a_known_head_as_before_it(length, call):
    statuses = []
    for is_known in (False, True):
        line = await call()
        if is_known:
            line.say(line.head() + CHAT)
            await line.answer()
        line.say(line.head(length=length))
        statuses.append((await line.answer())[0])
    assert statuses[0] == statuses[1] >= 400


async def test_a_known_head_ends_with_the_token_it_shows(call, session, holder, proxy):
    line = await call()
    line.say(line.head() + CHAT)
    assert (await line.answer())[0] == 200
    await metering.revoke_token(session, holder.token_id)
    await session.commit()
    while proxy._running.directory.known(holder.clear.encode()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    line.say(line.head() + CHAT)
    assert (await line.answer())[0] == 401


async def test_a_head_without_an_end_is_refused(call):
    line = await call()
    line.say(line.head()[:-2])
    for _ in range(20):
        line.say(b"X-More: " + b"x" * 5_000 + b"\r\n")
    assert (await line.answer())[0] == 431
    assert await line.is_closed()


async def test_a_head_that_never_ends_is_refused_after_a_while(impatient, call):
    line = await call()
    line.say(line.head()[:-2])
    while not impatient._waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    impatient.look()
    assert (await line.answer())[0] == 408
    assert await line.is_closed()


@pytest.mark.interpreted
async def test_who_asks_nothing_is_let_go_after_a_minute(connections, call):
    line = await call()
    while not connections:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    (protocol,) = connections
    protocol._end_rest()
    assert not protocol.transport.is_closing()
    protocol._rested_at -= 61
    protocol._end_rest()
    assert await line.is_closed()
