"""Clients that neither send nor take: their place is given to others."""

import asyncio
import gc

import pytest

from openclaw_web.gateway.calls import AsgiCall
from openclaw_web.gateway.errors import BadRequestError
from openclaw_web.gateway.patience import Patience
from tests.gateway.test_settling import settled
from tests.gateway.upstream_server import DONE, USAGE_CHUNK, chunk, stream


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def patience(clock):
    return Patience(60.0, clock)


async def nobody_listens(_message):
    raise AssertionError("nothing is answered here")


def call_that_gets(receive):
    scope = {"path": "/proxy/v1/messages", "headers": [(b"content-length", b"100")]}
    return AsgiCall(scope, receive, nobody_listens)


async def test_a_body_that_never_comes_is_refused_after_a_minute(patience, clock):
    async def receive():
        await asyncio.get_running_loop().create_future()

    reading = asyncio.create_task(call_that_gets(receive).body(patience))
    await asyncio.sleep(0)
    clock.now += 59
    patience.look()
    await asyncio.sleep(0)
    assert not reading.done()
    clock.now += 2
    patience.look()
    with pytest.raises(BadRequestError, match="in time") as refused:
        await reading
    assert refused.value.status == 408


async def test_who_sends_a_little_now_and_then_has_no_more_time(patience, clock):
    waiting = asyncio.create_task(asyncio.Event().wait())
    for _ in range(4):
        patience.begin(waiting)
        patience.look()
        clock.now += 20
    patience.look()
    await asyncio.wait([waiting])
    assert patience.was_lost(waiting)


async def test_a_request_that_is_cancelled_otherwise_stays_cancelled(patience):
    async def receive():
        await asyncio.get_running_loop().create_future()

    reading = asyncio.create_task(call_that_gets(receive).body(patience))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


WHOLE = stream(chunk("a"), chunk("b"), USAGE_CHUNK, DONE)


@pytest.mark.parametrize(
    ("script", "untaken", "is_estimated"),
    [(WHOLE, b"data", False), (stream(chunk("a"), cut=True), b"error", True)],
    ids=["a part", "our last word"],
)
async def test_a_client_that_takes_nothing_is_left_and_still_counted(  # noqa: PLR0917 - fixtures
    impatient, holder, upstream, ledger, proxy, script, untaken, is_estimated
):
    upstream.will(script)
    stuck = asyncio.Event()

    async def send(message):
        if untaken in message.get("body", b""):
            stuck.set()
            await asyncio.get_running_loop().create_future()

    body = b'{"model":"k2p5","messages":[],"stream":true}'
    sent = [{"type": "http.request", "body": body}]

    async def receive():
        if sent:
            return sent.pop()
        return await asyncio.get_running_loop().create_future()

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/proxy/v1/chat/completions",
        "headers": [(b"authorization", b"Bearer " + holder.clear.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    answering = asyncio.create_task(proxy(scope, receive, send))
    await stuck.wait()
    impatient.look()
    async with asyncio.timeout(10):  # nobody else would end it
        await answering
    ((event, meta),) = await settled(holder, ledger)
    assert meta.estimated is is_estimated
    assert is_estimated or event.total_tokens == 120


async def test_who_was_lost_and_ended_otherwise_is_forgotten(patience, clock):
    waiting = asyncio.create_task(asyncio.sleep(0))
    patience.begin(waiting)
    await waiting
    clock.now += 61
    patience.look()
    del waiting
    await asyncio.sleep(0)  # what woke us holds it until now
    gc.collect()
    assert not patience._lost  # noqa: SLF001 - nothing else shows it
