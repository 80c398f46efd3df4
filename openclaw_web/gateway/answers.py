"""Which boxes have had an answer of their model: noted beside the counting, which never waits."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.boxes import proving
from openclaw_web.boxes import queries as boxes
from openclaw_web.core.database import session_scope

logger = logging.getLogger(__name__)

MOST_NOTED = 20_000
NOTED_SECONDS = 5.0  # a box that answers all the time is noted this often
NOTE_SECONDS = 10.0
WAIT_FOR_LOCKS = sa.text("SET LOCAL lock_timeout = '2s'")
TRIES = 5  # a box that somebody works at is tried again; its next call is as good
TRY_SECONDS = 0.5
STOP_SECONDS = 2.0
# The generation that a call named, 0 for none, and when it was asked.
Said = tuple[int, datetime]


class Answers:
    """One task at a time notes the newest call of each box; nobody waits for it."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, Said] = {}
        self._noted: dict[UUID, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, newest: Mapping[UUID, Said]) -> None:
        """Note calls soon, each at once when its generation is new."""
        now = time.monotonic()
        for box_id, said in newest.items():
            generation, at = self._noted.get(box_id, (-1, 0.0))
            if generation != said[0] or now - at > NOTED_SECONDS:
                self._waiting[box_id] = max(self._waiting.get(box_id, said), said)
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="answers")

    async def settle(self) -> None:
        """Wait until what is known now is noted."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def stop(self) -> None:
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        tries = 0
        while self._waiting and tries < TRIES:
            due, self._waiting = self._waiting, {}
            try:
                async with asyncio.timeout(NOTE_SECONDS):
                    noted = await _write(due)
            except (SQLAlchemyError, OSError):  # a TimeoutError is one
                logger.exception("Model calls could not be noted at their boxes.")
                return
            self._remember(noted)
            left = {box_id: said for box_id, said in due.items() if box_id not in noted}
            self._waiting = left | self._waiting
            tries = tries + 1 if left else 0
            if left:
                await asyncio.sleep(TRY_SECONDS)
        self._waiting.clear()

    def _remember(self, noted: Mapping[UUID, Said]) -> None:
        if len(self._noted) > MOST_NOTED:
            self._noted.clear()
        now = time.monotonic()
        self._noted |= {box_id: (said[0], now) for box_id, said in noted.items()}


async def _write(due: Mapping[UUID, Said]) -> dict[UUID, Said]:
    """Note these calls but for boxes that somebody works at; return those that were noted."""
    async with session_scope() as session:
        await (await session.connection()).execute(WAIT_FOR_LOCKS)
        free = await boxes.lock_free(session, due)
        noted = {box_id: due[box_id] for box_id in sorted(free)}
        for box_id, (generation, asked_at) in noted.items():
            await proving.record_model_call(
                session, box_id, generation=generation or None, asked_at=asked_at
            )
    return noted
