"""What the worker does for the meter; every turn is safe to run twice."""

import asyncio
import logging
from pathlib import Path
from uuid import UUID

from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations import redis
from openclaw_web.metering import checking, meters, notices, rejects, repairing, replaying

logger = logging.getLogger(__name__)

CHECKS_PER_TURN = 2_000  # at some ten milliseconds each; the longest unchecked come first
REJECTS_PER_TURN = 500
NOTICES_PER_TURN = 500
WORKER = "worker"
LOOKED_AGAIN_SECONDS = 1.5  # by then every proxy has read the corrected total


async def check_meters() -> int:
    """Check every meter that moved since its last check, or that no one looked at for a day.

    Returns how many were checked. A broken check of one customer does not keep the others waiting.
    """
    async with session_scope() as session:
        now = await business_now(session)
        due = await checking.any_customers_due(session, now, limit=CHECKS_PER_TURN)
    for customer_id in due:
        try:
            await check_meter(customer_id)
        except Exception:
            logger.exception("A meter's check broke.", extra={"customer_id": customer_id})
    return len(due)


async def check_meter(customer_id: UUID) -> None:
    """Check one customer's meter, and set right what does not agree with the ledger."""
    async with session_scope() as session:
        now = await business_now(session)
        is_thorough = await checking.is_thorough_due(session, customer_id, now)
        checked = await checking.check(session, customer_id, now, is_thorough=is_thorough)
        if checked.is_green:
            await repairing.tell(session, customer_id, [])
            return
    async with session_scope() as session:
        mended = await repairing.mend(session, customer_id, now)
    if any(repair.is_lower_total for repair in mended.repairs):
        await _forget_totals(customer_id)


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


async def _forget_totals(customer_id: UUID) -> None:
    """Have all proxies learn the totals anew: what they hold only grows, and would go on counting.

    If Redis is away, an emptied one does the same when it comes back; else a person has to know.
    """
    await asyncio.sleep(LOOKED_AGAIN_SECONDS)
    try:
        await meters.forget_totals()
    except (redis.RedisError, OSError, TimeoutError):
        logger.exception(
            "The proxies could not be told of a lower total; its customer may be stopped too early "
            "until they are started anew.",
            extra={"customer_id": customer_id},
        )


async def replay_spool(root: Path) -> None:
    """Write what dead processes left on this machine, and complain of what cannot be written."""
    replayed = await replaying.replay(root)
    await redis.announce_change(*replayed.customers)
    async with session_scope() as session:
        await replaying.watch(session, root)
        await replaying.tell_stuck(session, root, replayed.stuck)
