"""What the worker does for the meter; every turn is safe to run twice."""

import logging
from pathlib import Path
from uuid import UUID

from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations import redis
from openclaw_web.metering import checking, notices, rejects, repairing, replaying

logger = logging.getLogger(__name__)

CHECKS_PER_TURN = 2_000  # at some ten milliseconds each; the longest unchecked come first
REJECTS_PER_TURN = 500
NOTICES_PER_TURN = 500
WORKER = "worker"


async def check_meters() -> int:
    """Check every meter that moved since its last check, or that no one looked at for a day.

    And every one that the proxies count too high, or their customer would be stopped too early.
    Returns how many were checked. A broken check of one customer does not keep the others waiting.
    """
    async with session_scope() as session:
        now = await business_now(session)
        ahead = await checking.any_customers_ahead(session, now, limit=CHECKS_PER_TURN)
        moved = await checking.any_customers_due(session, now, limit=CHECKS_PER_TURN)
    due, too_high = dict.fromkeys([*ahead, *moved]), 0
    for customer_id in due:
        try:
            too_high += await look_at(customer_id)
        except Exception:
            logger.exception("A meter's check broke.", extra={"customer_id": customer_id})
    if too_high:
        await repairing.forget_totals()
    return len(due)


async def check_meter(customer_id: UUID) -> None:
    """Check one customer's meter, and set right what does not agree with the ledger."""
    if await look_at(customer_id):
        await repairing.forget_totals()


async def look_at(customer_id: UUID) -> bool:
    """Check a meter and mend it; `True` when the proxies count it too high."""
    async with session_scope() as session:
        now = await business_now(session)
        is_thorough = await checking.is_thorough_due(session, customer_id, now)
        checked = await checking.check(session, customer_id, now, is_thorough=is_thorough)
        if checked.is_green:
            await repairing.tell(session, customer_id, [])
            return False
    async with session_scope() as session:
        mended = await repairing.mend(session, customer_id, now)
    return any(repair.is_lower_total for repair in mended.repairs)


async def retry_rejects() -> int:
    """Write the refused events whose period has been opened since, and return how many."""
    async with session_scope() as session:
        waiting = await rejects.any_customers_with_period_now(session, limit=REJECTS_PER_TURN)
    written = 0
    for reject_id in waiting:
        try:
            async with session_scope() as session:
                written += bool(
                    await rejects.retry(session, reject_id, actor_type="system", actor_id=WORKER)
                )
        except OpenClawError as error:  # somebody settled it meanwhile
            logger.info("A refused event was left alone: %s", error)
    return written


async def send_limit_notices() -> int:
    """Tell the customers whose period passed 75, 90 or 100 %, and return how many were told."""
    async with session_scope() as session:
        now = await business_now(session)
        reached = await notices.any_customers_to_tell(session, now, limit=NOTICES_PER_TURN)
    told = 0
    for one in reached:
        async with session_scope() as session:
            told += await notices.tell(session, one, now) is not None
    return told


async def replay_spool(root: Path) -> None:
    """Write what dead processes left on this machine, and complain of what cannot be written."""
    replayed = await replaying.replay(root)
    await redis.announce_change(*replayed.customers)
    async with session_scope() as session:
        await replaying.watch(session, root)
        await replaying.tell_stuck(session, root, replayed.stuck)
