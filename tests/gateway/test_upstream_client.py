"""Our HTTP client: time-outs, back-pressure, TLS and what it does with connections."""

import asyncio
import contextlib
import socket
import ssl

import pytest
import uvloop

from openclaw_web.integrations.upstream import (
    Limits,
    TimeOuts,
    UnsafeHeaderError,
    Upstream,
    UpstreamError,
)
from openclaw_web.integrations.upstream import connection as client
from openclaw_web.integrations.upstream import pool as pooling
from tests.gateway.certificates import make_certificate
from tests.gateway.upstream_server import chunk, raw, serving, stream, whole

BIG = 4 * 1024 * 1024


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
async def server():
    async with serving() as running:
        yield running


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def make_pool(server, clock):
    async with contextlib.AsyncExitStack() as stack:

        def make(url=server.url, **settings):
            made = Upstream(url, clock=clock, **settings)
            stack.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
def pool(make_pool):
    return make_pool(time_outs=TimeOuts(first_byte=60, idle=20))


@pytest.fixture
def held(server):
    """Make the provider's next answer wait, until the event that is returned is set."""
    go_on = asyncio.Event()

    async def script(seen, writer):
        await go_on.wait()
        await whole(b"{}")(seen, writer)

    server.will(script)
    return go_on


async def ask(pool, body=b"{}", path="/coding/v1/x", headers=()):
    return await pool.post(pool.prepare(path), body, headers)


async def until(condition):
    while not condition():  # noqa: ASYNC110 - sockets have no event for the other side
        await asyncio.sleep(0.001)


async def failure_of(task):
    with pytest.raises(UpstreamError) as failed:
        await task
    return failed.value.code, failed.value.was_sent


async def test_a_provider_that_never_answers_times_out(server, pool, clock, held):
    asking = asyncio.create_task(ask(pool))
    await server.until_seen(1)
    clock.now += 59
    pool.sweep()
    await asyncio.sleep(0)
    assert not asking.done()
    clock.now += 2
    pool.sweep()
    assert await failure_of(asking) == ("timeout", True)
    assert pool.failures == {"timeout": 1}
    held.set()


async def test_a_stream_that_stands_still_times_out_after_what_it_gave(server, pool, clock):
    server.will(stream(chunk("a"), chunk("b"), before=asyncio.Event()))
    answer = await ask(pool)
    parts = answer.parts()
    assert await anext(parts) == chunk("a")
    clock.now += 21
    pool.sweep()
    assert await failure_of(anext(parts)) == ("idle", True)


async def test_whole_answers_and_streams_arrive_as_they_were_sent(server, pool):
    server.will(whole(b"[1]"), stream(chunk("a"), chunk("b"), chunk("c")), whole(b""))
    assert await (await ask(pool)).read() == b"[1]"
    answer = await ask(pool)
    assert b"".join([part async for part in answer.parts()]) == b"".join(map(chunk, "abc"))
    assert (answer.status, answer.header(b"content-type")) == (200, b"text/event-stream")
    assert await (await ask(pool)).read() == b""
    assert server.connections == 1


async def test_a_large_request_and_a_large_answer_arrive_whole(server, pool):
    server.will(whole(b"y" * BIG))
    answer = await ask(pool, b"x" * BIG)
    assert await answer.read() == b"y" * BIG
    assert server.seen[0].body == b"x" * BIG


async def test_an_abandoned_answer_costs_its_connection_a_finished_one_does_not(server, pool):
    for _ in range(3):
        await (await ask(pool)).read()
    assert server.connections == 1
    server.will(stream(chunk("a"), chunk("b"), before=asyncio.Event()))
    (await ask(pool)).abort()
    await (await ask(pool)).read()
    assert server.connections == 2


async def test_a_discarded_answer_keeps_its_connection_unless_it_is_long(server, pool):
    server.will(whole(b"x" * 1000, status=503), whole(b"x" * BIG, status=503))
    (await ask(pool)).discard()
    await until(lambda: pool.idle_connections == 1)
    (await ask(pool)).discard()
    await until(lambda: pool.open_connections == 0)
    assert server.connections == 1


async def test_a_connection_that_says_more_than_it_was_asked_is_not_used_again(server, pool):
    server.will(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"))
    assert await (await ask(pool)).read() == b"{}"
    assert await (await ask(pool)).read() != b"{}"
    assert server.connections == 2


async def test_a_connection_that_dies_midway_is_not_tried_again(server, pool):
    await (await ask(pool)).read()
    server.will(raw(b"HTTP/1.1 200 OK\r\nContent-"))
    assert await failure_of(ask(pool)) == ("closed", True)
    assert len(server.seen) == 2


ONLY_LINUX = pytest.mark.skipif(
    client.TCP_INFO is None, reason="only Linux tells what was acknowledged"
)


@ONLY_LINUX
async def test_a_request_that_crossed_the_end_of_its_connection_goes_out_again():
    await cross_the_end_of_a_connection()


@ONLY_LINUX
async def test_a_request_that_a_dying_provider_had_read_does_not_go_out_again():
    await die_with_a_request()


async def cross_the_end_of_a_connection():
    async with hand_made_provider() as (pool, accept):
        taken = await answer_once(pool, accept)
        taken.close()  # and before we can see it, the next request is on its way
        await answer_once(pool, accept)
        assert pool.failures == {"closed": 1}


async def die_with_a_request():
    async with hand_made_provider() as (pool, accept):
        taken = await answer_once(pool, accept)
        asking = asyncio.create_task(ask(pool))
        await asyncio.get_running_loop().sock_recv(taken, 65_536)
        taken.close()
        assert await failure_of(asking) == ("closed", True)


@contextlib.asynccontextmanager
async def hand_made_provider():
    """Give a pool, and a function that takes its next connection as a bare socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.settimeout(0)

        async def accept():
            taken, _ = await asyncio.get_running_loop().sock_accept(listener)
            return stack.enter_context(taken)

        pool = Upstream(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield pool, accept
        await pool.close()


async def answer_once(pool, accept):
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(ask(pool))
    taken = await accept()
    await loop.sock_recv(taken, 65_536)
    await loop.sock_sendall(taken, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await asking
    return taken


def test_the_same_happens_on_the_loop_that_servers_use():
    async def all_of_it():
        async with serving() as server:
            pool = Upstream(server.url)
            server.will(whole(b"y" * BIG), stream(chunk("a"), chunk("b")))
            assert await (await ask(pool, b"x" * BIG)).read() == b"y" * BIG
            assert await (await ask(pool)).read() == chunk("a") + chunk("b")
            assert (server.seen[0].body, server.connections) == (b"x" * BIG, 1)
            server.will(raw(b"HTTP/1.1 200 OK\r\nContent-"))
            assert await failure_of(ask(pool)) == ("closed", True)
            await pool.close()
        if client.TCP_INFO is not None:
            await cross_the_end_of_a_connection()
            await die_with_a_request()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_it())


async def test_idle_connections_are_closed_and_old_ones_not_kept(server, pool, clock):
    await (await ask(pool)).read()
    clock.now += pooling.KEEP_ALIVE_SECONDS + 1
    pool.sweep()
    await until(lambda: pool.open_connections == 0)
    await (await ask(pool)).read()
    assert (server.connections, pool.idle_connections) == (2, 1)
    for _ in range(35):
        clock.now += pooling.MAX_AGE_SECONDS / 29
        answer = await ask(pool)
        pool.sweep()
        await answer.read()
    assert server.connections > 2


async def test_a_full_pool_lets_some_wait_and_refuses_the_others(server, make_pool, held):
    pool = make_pool(limits=Limits(connections=1, waiting=2))
    first = asyncio.create_task(ask(pool))
    await server.until_seen(1)
    gone, second = asyncio.create_task(ask(pool)), asyncio.create_task(ask(pool))
    await until(lambda: pool.waiting_requests == 2)
    assert await failure_of(ask(pool)) == ("busy", False)
    gone.cancel()
    await asyncio.wait([gone])
    held.set()
    await (await first).read()
    await (await second).read()
    assert (server.connections, pool.open_connections) == (1, 1)


async def test_waiting_for_a_connection_ends(server, make_pool, held):
    pool = make_pool(limits=Limits(connections=1, wait_seconds=0.01))
    first = asyncio.create_task(ask(pool))
    await server.until_seen(1)
    assert await failure_of(ask(pool)) == ("busy", False)
    held.set()
    await (await first).read()
    assert pool.waiting_requests == 0


async def test_whoever_waits_may_connect_when_a_connection_ends(server, make_pool):
    pool = make_pool(limits=Limits(connections=1))
    server.will(stream(chunk("a"), chunk("b"), before=asyncio.Event()))
    running = await ask(pool)
    waiting = [asyncio.create_task(ask(pool)) for _ in range(3)]
    await until(lambda: pool.waiting_requests == 3)
    running.abort()
    for answer in asyncio.as_completed(waiting):
        await (await answer).read()
    assert (server.connections, pool.open_connections) == (2, 1)


async def test_waiting_requests_hear_that_the_provider_has_gone(server, make_pool):
    pool = make_pool(limits=Limits(connections=1))
    server.will(stream(chunk("a"), chunk("b"), before=asyncio.Event()))
    running = await ask(pool)
    waiting = [asyncio.create_task(ask(pool)) for _ in range(3)]
    await until(lambda: pool.waiting_requests == 3)
    server.server.close()
    running.abort()
    assert [await failure_of(task) for task in waiting] == [("unreachable", False)] * 3
    assert pool.open_connections == 0


async def test_a_cancelled_request_frees_its_place(server, make_pool, held):
    pool = make_pool(limits=Limits(connections=1))
    asking = asyncio.create_task(ask(pool))
    await server.until_seen(1)
    asking.cancel()
    await asyncio.wait([asking])
    await until(lambda: pool.open_connections == 0)
    held.set()
    await (await ask(pool)).read()


async def test_closing_ends_what_is_under_way_and_what_waits(server, make_pool):
    pool = make_pool(limits=Limits(connections=1))
    server.will(stream(chunk("a"), chunk("b"), before=asyncio.Event()))
    answer = await ask(pool)
    await anext(answer.parts())
    waiting = asyncio.create_task(ask(pool))
    await until(lambda: pool.waiting_requests == 1)
    await pool.close()
    assert await failure_of(answer.read()) == ("closed", True)
    assert await failure_of(waiting) == ("closed", False)
    await until(lambda: pool.open_connections == 0)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"user-agent", b"x\r\nContent-Length: 0\r\n\r\nPOST /admin HTTP/1.1"),
        (b"user-agent", b"x\nAuthorization: y"),
        (b"user-agent", b"x\ry"),
        (b"user-agent", b"x\0y"),
        (b"a: b\r\nc", b"d"),
    ],
)
async def test_a_header_with_a_line_break_is_refused_and_nothing_is_sent(server, pool, name, value):
    with pytest.raises(UnsafeHeaderError):
        await ask(pool, headers=((name, value),))
    with pytest.raises(UnsafeHeaderError):
        pool.prepare("/x", ((name, value),))
    assert server.seen == []


@pytest.mark.parametrize("path", ["x", "/x HTTP/1.1\r\nA: b", "/a b", "/\u00e9"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(UnsafeHeaderError):
        Upstream("http://127.0.0.1:9").prepare(path)


async def test_a_name_that_does_not_exist_is_unreachable(make_pool):
    assert await failure_of(ask(make_pool("http://nowhere.invalid"))) == ("unreachable", False)


@pytest.fixture
async def tls(server, tmp_path):
    """Serve with a certificate for `localhost` and 127.0.0.1, and say which names were asked."""
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    asked = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    running = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    yield certificate, running.sockets[0].getsockname()[1], asked
    running.close()


async def test_tls_names_the_host_and_certificates_are_checked(server, make_pool, tls):
    certificate, port, asked = tls
    stranger = make_pool(f"https://127.0.0.1:{port}/v1")
    assert await failure_of(ask(stranger)) == ("unreachable", False)
    trusting = make_pool(f"https://localhost:{port}/v1", ca_file=str(certificate))
    server.will(whole(b"{}"), whole(b"y" * BIG))
    assert await (await ask(trusting)).read() == b"{}"
    assert await (await ask(trusting, b"x" * BIG)).read() == b"y" * BIG
    assert asked[-1] == "localhost"
    assert len(server.seen) == 2
    await trusting.close()


async def test_the_systems_certificates_can_be_set_by_environment(
    server, make_pool, tls, monkeypatch
):
    certificate, port, _ = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    pool = make_pool(f"https://127.0.0.1:{port}/v1")
    server.will(whole(b"{}"))
    assert await (await ask(pool)).read() == b"{}"
    await pool.close()
