"""Who leaves, and what breaks off: the place is free at once, and the count is honest."""

# ruff: noqa: SLF001 - who has a place can be seen only in a meter

import asyncio
import contextlib

import pytest

from openclaw_web.gateway import exchange
from openclaw_web.gateway.direct import DirectCall
from openclaw_web.metering.meters import Meters
from tests.gateway.conftest import WAYS
from tests.gateway.test_settling import settled
from tests.gateway.upstream_server import (
    DONE,
    USAGE,
    USAGE_CHUNK,
    chunk,
    completion,
    raw,
    stream,
    whole,
)


@pytest.fixture
def leave(holder, upstream, proxy):
    """Return a function that asks, and leaves when the provider has the request."""

    async def ask_and_leave(who=holder, **fields):
        seen = len(upstream.seen)
        asking = asyncio.create_task(who.chat(**fields))
        await upstream.until_seen(seen + 1)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        meters = proxy._running.meters._meters
        while any(meter.requests for meter in meters.values()):  # noqa: ASYNC110 - has no event
            await asyncio.sleep(0.005)

    return ask_and_leave


def late(script):
    """Return a script that says nothing before it is told to, and what tells it."""
    go_on = asyncio.Event()

    async def wait(seen, writer):
        await go_on.wait()
        await script(seen, writer)

    return wait, go_on


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_who_leaves_before_the_first_byte_frees_the_place_and_pays_the_count(
    leave, holder, upstream, ledger, is_stream
):
    answer = stream(chunk("a"), USAGE_CHUNK, DONE) if is_stream else whole(completion(usage=USAGE))
    slow, go_on = late(answer)
    upstream.will(slow, slow)
    await leave(stream=is_stream)
    await leave(stream=is_stream)
    assert (await holder.chat()).status_code == 200
    go_on.set()
    found = await settled(holder, ledger, 3)
    assert [(event.total_tokens, meta.estimated) for event, meta in found[1:]] == [(120, False)] * 2


@pytest.mark.parametrize("script", [whole({"error": {}}, status=429), raw(b"")], ids=["429", "end"])
async def test_who_leaves_and_is_refused_then_pays_nothing_for_an_answer(
    leave, holder, upstream, ledger, script
):
    slow, go_on = late(script)
    upstream.will(slow)
    await leave(stream=True)
    go_on.set()
    ((event, meta),) = await settled(holder, ledger)
    assert (event.completion_tokens, meta.outcome, len(upstream.seen)) == (0, "failed", 1)


@pytest.mark.parametrize("way", WAYS[1:])
async def test_few_of_one_customers_answers_are_read_on_for_nobody(
    leave, holder, upstream, ledger, proxy
):
    slow, go_on = late(stream(chunk("a"), USAGE_CHUNK, DONE))
    upstream.will(*[slow] * 4, stream(chunk("a"), USAGE_CHUNK, DONE, before=go_on))
    for _ in range(4):
        await leave(stream=True)
    body = {"model": "k2p5", "messages": [], "stream": True}
    async with holder.client.stream("POST", "/chat/completions", json=body) as response:
        await anext(response.aiter_raw())
    found = await settled(holder, ledger, 3)
    assert [meta.outcome for _, meta in found] == ["abandoned"] * 3
    assert all(meta.estimated and event.prompt_tokens > 0 for event, meta in found)
    go_on.set()
    found = await settled(holder, ledger, 5)
    assert [event.total_tokens for event, meta in found if not meta.estimated] == [120] * 2
    assert not proxy._running.tally._read_on


async def test_without_a_limit_all_are_read_on(leave, make_holder, upstream, ledger):
    unthrottled = await make_holder(is_unthrottled=True)
    slow, go_on = late(stream(chunk("a"), USAGE_CHUNK, DONE))
    upstream.will(*[slow] * 3)
    for _ in range(3):
        await leave(unthrottled, stream=True)
    go_on.set()
    found = await settled(unthrottled, ledger, 3)
    assert [event.total_tokens for event, _ in found] == [120] * 3


@pytest.mark.parametrize("way", WAYS[1:])
async def test_what_does_not_come_in_time_is_not_waited_for(
    leave, holder, upstream, ledger, monkeypatch
):
    monkeypatch.setattr(exchange, "DRAIN_SECONDS", 0.1)
    slow, _ = late(whole(completion(usage=USAGE)))
    upstream.will(slow)
    await leave()
    ((event, meta),) = await settled(holder, ledger)
    assert (event.prompt_tokens > 0, event.completion_tokens) == (True, 0)
    assert (meta.estimated, meta.outcome) == (True, "abandoned")


@pytest.mark.interpreted
async def test_nobody_is_asked_for_who_left_while_the_other_processes_were(
    make_holder, upstream, ledger, proxy, monkeypatch
):
    start_near, may_start, has_asked = Meters.start_near, asyncio.Event(), asyncio.Event()

    async def start_late(*arguments, **named):
        has_asked.set()
        await may_start.wait()
        return await start_near(*arguments, **named)

    def lose(call):
        lose_call(call)
        has_left.set()

    lose_call, has_left = DirectCall.lose, asyncio.Event()
    monkeypatch.setattr(DirectCall, "lose", lose)
    monkeypatch.setattr(Meters, "start_near", start_late)
    near = await make_holder(period={"tokens_limit": 100_000})
    asking = asyncio.create_task(near.chat())
    await has_asked.wait()
    asking.cancel()
    await has_left.wait()
    may_start.set()
    (meter,) = proxy._running.meters._meters.values()
    while meter.requests:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.005)
    assert (upstream.seen, await ledger(near), meter.underway) == ([], [], 0)


BEGUN = b'{"choices":[{"message":{"content":"' + b"word " * 8_000


@pytest.mark.parametrize(("way", "pieces"), [("waiting", 1), ("direct", 1), ("direct", 2)])
async def test_a_whole_answer_that_breaks_off_counts_what_arrived(holder, upstream, ledger, pieces):
    async def broken(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 50000\r\n\r\n")
        for number in range(pieces):
            writer.write(BEGUN[number::pieces])
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.close()

    upstream.will(broken)
    answer = await holder.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_closed")
    ((event, meta),) = await ledger(holder)
    assert event.completion_tokens == len(BEGUN) // 4
    assert (meta.outcome, meta.estimated, event.prompt_tokens > 0) == ("cut", True, True)


@pytest.mark.parametrize("way", WAYS[1:])
async def test_an_answer_without_an_end_is_given_up(holder, upstream, ledger, monkeypatch):
    monkeypatch.setattr(exchange, "MAX_WHOLE_BYTES", 300_000)
    has_ended = asyncio.Event()

    async def endless(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
                await writer.drain()
        finally:
            has_ended.set()

    upstream.will(endless)
    answer = await holder.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_too_large")
    await has_ended.wait()
    ((event, meta),) = await ledger(holder)
    assert (meta.outcome, meta.estimated) == ("cut", True)
    assert 300_000 // 4 <= event.completion_tokens < 600_000 // 4
