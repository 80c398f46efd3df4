"""Redis.

The live queue, the bells and the change announcements. Everything here may be lost at any time.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import UUID

import redis.asyncio
from redis.exceptions import RedisError

from openclaw_web.core.errors import OpenClawError

logger = logging.getLogger(__name__)

BELL_LENGTH = 1_000  # a bell that nobody hears must not grow
CHANGES = "changes"
SOCKET_TIMEOUT_SECONDS = 5.0
BELL_SECONDS = 1.0  # everything that commits rings: a Redis that hangs must not hold it up


class RedisNotOpenError(OpenClawError):
    """Redis was asked for before `open_redis`."""


class _Process:
    client: redis.asyncio.Redis | None = None


def open_redis(url: str) -> redis.asyncio.Redis:
    """Open the process's connection pool; the second call with another address replaces it."""
    _Process.client = redis.asyncio.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        health_check_interval=30,
    )
    return _Process.client


def client() -> redis.asyncio.Redis:
    """Return the process's client.

    Raises:
        RedisNotOpenError: nobody called `open_redis`.
    """
    if _Process.client is None:
        raise RedisNotOpenError("Redis is not open; call open_redis first.")
    return _Process.client


async def close_redis() -> None:
    if _Process.client is not None:
        await _Process.client.aclose()
        _Process.client = None


async def ring(bell: str, note: str = "1") -> None:
    """Wake whoever waits for this bell. Without Redis nobody is woken.

    The waiters look by themselves soon.
    """
    try:
        async with (
            asyncio.timeout(BELL_SECONDS),
            client().pipeline(transaction=False) as pipeline,
        ):
            pipeline.lpush(_bell(bell), note)
            pipeline.ltrim(_bell(bell), 0, BELL_LENGTH - 1)
            await pipeline.execute()
    except (RedisError, TimeoutError):
        logger.warning("The bell %s could not be rung; Redis does not answer.", bell)


async def wait_for_bell(bell: str, *, timeout_seconds: float) -> str | None:
    """Return the note of the next ring, or `None` after the time.

    Without Redis it just takes the time.
    """
    try:
        async with asyncio.timeout(timeout_seconds + SOCKET_TIMEOUT_SECONDS):
            rung = await _answer(client().brpop([_bell(bell)], timeout=timeout_seconds))
    except (RedisError, TimeoutError):
        await asyncio.sleep(timeout_seconds)
        return None
    return rung[1] if rung else None


async def announce_change(*customer_ids: UUID) -> None:
    """Tell every web process that something of these customers changed.

    Pages reload it from the database.
    """
    try:
        async with (
            asyncio.timeout(BELL_SECONDS),
            client().pipeline(transaction=False) as pipeline,
        ):
            for customer_id in customer_ids:
                pipeline.publish(CHANGES, str(customer_id))
            await pipeline.execute()
    except (RedisError, TimeoutError):
        logger.warning("A change could not be announced; Redis does not answer.")


async def changes() -> AsyncIterator[UUID | None]:
    """Yield the id of each customer whose data changed, until Redis goes away (then RedisError).

    `None` comes first, once the subscription is in force: what was announced before it is lost.
    """
    async with client().pubsub() as subscription:
        await subscription.subscribe(CHANGES)
        async for message in subscription.listen():
            if message["type"] == "subscribe":
                yield None
                continue
            with contextlib.suppress(ValueError):
                yield UUID(message["data"])


async def is_alive() -> bool:
    try:
        async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
            return bool(await _answer(client().ping()))
    except (RedisError, TimeoutError, OSError):
        return False


async def _answer(reply: Awaitable[Any] | Any) -> Any:
    """Await a command's answer; the client's annotations also allow for its synchronous twin."""
    return await reply


def _bell(name: str) -> str:
    return f"bell:{name}"
