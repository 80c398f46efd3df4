"""Redis may go away, or hang: bells and announcements never hold anything up."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from openclaw_web.integrations import redis as our_redis


@pytest.fixture
async def hanging_redis(monkeypatch) -> AsyncIterator[None]:
    """Accept every connection, and never answer."""
    ended = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    monkeypatch.setattr(our_redis, "BELL_SECONDS", 0.2)
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    our_redis.open_redis(f"redis://127.0.0.1:{port}/0")
    yield
    ended.set()
    await our_redis.close_redis()
    server.close()


@pytest.mark.usefixtures("hanging_redis")
async def test_a_redis_that_hangs_holds_no_commit_up():
    async with asyncio.timeout(2):
        await our_redis.ring("jobs", "1")
        await our_redis.announce_change(uuid4())


@pytest.mark.usefixtures("redis")
async def test_a_bell_wakes_who_waits_and_brings_its_note():
    waiting = asyncio.create_task(our_redis.wait_for_bell("jobs", timeout_seconds=5))
    await our_redis.ring("jobs", "the note")
    assert await waiting == "the note"


@pytest.mark.usefixtures("redis")
async def test_without_a_ring_the_wait_ends_by_itself():
    assert await our_redis.wait_for_bell("jobs", timeout_seconds=0.1) is None


@pytest.mark.usefixtures("redis")
async def test_a_bell_that_nobody_hears_does_not_grow(monkeypatch):
    monkeypatch.setattr(our_redis, "BELL_LENGTH", 3)
    for number in range(5):
        await our_redis.ring("jobs", str(number))
    # redis-py types a command's answer for its clients with and without asyncio at once.
    length = await our_redis.client().llen("bell:jobs")  # ty: ignore[invalid-await]
    assert length == 3


async def test_many_customers_are_announced_at_once(redis):
    customers = {uuid4() for _ in range(3)}
    async with redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(our_redis.CHANGES)
        await our_redis.announce_change(*customers)
        told = set()
        async with asyncio.timeout(5):
            while told != customers:
                message = await heard.get_message(timeout=1.0)
                if message is not None:
                    told.add(UUID(message["data"]))
