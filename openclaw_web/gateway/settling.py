"""After the answer: events go to the spool at once, and to the ledger in batches."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core.database import session_scope
from openclaw_web.gateway.answers import Answers, news_of
from openclaw_web.gateway.credentials import Directory
from openclaw_web.gateway.stopping import LAPTOP, Budget
from openclaw_web.integrations import redis
from openclaw_web.metering import replaying, spool
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event, Settled
from openclaw_web.metering.meter import Meter
from openclaw_web.metering.meters import Meters

logger = logging.getLogger(__name__)

BATCH_SECONDS = 0.5  # a flush costs as much as 700 events; and a second at most is promised
BATCH_EVENTS = 1_000  # of one statement
MANY_PENDING: int = 1_500  # so many do not wait for the time to be up
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 5.0
FLUSH_SECONDS = 30.0
SECURE_SECONDS = 0.5  # twice: an event is safe from a power cut within a second
LONGEST_HEIR_SECONDS = 30.0  # between two looks at what an earlier process left
MAX_DRAINS: Final = 200
MOST_PENDING = 2_500  # events in memory too; while the database is behind, more wait on disk alone
SEGMENT_EVENTS = 1_000  # so many are read back at once: a batch, or memory grows by what is read
MOST_UNSPOOLED = 20_000  # events in memory only, when the disk refuses them
GIVE_UP_SECONDS = 0.25  # for tasks that were cancelled; one that a silent database holds is left

COMPLETE: Final = "complete"
NOT_WRITTEN = "The last events could not be written; they wait in the spool."


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
        self._unread: set[Path] = set()  # segments that the disk did not give, tried again
        self._done: set[Path] = set()  # segments in the ledger that could not be deleted yet
        self._answers = Answers()
        self._news = asyncio.Event()
        self._has_news = False  # as `_news` says, without a call
        self._many = asyncio.Event()
        self._writing = asyncio.Lock()
        self._drains: set[asyncio.Task[None]] = set()
        self._flusher = asyncio.create_task(self._run(), name="usage flusher")
        self._heir = asyncio.create_task(self._inherit(), name="usage of earlier processes")
        self._keeper = asyncio.create_task(self._secure(), name="usage that waits")

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
            if len(self._pending) == MANY_PENDING:
                self._many.set()
            elif len(self._pending) >= MOST_PENDING:
                self._spill()
        meter = meter or self._meters.meter(event.customer_id, event.period_start)
        self._meters.settled(meter, event.prompt_tokens + event.completion_tokens)
        if not self._has_news:
            self._tell_flusher()

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

    def _tell_flusher(self) -> None:
        self._has_news = True
        self._news.set()

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

    async def stop(self, within: Budget = LAPTOP) -> None:
        """Finish what is under way; what the database does not take now is in the spool.

        What still runs after its time is settled by estimate, at once.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within.drains):
                while self._drains:
                    await asyncio.wait(tuple(self._drains))
        await _cancel(*self._drains)
        last = asyncio.create_task(self._write_last())
        await asyncio.wait({last}, timeout=within.flush)
        if not last.done():
            logger.warning(NOT_WRITTEN)
        await _cancel(last, self._flusher, self._heir, self._keeper)
        self._spool.close()

    async def _write_last(self) -> None:
        try:
            await self._flush()
        except (SQLAlchemyError, OSError, TimeoutError):
            logger.warning(NOT_WRITTEN)
        await self._answers.stop()

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
                    is_alone = was_spilling and segment not in self._done
                    if is_alone or segment in self._unread:
                        await self._write_segment(segment)
                    if segment not in self._unread:
                        self._remove(segment)
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
        """Write what stood on disk alone, unless the disk does not give it now."""
        try:
            events = await asyncio.to_thread(spool.read, segment)
        except OSError:
            if segment not in self._unread:
                logger.exception("%s cannot be read now; it is tried again.", segment)
                self._unread.add(segment)
            return
        await self._write_all(self._not_written(events))
        self._unread.discard(segment)
        self._done.add(segment)
        self._written.difference_update(event.request_id for event in events)

    def _remove(self, segment: Path) -> None:
        """Delete a segment that is in the ledger, or remember to."""
        try:
            segment.unlink(missing_ok=True)
        except OSError:
            logger.exception("%s is written, but cannot be deleted.", segment)
            self._done.add(segment)
        else:
            self._done.discard(segment)

    def _not_written(self, events: Sequence[Event]) -> list[Event]:
        return [event for event in events if event.request_id not in self._written]

    async def _run(self) -> None:
        """Write batches for ever; a failure only waits."""
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                await self._news.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BATCH_SECONDS):
                        await self._many.wait()
                self._has_news = False
                self._news.clear()
                self._many.clear()
                await self._flush()
                wait = FIRST_WAIT_SECONDS
            except Exception:
                # Part of the proxy's edge: whatever happens, counting goes on.
                logger.exception("Usage could not be written; trying again in %.2f s.", wait)
                self._tell_flusher()
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _secure(self) -> None:
        """Have the disk itself hold what has waited: without a database, a power cut finds it."""
        before: set[Path] = set()
        safe: set[Path] = set()
        while True:
            await asyncio.sleep(SECURE_SECONDS)
            segments = self._spool.segments()
            if before.intersection(segments):
                try:
                    await asyncio.to_thread(spool.secure, [s for s in segments if s not in safe])
                    safe = set(segments[:-1])  # the last one may have grown
                except OSError:
                    logger.exception("The disk does not take what waits in the spool.")
            before = set(segments)

    async def _inherit(self) -> None:
        """Take over what dead processes left, beside the counting, which never waits for it."""
        wait, was_stuck = FIRST_WAIT_SECONDS, False
        while True:
            try:
                stuck = (await replaying.replay(self._root, self._write_left)).stuck
                if stuck or was_stuck:
                    async with session_scope() as session:
                        await replaying.tell_stuck(session, self._root, stuck)
                was_stuck = bool(stuck)
                if not was_stuck:
                    return
            except Exception:
                # Part of the proxy's edge: whatever happens, it is tried again.
                logger.exception(
                    "What an earlier process left waits; trying again in %.2f s.", wait
                )
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_HEIR_SECONDS)

    async def _write_left(self, events: Sequence[Event]) -> None:
        settled = await self._write(events)
        self._meters.written([], settled.totals)
        await self._tell(events)

    def _note(self, batch: Sequence[Event], settled: Settled) -> None:
        for total in settled.totals:
            self._directory.note_total(total.customer_id, total.period_start, total.tokens_used)
        self._meters.written(batch, settled.totals)

    async def _tell(self, events: Sequence[Event]) -> None:
        """Tell pages and boxes; it may fail, the count is safe."""
        await redis.announce_change(*{event.customer_id for event in events})
        self._answers.note(news_of(events))


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    """Cancel these tasks and let them end, but for those that do not."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=GIVE_UP_SECONDS)
