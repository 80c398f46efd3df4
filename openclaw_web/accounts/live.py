"""Telling waiting pages that something changed: one Redis subscriber for each web process.

A page loads, then waits with `changes_of`, then loads again. Losing an announcement only costs
time, since every wait ends by itself; after each (re)connection everybody is told to look.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
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
                if customer_id is None:
                    wake_all()  # whatever was announced meanwhile was missed
                else:
                    wake(customer_id)
        except (redis.RedisError, OSError):
            logger.warning("Redis went away; pages refresh by their own clock until it is back.")
        await asyncio.sleep(RECONNECT_SECONDS)


async def changes_of(customer_id: UUID, *, timeout_seconds: float) -> bool:
    """Wait for a change of this customer; `True` if there was one, `False` if the time ran out."""
    with watching(customer_id) as changed:
        return await happened(changed, timeout_seconds=timeout_seconds)


@contextmanager
def watching(customer_id: UUID) -> Generator[asyncio.Event]:
    """Return an event that every change of this customer sets.

    Clear it before looking: a change that comes while you look then sets it again.
    """
    changed = asyncio.Event()
    waiting = _waiting.setdefault(customer_id, set())
    waiting.add(changed)
    try:
        yield changed
    finally:
        waiting.discard(changed)
        if not waiting and _waiting.get(customer_id) is waiting:
            del _waiting[customer_id]


async def happened(changed: asyncio.Event, *, timeout_seconds: float) -> bool:
    """Wait until the event is set, or until the time ran out."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await changed.wait()
    except TimeoutError:
        return False


def wake(customer_id: UUID) -> None:
    """Wake everybody who waits for this customer in this process."""
    for changed in _waiting.get(customer_id, ()):
        changed.set()


def wake_all() -> None:
    for customer_id in list(_waiting):
        wake(customer_id)
