"""Revocation reaches every process: by announcement at once, and without one by looking."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from openclaw_web.core.database import session_scope
from openclaw_web.gateway import keeping, looking
from openclaw_web.gateway.credentials import Directory
from openclaw_web.gateway.keeping import Keeper
from openclaw_web.integrations import redis as our_redis
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import ProxyToken
from tests.factories import make_box, make_period, make_subscription

HARDLY_EVER = 3_600.0
ALL_THE_TIME = 0.01


@asynccontextmanager
async def kept(directory):
    keeper = Keeper(directory)
    keeper.start()
    try:
        yield
    finally:
        await keeper.stop()


@pytest.fixture
async def issued(database):
    assert database
    async with session_scope() as session:
        subscription = await make_subscription(session)
        await make_period(session, subscription=subscription)
        box = await make_box(session, subscription=subscription)
        return await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)


@pytest.fixture
def every(monkeypatch):
    """Return a function that says how often the keeper looks."""
    monkeypatch.setattr(keeping, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "RECONNECT_SECONDS", ALL_THE_TIME)
    return lambda seconds: monkeypatch.setattr(keeping, "REFRESH_SECONDS", seconds)


async def until(is_so) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - what is waited for is another task's state
            await asyncio.sleep(0.005)


async def listening(redis) -> None:
    async with asyncio.timeout(30):
        while not dict(await redis.pubsub_numsub(our_redis.ACCESS))[our_redis.ACCESS]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_revoked_token_is_cut_at_once_when_it_is_announced(issued, redis, every):
    every(HARDLY_EVER)
    directory = Directory()
    async with kept(directory):
        await listening(redis)
        caller, _ = await directory.find(issued.clear)
        async with session_scope() as session:
            await metering.revoke_token(session, issued.token_id)
        await until(lambda: caller.ending.has_come)
        assert directory.known(issued.clear.encode()) is None


@pytest.mark.usefixtures("redis")
async def test_a_revoked_token_is_cut_when_its_announcement_is_lost(issued, every, monkeypatch):
    every(ALL_THE_TIME)

    async def lost(*_customers):
        pass

    monkeypatch.setattr(our_redis, "announce_access", lost)
    directory = Directory()
    async with kept(directory):
        caller, _ = await directory.find(issued.clear)
        async with session_scope() as session:
            await metering.revoke_token(session, issued.token_id)
        await until(lambda: caller.ending.has_come)


async def test_when_redis_is_back_everybody_is_looked_at(issued, every, monkeypatch):
    every(HARDLY_EVER)
    is_back = asyncio.Event()

    async def away():
        await is_back.wait()
        yield None
        raise our_redis.RedisError

    monkeypatch.setattr(our_redis, "access_changes", away)
    directory = Directory()
    async with kept(directory):
        caller, _ = await directory.find(issued.clear)
        async with session_scope() as session:
            row = await session.get_one(ProxyToken, issued.token_id)
            row.revoked_at = row.created_at
            session.add(row)
        is_back.set()
        await until(lambda: caller.ending.has_come)


@pytest.mark.usefixtures("redis")
async def test_a_database_that_comes_back_is_found_again(issued, every, monkeypatch, caplog):
    every(ALL_THE_TIME)
    is_away = [True]
    look = looking.at_tokens

    async def sometimes(*known):
        if is_away[0]:
            raise ConnectionRefusedError
        return await look(*known)

    directory = Directory()
    await directory.find(issued.clear)
    monkeypatch.setattr(looking, "at_tokens", sometimes)
    async with kept(directory):
        await until(lambda: directory.is_cut_off)
        await directory.find(issued.clear)
        is_away[0] = False
        await until(lambda: not directory.is_cut_off)
    assert caplog.text.count("who is known goes on for 15 minutes") == 1


@pytest.mark.usefixtures("redis")
async def test_what_cannot_be_looked_at_is_not_believed(issued, every, monkeypatch, caplog):
    every(ALL_THE_TIME)

    async def broken(*_known):
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(looking, "at_tokens", broken)
    directory = Directory()
    async with kept(directory):
        await directory.find(issued.clear)
        await until(lambda: directory.known(issued.clear.encode()) is None)
        await directory.find(issued.clear)
    assert "a mistake of ours" in caplog.text


@pytest.mark.usefixtures("redis")
async def test_the_last_use_is_written_down_at_the_end(issued, every):
    every(HARDLY_EVER)
    directory = Directory()
    async with kept(directory):
        await directory.find(issued.clear)
    async with session_scope() as session:
        row = await session.get_one(ProxyToken, issued.token_id)
    assert row.created_at is not None
    assert row.last_used_at is not None
    assert row.created_at <= row.last_used_at
