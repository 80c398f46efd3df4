"""After the answer: events go to the spool at once, and to the ledger in batches."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.boxes import service as boxes
from openclaw_web.core.database import session_scope
from openclaw_web.gateway.credentials import Directory
from openclaw_web.integrations import redis
from openclaw_web.metering import service as metering
from openclaw_web.metering import spool
from openclaw_web.metering.ledger import Event, Settled

logger = logging.getLogger(__name__)

BATCH_SECONDS = 0.2
BATCH_EVENTS = 1_000
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 5.0
FLUSH_SECONDS = 30.0
MAX_DRAINS = 200
STOP_SECONDS = 20.0  # inside Kubernetes' thirty

COMPLETE = "complete"


class Settler:
    """Owns the spool, the flusher and the tasks that outlive their request."""

    def __init__(self, directory: Directory, root: Path) -> None:
        self._directory = directory
        self._root = root
        self._spool = spool.Spool(root)
        self._pending: list[Event] = []
        self._unwritten: Counter[tuple[UUID, datetime]] = Counter()
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._drains: set[asyncio.Task[None]] = set()
        self._flusher = asyncio.create_task(self._run(), name="usage flusher")

    def settle(self, event: Event) -> None:
        """Count one request. It is on disk when this returns, in the database a moment later."""
        try:
            self._spool.append(event)
        except OSError:
            logger.exception(
                "The spool cannot be written; the event is in memory only.",
                extra={"request_id": event.request_id, "customer_id": event.customer_id},
            )
        self._pending.append(event)
        self._unwritten[event.customer_id, event.period_start] += event.total_tokens
        self._news.set()

    def unwritten(self, customer_id: UUID, period_start: datetime | None) -> int:
        """Return the tokens that are settled and not in the database yet."""
        if period_start is None:
            return 0
        return self._unwritten.get((customer_id, period_start), 0)

    def drain(self, reading: Coroutine[Any, Any, None]) -> bool:
        """Read an abandoned answer to its end beside everything else; `False` when too many do."""
        if len(self._drains) >= MAX_DRAINS:
            reading.close()
            return False
        task = asyncio.create_task(reading)
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)
        return True

    async def stop(self) -> None:
        """Finish what is under way; what the database does not take now is in the spool."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._drains:
                    await asyncio.wait(tuple(self._drains))
        for drain in tuple(self._drains):
            drain.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        self._flusher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._flusher
        try:
            await self.flush()
        except (SQLAlchemyError, OSError, TimeoutError):
            logger.warning("The last events could not be written; they wait in the spool.")
        self._spool.close()

    async def flush(self) -> None:
        """Write all events that are settled.

        Raises:
            SQLAlchemyError, OSError, TimeoutError: the database does not answer; nothing is lost.
        """
        async with self._writing:
            segments = self._spool.turn()
            count = len(self._pending)
            while count:
                batch = self._pending[: min(count, BATCH_EVENTS)]
                settled = await _write(batch)
                del self._pending[: len(batch)]
                count -= len(batch)
                self._note(batch, settled)
                await _tell(batch)
            for segment in segments:
                segment.unlink(missing_ok=True)

    async def _run(self) -> None:
        """Take over what dead processes left, then write batches for ever; a failure only waits."""
        wait, has_replayed = FIRST_WAIT_SECONDS, False
        while True:
            try:
                if not has_replayed:
                    await self._replay()
                    has_replayed = True
                await self._news.wait()
                await asyncio.sleep(BATCH_SECONDS)
                self._news.clear()
                await self.flush()
                wait = FIRST_WAIT_SECONDS
            except Exception:
                # Part of the proxy's edge: whatever happens, counting goes on.
                logger.exception("Usage could not be written; trying again in %.2f s.", wait)
                self._news.set()
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _replay(self) -> None:
        with spool.leftovers(self._root) as segments:
            for segment in segments:
                events = await asyncio.to_thread(spool.read, segment)
                for start in range(0, len(events), BATCH_EVENTS):
                    await _write(events[start : start + BATCH_EVENTS])
                await _tell(events)
                segment.unlink()
                logger.info("%d events of an earlier process were written.", len(events))

    def _note(self, batch: Sequence[Event], settled: Settled) -> None:
        for total in settled.totals:
            self._directory.note_total(total.customer_id, total.period_start, total.tokens_used)
        for event in batch:
            key = (event.customer_id, event.period_start)
            self._unwritten[key] -= event.total_tokens
            if self._unwritten[key] <= 0:
                del self._unwritten[key]


async def _write(events: Sequence[Event]) -> Settled:
    async with asyncio.timeout(FLUSH_SECONDS), session_scope() as session:
        return await metering.settle(session, events)


async def _tell(events: Sequence[Event]) -> None:
    """Tell pages and boxes; it may fail, the count is safe."""
    await redis.announce_change(*{event.customer_id for event in events})
    answered = sorted(
        ((event.box_id, event.generation) for event in events if event.outcome == COMPLETE),
        key=lambda answer: (answer[0], answer[1] or 0),
    )
    newest = dict(answered)
    try:
        async with session_scope() as session:
            for box_id, generation in newest.items():
                await boxes.record_model_call(session, box_id, generation=generation)
    except (SQLAlchemyError, OSError):
        logger.exception("Model calls could not be noted at their boxes.")
