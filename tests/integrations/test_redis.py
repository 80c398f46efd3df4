"""Redis may go away, or hang: bells and announcements never hold anything up."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from openclaw_web.integrations import redis


@pytest.fixture
async def hanging_redis(monkeypatch) -> AsyncIterator[None]:
    """Accept every connection, and never answer."""
    ended = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    monkeypatch.setattr(redis, "BELL_SECONDS", 0.2)
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    redis.open_redis(f"redis://127.0.0.1:{port}/0")
    yield
    ended.set()
    await redis.close_redis()
    server.close()


@pytest.mark.usefixtures("hanging_redis")
async def test_a_redis_that_hangs_holds_no_commit_up():
    async with asyncio.timeout(2):
        await redis.ring("jobs", "1")
        await redis.announce_change(uuid4())


@pytest.mark.usefixtures("redis")
async def test_a_bell_wakes_who_waits_and_brings_its_note():
    waiting = asyncio.create_task(redis.wait_for_bell("jobs", timeout_seconds=5))
    await redis.ring("jobs", "the note")
    assert await waiting == "the note"


@pytest.mark.usefixtures("redis")
async def test_without_a_ring_the_wait_ends_by_itself():
    assert await redis.wait_for_bell("jobs", timeout_seconds=0.1) is None


@pytest.mark.usefixtures("redis")
async def test_a_bell_that_nobody_hears_does_not_grow(monkeypatch):
    monkeypatch.setattr(redis, "BELL_LENGTH", 3)
    for number in range(5):
        await redis.ring("jobs", str(number))
    # redis-py types a command's answer for its clients with and without asyncio at once.
    length = await redis.client().llen("bell:jobs")  # ty: ignore[invalid-await]
    assert length == 3
