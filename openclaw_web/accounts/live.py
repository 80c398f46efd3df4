"""Telling waiting pages that something changed: one Redis subscriber for each web process.

A page loads, then waits with `changes_of`, then loads again. Losing an announcement only costs
time, since every wait ends by itself; after a lost connection everybody is told to look.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from openclaw_web.integrations import redis

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0

_waiting: dict[UUID, set[asyncio.Event]] = {}


@asynccontextmanager
async def listening() -> AsyncGenerator[None]:
    """Listen in the background for as long as the web process runs."""
    task = asyncio.create_task(run(), name="live changes")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def run() -> None:
    """Pass announcements on until cancelled; connects again whenever Redis went away."""
    while True:
        try:
            async for customer_id in redis.changes():
                wake(customer_id)
        except (redis.RedisError, OSError):
            logger.warning("Redis went away; pages refresh by their own clock until it is back.")
        await asyncio.sleep(RECONNECT_SECONDS)
        wake_all()


async def changes_of(customer_id: UUID, *, timeout_seconds: float) -> bool:
    """Wait for a change of this customer; `True` if there was one, `False` if the time ran out."""
    changed = asyncio.Event()
    waiting = _waiting.setdefault(customer_id, set())
    waiting.add(changed)
    try:
        async with asyncio.timeout(timeout_seconds):
            return await changed.wait()
    except TimeoutError:
        return False
    finally:
        waiting.discard(changed)
        if not waiting and _waiting.get(customer_id) is waiting:
            del _waiting[customer_id]


def wake(customer_id: UUID) -> None:
    """Wake everybody who waits for this customer in this process."""
    for changed in _waiting.get(customer_id, ()):
        changed.set()


def wake_all() -> None:
    for customer_id in list(_waiting):
        wake(customer_id)
