"""Telling waiting pages that something changed."""

import asyncio
from uuid import uuid4

import pytest

from openclaw_web.accounts import live
from openclaw_web.integrations import redis as bells

pytestmark = pytest.mark.usefixtures("redis")


async def announce_until(customer_id, *waiting):
    """Announce again and again: the subscriber may not listen yet."""
    while not all(task.done() for task in waiting):
        await bells.announce_change(customer_id)
        await asyncio.wait(waiting, timeout=0.05)


async def test_every_page_of_a_customer_hears_of_a_change():
    customer_id = uuid4()
    async with live.listening():
        pages = [
            asyncio.create_task(live.changes_of(customer_id, timeout_seconds=10)) for _ in range(3)
        ]
        await announce_until(customer_id, *pages)
        assert [await page for page in pages] == [True, True, True]


async def test_another_customers_change_is_not_heard():
    customer_id = uuid4()
    async with live.listening():
        await live.changes_of(customer_id, timeout_seconds=10)  # the subscription is in force
        page = asyncio.create_task(live.changes_of(customer_id, timeout_seconds=10))
        other = asyncio.create_task(live.changes_of(uuid4(), timeout_seconds=0.3))
        await announce_until(customer_id, page)
        assert await other is False


async def test_whoever_waits_looks_once_the_subscription_is_in_force():
    async with live.listening():
        assert await live.changes_of(uuid4(), timeout_seconds=10) is True


async def test_nothing_happens_and_the_wait_ends():
    assert await live.changes_of(uuid4(), timeout_seconds=0.01) is False


async def test_nobody_who_stopped_waiting_is_remembered():
    customer_id = uuid4()
    page = asyncio.create_task(live.changes_of(customer_id, timeout_seconds=10))
    await asyncio.sleep(0)
    page.cancel()
    await asyncio.gather(page, return_exceptions=True)
    await live.changes_of(customer_id, timeout_seconds=0.01)
    assert live._waiting == {}  # noqa: SLF001 - the leak is what this is about


async def test_a_lost_connection_makes_everybody_look_and_listens_again(redis, monkeypatch):
    monkeypatch.setattr(live, "RECONNECT_SECONDS", 0.01)
    customer_id = uuid4()
    async with live.listening():
        first = asyncio.create_task(live.changes_of(customer_id, timeout_seconds=10))
        await announce_until(customer_id, first)
        second = asyncio.create_task(live.changes_of(customer_id, timeout_seconds=10))
        await asyncio.sleep(0)
        await redis.client_kill_filter(_type="pubsub")
        assert await second is True
        third = asyncio.create_task(live.changes_of(customer_id, timeout_seconds=10))
        await announce_until(customer_id, third)
