"""How often a customer may stop a box within an hour, whatever for.

Telegram locks a bot out, for minutes, that comes back too often.
"""

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import ValidationError
from openclaw_web.jobs import merging
from openclaw_web.jobs import queries as job_queries
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType

# A job's actions that take the pod away for a while; new settings that do so are a restart.
RESTART, BACKUP, RESTORE, PAUSE = "restart", "backup", "restore", "pause"
STOPS = frozenset({RESTART, BACKUP, RESTORE, PAUSE})
AN_HOUR = 5


async def check(session: AsyncSession, box: Box) -> None:
    """Refuse one more stop; what joins a job that waits and stops the box anyway is none.

    Raises:
        ValidationError: its customer has stopped it too often within the hour.
    """
    waiting = await jobs.find_waiting(session, box.id, JobType.UPDATE)
    if waiting is None or STOPS.isdisjoint(waiting.payload.get(merging.ACTIONS, ())):
        cure = "Try again later; pausing it is always possible."
        await _check(session, box, most=AN_HOUR - 1, cure=cure)


async def check_return(session: AsyncSession, box: Box) -> None:
    """Refuse to end a pause that was one too many: pausing is free, coming back is not.

    Raises:
        ValidationError: its customer has stopped it too often within the hour.
    """
    await _check(session, box, most=AN_HOUR, cure="Resume it later.")


async def may_return(session: AsyncSession, box: Box) -> bool:
    return await _count(session, box) <= AN_HOUR


async def _check(session: AsyncSession, box: Box, *, most: int, cure: str) -> None:
    done = await _count(session, box)
    if done > most:
        raise ValidationError(
            f"It was stopped {done} times within the hour; Telegram locks out a bot that comes"
            f" back too often. {cure}"
        )


async def _count(session: AsyncSession, box: Box) -> int:
    since = await business_now(session) - timedelta(hours=1)
    return await job_queries.count_actions(session, box.customer_id, box.id, STOPS, since)
