"""Both clocks, and moving business time forward where the whole world around us is simulated."""

from datetime import timedelta

from openclaw_web.core.clock import OFFSET_KEY, business_now, real_now
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import Settings
from openclaw_web.core.switches import advance_clock, read_switch
from openclaw_web.integrations import loopback
from openclaw_web.local.dev_services import dev_services

BY = "clock"
CONTROL_PATH = "/_control/clock/advance"


class ClockError(OpenClawError):
    """Business time may not be moved here."""


async def tell(chosen: Settings) -> str:
    """Return a sentence with both clocks."""
    open_database(chosen.database_url)
    try:
        async with session_scope() as session:
            business = await business_now(session)
            offset = timedelta(seconds=float(await read_switch(session, OFFSET_KEY, 0)))
    finally:
        await close_database()
    return (
        f"real time      {real_now():%Y-%m-%d %H:%M:%S} UTC\n"
        f"business time  {business:%Y-%m-%d %H:%M:%S} UTC ({offset} ahead)"
    )


async def advance(chosen: Settings, seconds: int) -> str:
    """Move our business time and the Stripe simulator's by the same step, then tell both clocks.

    Raises:
        ClockError: in production, or when Stripe is not the simulator: its clock could not follow.
    """
    found = dev_services(chosen)
    if chosen.is_production or "stripe" not in found.addresses:
        raise ClockError(
            "Business time moves only where Stripe is simulated; here Stripe and time are real."
        )
    open_database(chosen.database_url)
    try:
        async with session_scope() as session:
            await advance_clock(session, seconds, by=BY)
    finally:
        await close_database()
    address = found.addresses["stripe"] + CONTROL_PATH
    await loopback.control(address, found.token, {"seconds": seconds})
    return await tell(chosen)
