"""Both clocks, and moving business time forward where the whole world around us is simulated."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from openclaw_web.core.clock import OFFSET_KEY, business_now, real_now
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.leadership import NotLeaderError, only_one
from openclaw_web.core.settings import Settings
from openclaw_web.core.switches import read_switch
from openclaw_web.integrations import redis
from openclaw_web.local.dev_services import DevServices, dev_services
from openclaw_web.local.hops import Hop, hops
from openclaw_web.local.moving import Running

BY = "clock"
CLOCK_LOCK = 7_236_020  # a number of our own, beside the worker's


class ClockError(OpenClawError):
    """Business time may not be moved here."""


async def tell(chosen: Settings) -> str:
    """Return a sentence with both clocks."""
    open_database(chosen.database_url)
    try:
        return await told()
    finally:
        await close_database()


async def told() -> str:
    """Return a sentence with both clocks; the database is open."""
    async with session_scope() as session:
        business = await business_now(session)
        offset = timedelta(seconds=float(await read_switch(session, OFFSET_KEY, 0)))
    return (
        f"real time      {real_now():%Y-%m-%d %H:%M:%S} UTC\n"
        f"business time  {business:%Y-%m-%d %H:%M:%S} UTC ({offset} ahead)"
    )


async def advance(chosen: Settings, span: timedelta | None) -> AsyncIterator[Hop]:
    """Move business time and the Stripe simulator's by a span, or without one to the next event.

    Stops at each due event on the way until everything that follows from it is done; yields each
    stop once it is over. For a shell: the servers are opened here.

    Raises:
        ClockError: in production, or when Stripe is not the simulator: its clock could not follow;
            or somebody else is moving the clock.
    """
    refuse_real_time(chosen)
    async with _servers(chosen):
        async for hop in move(chosen, span, by=BY):
            yield hop


async def move(chosen: Settings, span: timedelta | None, *, by: str) -> AsyncIterator[Hop]:
    """Do what `advance` says, in a process that has database and Redis open.

    Raises:
        ClockError: as `advance`.
    """
    world = Running(refuse_real_time(chosen), by=by)
    try:
        async with only_one(CLOCK_LOCK):
            await world.begin()
            async for hop in hops(world, span):
                yield hop
    except NotLeaderError as error:
        raise ClockError("Somebody else is moving the clock; wait until that is done.") from error


def refuse_real_time(chosen: Settings) -> DevServices:
    """Return the simulators, among them Stripe's.

    Raises:
        ClockError: this is production, or Stripe is not the simulator.
    """
    found = dev_services(chosen)
    if chosen.is_production or "stripe" not in found.addresses:
        raise ClockError(
            "Business time moves only where Stripe is simulated; here Stripe and time are real."
        )
    return found


@asynccontextmanager
async def _servers(chosen: Settings) -> AsyncGenerator[None]:
    open_database(chosen.database_url)
    redis.open_redis(chosen.redis_url)
    try:
        yield
    finally:
        await redis.close_redis()
        await close_database()
