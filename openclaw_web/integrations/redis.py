"""Redis.

The live queue, the bells and the change announcements. Everything here may be lost at any time.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import cache
from typing import Any
from uuid import UUID

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from openclaw_web.core.errors import OpenClawError

logger = logging.getLogger(__name__)

BELL_LENGTH = 1_000  # a bell that nobody hears must not grow
CHANGES = "changes"
ACCESS = "access"
SOCKET_TIMEOUT_SECONDS = 5.0
HOLD = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return ARGV[1] end
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return owner"""
LET_GO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return ''"""
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
    await _announce(CHANGES, customer_ids)


async def announce_access(*customer_ids: UUID) -> None:
    """Tell every proxy that tokens, settings or rights of these customers changed."""
    await _announce(ACCESS, customer_ids)


async def _announce(channel: str, customer_ids: tuple[UUID, ...]) -> None:
    try:
        async with asyncio.timeout(BELL_SECONDS):
            if len(customer_ids) == 1:  # nearly always; a pipeline costs as much again
                await _answer(client().publish(channel, str(customer_ids[0])))
                return
            async with client().pipeline(transaction=False) as pipeline:
                for customer_id in customer_ids:
                    pipeline.publish(channel, str(customer_id))
                await pipeline.execute()
    except (RedisError, TimeoutError):
        logger.warning("A change could not be announced; Redis does not answer.")


def changes() -> AsyncIterator[UUID | None]:
    """Yield the id of each customer whose data changed, until Redis goes away (then RedisError).

    `None` comes first, once the subscription is in force: what was announced before it is lost.
    """
    return _heard(CHANGES)


def access_changes() -> AsyncIterator[UUID | None]:
    """Yield the id of each customer whose rights changed; otherwise as `changes`."""
    return _heard(ACCESS)


async def _heard(channel: str) -> AsyncIterator[UUID | None]:
    async for note in notes(channel):
        if note is None:
            yield None
            continue
        with contextlib.suppress(ValueError):
            yield UUID(note)


async def notes(channel: str) -> AsyncIterator[str | None]:
    """Yield what is said on a channel, until Redis goes away (then RedisError).

    `None` comes first, once the subscription is in force.
    """
    async with client().pubsub() as subscription:
        await subscription.subscribe(channel)
        async for message in subscription.listen():
            yield None if message["type"] == "subscribe" else message["data"]


async def run_script(
    script: str, keys: Sequence[str], arguments: Sequence[bytes], *, timeout_seconds: float
) -> str:
    """Run a Lua script, which Redis keeps by its digest, and return its answer, a string.

    Raises:
        RedisError, OSError, TimeoutError: it did not answer in time; it may have run all the same.
    """
    given = [*keys, *arguments]
    async with asyncio.timeout(timeout_seconds):
        try:
            return await _answer(client().evalsha(_digest(script), len(keys), *given))
        except NoScriptError:
            return await _answer(client().eval(script, len(keys), *given))


async def hash_fields(keys: Sequence[str], name: str) -> list[str | None] | None:
    """Return one field of each of these hashes; `None` when Redis does not answer."""
    try:
        async with (
            asyncio.timeout(SOCKET_TIMEOUT_SECONDS),
            client().pipeline(transaction=False) as pipeline,
        ):
            for key in keys:
                pipeline.hget(key, name)
            return await pipeline.execute()
    except (RedisError, TimeoutError, OSError):
        return None


async def keep(name: str, text: str, *, seconds: float) -> bool:
    """Keep a text for a while; `False` when Redis does not answer."""
    return await _briefly(client().set(name, text, px=int(seconds * 1000))) is not None


async def kept(*names: str) -> list[str | None]:
    """Return what is kept under these names; nothing when Redis does not answer."""
    return await _briefly(client().mget(names)) or [None] * len(names)


async def hold(name: str, owner: str, *, seconds: float) -> bool:
    """Say whether this owner holds a short lock from now on; the same owner prolongs it."""
    arguments = [owner.encode(), str(int(seconds * 1000)).encode()]
    with contextlib.suppress(RedisError, TimeoutError, OSError):
        return owner == await run_script(
            HOLD, [name], arguments, timeout_seconds=SOCKET_TIMEOUT_SECONDS
        )
    return False


async def let_go(name: str, owner: str) -> None:
    """Release a short lock, if it is still this owner's."""
    with contextlib.suppress(RedisError, TimeoutError, OSError):
        await run_script(LET_GO, [name], [owner.encode()], timeout_seconds=SOCKET_TIMEOUT_SECONDS)


async def forget(*names: str) -> None:
    await _briefly(client().delete(*names))


async def is_alive() -> bool:
    try:
        async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
            return bool(await _answer(client().ping()))
    except (RedisError, TimeoutError, OSError):
        return False


async def _briefly(reply: Awaitable[Any] | Any) -> Any:
    """Await what may be lost at any time: no answer is `None`."""
    try:
        async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
            return await _answer(reply)
    except (RedisError, TimeoutError, OSError):
        return None


async def _answer(reply: Awaitable[Any] | Any) -> Any:
    """Await a command's answer; the client's annotations also allow for its synchronous twin."""
    return await reply


@cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _bell(name: str) -> str:
    return f"bell:{name}"
