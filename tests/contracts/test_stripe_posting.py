"""What carries the simulator's webhooks: keeps connections, and gives up on what is no answer."""

import asyncio
import contextlib

import pytest

from simulators.stripe.posting import Poster, PostError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def receiver(*answers):
    """Answer one request after the other, on however many connections; None hangs up."""
    left, met = list(answers), []

    async def talk(reader, writer):
        met.append(0)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(4)
                assert b"Content-Length: 4" in head
                met[-1] += 1
                answer = left.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    poster = Poster()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=b"
    try:
        yield lambda: poster.post(url, {"X": "y"}, b"body"), met
    finally:
        await poster.close()
        server.close()
        await server.wait_closed()


async def test_one_connection_carries_many_posts():
    chunked = b"HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    empty = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"
    async with receiver(OK, chunked, empty, OK) as (post, met):
        assert [await post() for _ in range(4)] == [200, 201, 204, 200]
        assert met == [4]


async def test_a_connection_that_was_closed_is_opened_anew():
    closing = b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with receiver(OK, None, closing, OK) as (post, met):
        assert [await post() for _ in range(3)] == [200, 500, 200]
        assert met == [2, 1, 1]


@pytest.mark.parametrize("answer", [None, b"hello\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n"])
async def test_what_is_no_answer_is_an_error(answer):
    async with receiver(answer) as (post, _):
        with pytest.raises(PostError):
            await post()


async def test_nobody_listening_is_an_error():
    async with receiver() as (post, _):
        pass
    with pytest.raises(PostError):
        await post()
