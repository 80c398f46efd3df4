"""Stripe's events on their way into the database: those that come together are committed together.

A commit costs more than everything else about an event, and Stripe sends many at once: at the turn
of a day, or after an outage of ours.
"""

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy.exc import DataError, IntegrityError

from openclaw_web.core.database import session_scope
from openclaw_web.jobs import inbox
from openclaw_web.jobs.inbox import Received

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 100

Waiting = tuple[Received, "asyncio.Future[bool]"]


class Inbox:
    """What this process has received and not committed yet; whoever brings an event waits here."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, event: Received) -> bool:
        """Return once an event is committed; `False` means that we had it already.

        Raises:
            sqlalchemy.exc.DBAPIError: it is not stored; Stripe sends it again.
        """
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, kept))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="webhook inbox")
        return await kept

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            try:
                await _commit(batch)
            except (DataError, IntegrityError):
                for one in batch:
                    await _commit_alone(one)
            except Exception as error:  # noqa: BLE001 - each that waits is told, and answers with it
                _fail(batch, error)


async def _commit(batch: Sequence[Waiting]) -> None:
    async with session_scope() as session:
        new = await inbox.keep(session, [event for event, _ in batch])
    for event, kept in batch:
        if not kept.done():
            kept.set_result(event.event_id in new)
        new.discard(event.event_id)  # the same event twice in a batch is new once


async def _commit_alone(one: Waiting) -> None:
    """One of a batch was refused: only that one shall fail."""
    try:
        await _commit([one])
    except Exception as error:
        logger.exception("The event %s could not be stored.", one[0].event_id)
        _fail([one], error)


def _fail(batch: Sequence[Waiting], error: Exception) -> None:
    for _, kept in batch:
        if not kept.done():
            kept.set_exception(error)
