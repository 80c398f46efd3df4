"""What a provider may say to us, cut anywhere: a good answer is whole, all else a plain error."""

import asyncio
import gzip
import random
from typing import Any, cast

import pytest

from openclaw_web.integrations.upstream import TimeOuts, Upstream, UpstreamError
from openclaw_web.integrations.upstream import connection as client
from openclaw_web.integrations.upstream.connection import Connection
from tests.gateway.upstream_server import chunk

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"Content-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"a":"b\r\n"}'
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\nX-Early: yes\r\n\r\n"
    + OK
    + b"Transfer-Encoding: Chunked\r\nRetry-After: 3\r\n\r\n"
    + b"5;name=value\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Trailer: z\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


class Wire:
    """A transport that only remembers."""

    def __init__(self):
        self.sent = b""
        self.unsent_bytes = 0
        self.is_paused = self.is_aborted = False
        self.protocol: Any = None
        self.takes: Any = None

    def write(self, data):
        self.sent += bytes(data)
        if self.takes is not None and len(self.sent) > self.takes:
            self.unsent_bytes = len(self.sent) - self.takes
            self.protocol.pause_writing()

    def get_write_buffer_size(self):
        return self.unsent_bytes

    def get_extra_info(self, _):
        return None

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        self.is_paused = False

    def abort(self):
        self.is_aborted = True


class Line:
    """One connection of a pool, with the other end in the test's hand."""

    def __init__(self, body=b"{}", takes=None):
        self.now = 0.0
        self.pool = Upstream(
            "http://provider.example",
            clock=lambda: self.now,
            time_outs=TimeOuts(first_byte=60, idle=20, unread=100),
        )
        self.wire = Wire()
        self.wire.takes = takes
        self.connection = Connection(self.pool, asyncio.get_running_loop())
        self.wire.protocol = self.connection
        self.connection.connection_made(cast("asyncio.Transport", self.wire))
        self.answer = self.connection.send(b"HEAD", body)

    def say(self, *parts):
        for part in parts:
            self.connection.data_received(part)

    def hang_up(self, exc=None):
        if exc is None:
            self.connection.eof_received()
        self.connection.connection_lost(exc)

    async def outcome(self):
        """Return the status and the body, or the error's code and what had arrived before."""
        arrived = b""
        try:
            await self.answer.begun()
            async for part in self.answer.parts():
                arrived += part
        except UpstreamError as error:
            return error.code, arrived
        return self.answer.status, arrived

    @property
    def is_kept(self):
        return self.pool.idle_connections == 1

    def wait(self, seconds):
        self.now += seconds
        self.pool.sweep()


GOOD = {
    "whole": (WHOLE, 200, b'{"a":"b\r\n"}'),
    "chunked": (CHUNKED, 200, b"hello world"),
    "empty": (EMPTY, 204, b""),
}


@pytest.mark.parametrize("name", GOOD)
async def test_an_answer_is_the_same_however_it_is_split(name):
    data, status, body = GOOD[name]
    for at in range(len(data) + 1):
        line = Line()
        line.say(*(part for part in (data[:at], data[at:]) if part))
        assert (await line.outcome(), line.is_kept) == ((status, body), True)
    line = Line()
    line.say(*(data[at : at + 1] for at in range(len(data))))
    assert (await line.outcome(), line.is_kept) == ((status, body), True)


@pytest.mark.parametrize("exc", [None, ConnectionResetError()], ids=["end", "reset"])
@pytest.mark.parametrize("name", GOOD)
async def test_an_answer_that_is_cut_anywhere_is_never_taken_for_whole(name, exc):
    data, _, body = GOOD[name]
    for at in range(len(data)):
        line = Line()
        if at:
            line.say(data[:at])
        line.hang_up(exc)
        code, arrived = await line.outcome()
        assert code == "closed"
        assert body.startswith(arrived)
        assert not line.is_kept


@pytest.mark.parametrize("seed", range(20))
async def test_noise_anywhere_in_an_answer_breaks_nothing_else(seed):
    dice = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(200):
        noisy = bytearray(dice.choice([WHOLE, CHUNKED]))
        for _ in range(dice.randint(1, 4)):
            noisy[dice.randrange(len(noisy))] = dice.randrange(256)
        line = Line()
        line.say(bytes(noisy))
        if not line.wire.is_aborted and not line.is_kept:
            line.hang_up()
        result, arrived = await line.outcome()
        assert isinstance(result, int) or result in {"malformed", "closed"}
        assert len(arrived) <= len(noisy)


BAD = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "length of letters": OK + b"Content-Length: nonsense\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
    "other encoding": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "two encodings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "huge chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    "chunk without end": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
    "blank in a name": OK + b"Content-Length : 2\r\n\r\n{}",
    "a zero byte": OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "interim flood": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9,
    "many headers": OK + b"".join(b"X-%d: y\r\n" % number for number in range(129)) + b"\r\n",
    "a long header": OK + b"X: " + b"y" * 70_000,
    "a long name": OK + b"y" * 70_000,
    "a long status": b"HTTP/1.1 200 " + b"y" * 70_000,
    "long trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 70_000,
    "long extensions": OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=" + b"y" * 70_000,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("size", [1_000, 100_000], ids=["in parts", "at once"])
async def test_what_is_no_answer_is_refused_before_it_fills_the_memory(name, size):
    line = Line()
    data = BAD[name]
    for at in range(0, len(data), size):
        if not line.wire.is_aborted:
            line.say(data[at : at + size])
    code, arrived = await line.outcome()
    assert code == "malformed"
    assert len(arrived) <= 2
    assert (line.wire.is_aborted, line.is_kept) == (True, False)
    assert line.pool.failures == {"malformed": 1}


async def test_headers_and_trailers_that_trickle_in_for_ever_end():
    line = Line()
    line.say(OK)
    for _ in range(70):
        line.say(b"X: y\r\n")
        line.wait(1)
    assert await line.outcome() == ("timeout", b"")
    line = Line()
    line.say(CHUNKED[: CHUNKED.index(b"X-Trailer")])
    for _ in range(30):
        line.say(b"X: y\r\n")
        line.wait(1)
    assert await line.outcome() == ("idle", b"hello world")


@pytest.mark.parametrize(
    "more",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"garbage", b"{}", b"\0"],
    ids=["answer", "text", "body", "zero"],
)
async def test_bytes_after_an_answer_never_belong_to_the_next_one(more):
    line = Line()
    line.say(WHOLE + more)
    assert (await line.outcome())[0] == 200
    assert (line.is_kept, line.wire.is_aborted) == (False, True)
    line = Line()
    line.say(WHOLE)
    assert line.is_kept
    line.say(more)
    assert (line.is_kept, line.wire.is_aborted) == (False, True)


@pytest.mark.parametrize(
    "head",
    [
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        OK + b"Connection: close\r\n\r\n",
        OK + b"\r\n",
    ],
    ids=["close", "1.0", "end is the end", "no length"],
)
async def test_an_answer_that_ends_its_connection_is_whole(head):
    line = Line()
    line.say(head + b"{}")
    line.hang_up()
    assert await line.outcome() == (200, b"{}")
    assert not line.is_kept


async def test_a_trailer_changes_no_header():
    line = Line()
    line.say(CHUNKED.replace(b"X-Trailer: z", b"Retry-After: 9"))
    assert await line.outcome() == (200, b"hello world")
    assert line.answer.header(b"retry-after") == b"3"
    assert line.answer.header(b"x-early") is None


async def test_a_burst_of_small_chunks_is_one_part():
    line = Line()
    events = [chunk("a")] * 50
    body = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    line.say(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert await anext(line.answer.parts()) == b"".join(events)


async def test_a_fast_provider_is_held_back_by_a_slow_reader_but_not_for_ever():
    line = Line()
    line.say(OK + b"Content-Length: 9000000\r\n\r\n")
    while not line.wire.is_paused:
        line.say(b"x" * 65_536)
    assert line.answer.waiting_bytes <= client.HIGH_WATER_BYTES + 65_536
    line.wait(90)
    taken = await anext(line.answer.parts())
    assert (len(taken), line.wire.is_paused) == (line.answer.waiting_bytes or len(taken), False)
    while not line.wire.is_paused:
        line.say(b"x" * 65_536)
    line.wait(101)
    code, arrived = await line.outcome()
    assert (code, line.wire.is_aborted) == ("unread", True)
    assert len(arrived) > client.HIGH_WATER_BYTES


async def test_a_connection_that_was_held_back_is_read_from_again_by_the_next_answer():
    line = Line()
    size = client.HIGH_WATER_BYTES + 1
    line.say(OK + b"Content-Length: %d\r\n\r\n" % (size + 1) + b"x" * size)
    assert line.wire.is_paused
    line.say(b"x")
    assert (line.is_kept, line.wire.is_paused) == (True, False)
    assert len(await line.answer.read()) == size + 1


async def test_a_large_request_goes_out_as_fast_as_it_is_taken():
    body = b"x" * (3 * client.SLICE_BYTES + 5)
    line = Line(body, takes=client.SLICE_BYTES)
    assert len(line.wire.sent) < 2 * client.SLICE_BYTES
    line.wait(19)
    while line.wire.sent != b"HEAD" + body:
        line.wire.takes += client.SLICE_BYTES
        line.wire.unsent_bytes = 0
        line.connection.resume_writing()
        line.wait(15)
    line.wait(40)
    line.say(WHOLE)
    assert (await line.outcome())[0] == 200
    assert line.is_kept


async def test_a_provider_that_does_not_take_the_request_is_given_up():
    line = Line(b"x" * 3 * client.SLICE_BYTES, takes=10)
    line.wait(21)
    assert await line.outcome() == ("stuck", b"")
    error = line.answer.error
    assert error is not None
    assert not error.was_sent, "half a request is worked at by nobody"


@pytest.mark.parametrize("unsent_bytes", [0, 5], ids=["with us", "in the socket"])
async def test_an_answer_before_the_whole_request_counts_but_ends_the_connection(unsent_bytes):
    line = Line(b"x" * (1 if unsent_bytes else 3 * client.SLICE_BYTES), takes=10)
    line.wire.unsent_bytes = unsent_bytes
    line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
    assert await line.outcome() == (413, b"{}")
    assert (line.is_kept, line.wire.is_aborted) == (False, True)


async def test_an_answer_that_came_before_the_question_ends_the_connection():
    line = Line()
    line.say(WHOLE)
    await line.outcome()
    line.say(WHOLE)
    assert line.connection.is_dead
    answer = line.connection.send(b"HEAD", b"{}")
    with pytest.raises(UpstreamError) as failed:
        await answer.begun()
    assert not failed.value.was_sent


async def test_a_late_reset_may_come_from_somebody_who_had_passed_the_request_on():
    for seconds, was_sent in ((0.5, False), (2, True)):
        line = Line()
        line.wait(seconds)
        line.hang_up(ConnectionResetError())
        with pytest.raises(UpstreamError) as failed:
            await line.answer.begun()
        assert failed.value.was_sent is was_sent


async def test_a_packed_body_is_known_as_such():
    packed = gzip.compress(b"{}")
    line = Line()
    line.say(OK + b"Content-Encoding: GZIP\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
    assert await line.outcome() == (200, packed)
    assert line.answer.is_packed
    line = Line()
    line.say(WHOLE)
    assert not line.answer.is_packed
