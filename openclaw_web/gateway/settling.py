"""After the answer: events go to the spool at once, and to the ledger in batches."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core.database import session_scope
from openclaw_web.gateway.answers import Answers, Said
from openclaw_web.gateway.credentials import Directory
from openclaw_web.integrations import redis
from openclaw_web.metering import service as metering
from openclaw_web.metering import spool
from openclaw_web.metering.ledger import Event, Settled
from openclaw_web.metering.meter import Meter
from openclaw_web.metering.meters import Meters

logger = logging.getLogger(__name__)

BATCH_SECONDS = 0.5  # a flush costs as much as 700 events; and a second at most is promised
BATCH_EVENTS = 1_000
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 5.0
FLUSH_SECONDS = 30.0
MAX_DRAINS = 200
MOST_PENDING = 5_000  # events in memory too; while the database is behind, more wait on disk alone
SEGMENT_EVENTS = 5_000  # so many are read back at once
MOST_UNSPOOLED = 20_000  # events in memory only, when the disk refuses them
STOP_SECONDS = 20.0  # inside Kubernetes' thirty

COMPLETE = "complete"


Write = Callable[[Sequence[Event]], Awaitable[Settled]]


async def write(events: Sequence[Event]) -> Settled:
    async with asyncio.timeout(FLUSH_SECONDS), session_scope() as session:
        return await metering.settle(session, events)


class Settler:
    """Owns the spool, the flusher and the tasks that outlive their request."""

    def __init__(
        self, directory: Directory, meters: Meters, root: Path, *, write: Write = write
    ) -> None:
        self._write = write
        self._directory = directory
        self._meters = meters
        self._root = root
        self._spool = spool.Spool(root)
        self._pending: list[Event] = []  # on disk too
        self._unspooled: list[Event] = []  # the disk refused them
        self._is_spilling = False
        self._in_segment = 0
        self._written: set[str] = set()  # in the ledger, and in a segment that is still there
        self._answers = Answers()
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._drains: set[asyncio.Task[None]] = set()
        self._flusher = asyncio.create_task(self._run(), name="usage flusher")

    @property
    def in_memory(self) -> int:
        """Return how many events are held in memory, on disk too or not."""
        return len(self._pending) + len(self._unspooled)

    @property
    def is_full(self) -> bool:
        """Say whether no more can be counted: neither the database nor the disk takes events."""
        return len(self._unspooled) >= MOST_UNSPOOLED

    def settle(self, event: Event, meter: Meter | None = None) -> None:
        """Count one request. It is on disk when this returns, in the database a moment later.

        `meter` is the period's, for who has it at hand.
        """
        if not self._is_on_disk(event):
            self._unspooled.append(event)
        elif not self._is_spilling:
            self._pending.append(event)
            if len(self._pending) >= MOST_PENDING:
                self._spill()
        meter = meter or self._meters.meter(event.customer_id, event.period_start)
        self._meters.settled(meter, event.total_tokens)
        self._news.set()

    def _is_on_disk(self, event: Event) -> bool:
        try:
            self._spool.append(event)
        except OSError:
            logger.exception(
                "The spool cannot be written; the event is in memory only.",
                extra={"request_id": event.request_id, "customer_id": event.customer_id},
            )
            return False
        self._in_segment += 1
        if self._in_segment >= SEGMENT_EVENTS:
            self._turn()
        return True

    def _spill(self) -> None:
        """Keep no more events in memory: the next flush reads them from disk."""
        self._is_spilling = True
        self._pending = []

    def _turn(self) -> list[Path]:
        self._in_segment = 0
        return self._spool.turn()

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
            await self._flush()
        except (SQLAlchemyError, OSError, TimeoutError):
            logger.warning("The last events could not be written; they wait in the spool.")
        await self._answers.stop()
        self._spool.close()

    async def flush(self) -> None:
        """Write all events that are settled, and note at their boxes that these answer.

        Raises:
            SQLAlchemyError, OSError, TimeoutError: the database does not answer; nothing is lost.
        """
        await self._flush()
        await self._answers.settle()

    async def _flush(self) -> None:
        async with self._writing:
            segments, was_spilling = self._turn(), self._is_spilling
            pending, self._pending = self._pending, []
            unspooled, self._unspooled = self._unspooled, []
            self._is_spilling = False
            try:
                await self._write_all(unspooled)
                await self._write_all(pending)
                for segment in segments:
                    if was_spilling:
                        await self._write_segment(segment)
                    segment.unlink(missing_ok=True)
                self._written.clear()
            except BaseException:
                self._unspooled = self._not_written(unspooled) + self._unspooled
                self._pending = self._not_written(pending) + self._pending
                if was_spilling or self._is_spilling:
                    self._spill()
                raise

    async def _write_all(self, events: Sequence[Event]) -> None:
        for start in range(0, len(events), BATCH_EVENTS):
            batch = events[start : start + BATCH_EVENTS]
            settled = await self._write(batch)
            self._written.update(event.request_id for event in batch)
            self._note(batch, settled)
            await self._tell(batch)

    async def _write_segment(self, segment: Path) -> None:
        """Write what stood on disk alone."""
        events = await asyncio.to_thread(spool.read, segment)
        await self._write_all(self._not_written(events))
        self._written.difference_update(event.request_id for event in events)

    def _not_written(self, events: Sequence[Event]) -> list[Event]:
        return [event for event in events if event.request_id not in self._written]

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
                await self._flush()
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
                    settled = await self._write(events[start : start + BATCH_EVENTS])
                    self._meters.written([], settled.totals)
                await self._tell(events)
                segment.unlink()
                logger.info("%d events of an earlier process were written.", len(events))

    def _note(self, batch: Sequence[Event], settled: Settled) -> None:
        for total in settled.totals:
            self._directory.note_total(total.customer_id, total.period_start, total.tokens_used)
        self._meters.written(batch, settled.totals)

    async def _tell(self, events: Sequence[Event]) -> None:
        """Tell pages and boxes; it may fail, the count is safe."""
        await redis.announce_change(*{event.customer_id for event in events})
        newest: dict[UUID, Said] = {}
        for event in events:
            if event.outcome == COMPLETE and event.is_agent:
                said = (event.generation or 0, event.timestamp)
                newest[event.box_id] = max(newest.get(event.box_id, said), said)
        self._answers.note(newest)
