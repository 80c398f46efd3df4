"""Admission against the monthly limit, in two zones, for several processes that share a Redis.

Far from the limit a process decides by itself, at once; the others hear of it twenty times a
second. Near it, each request takes a lease in Redis and gives it back with what it used. The ledger
stays the truth, and Redis may be emptied or away at any time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core.database import session_scope
from openclaw_web.integrations import redis
from openclaw_web.metering import limits, queries
from openclaw_web.metering.ledger import Event, PeriodTotal
from openclaw_web.metering.line import REDIS_SECONDS, Line
from openclaw_web.metering.meter import FRESH_SECONDS, Meter, Reservation, Verdict
from openclaw_web.metering.sharing import SCRIPT, Sharing

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.3  # then the client is told to come again
FIRST_PAUSE_SECONDS = 0.01
LEDGER_SECONDS = 0.25  # then the newest total that we know has to do
BEHIND_SECONDS: Final = 5.0  # writing takes a quarter of a second when the database is well
FORGET_SECONDS = 120.0  # by then rates have faded to a seventh

ReadTotal = Callable[[UUID, datetime], Awaitable[int]]


async def total_in_ledger(customer_id: UUID, period_start: datetime) -> int:
    async with asyncio.timeout(LEDGER_SECONDS), session_scope() as session:
        return await queries.tokens_used(session, customer_id, period_start)


async def forget_totals() -> None:
    """Let all processes learn the ledger's totals anew, also smaller ones, after one was corrected.

    Wait until every process has looked at the database since the correction: a second.

    Raises:
        RedisError, OSError, TimeoutError: Redis does not answer.
    """
    message = Sharing().compose_forgetting()
    await redis.run_script(SCRIPT, message.keys, [message.body], timeout_seconds=REDIS_SECONDS)


class Meters:
    """The meters of this process. Everything but `start_near` and `used` is done at once."""

    def __init__(
        self,
        sharing: Sharing | None = None,
        read_total: ReadTotal = total_in_ledger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        sharing = sharing or Sharing()
        sharing.on_forgetting = self._forget_totals
        self._line = Line(sharing)
        self._read_total = read_total
        self._meters: dict[tuple[UUID, datetime], Meter] = {}
        self._unwritten_since: float | None = None
        self._forget_at = 0.0
        self._readings: dict[Meter, asyncio.Task[None]] = {}

    @property
    def is_shared(self) -> bool:
        """Say whether Redis answers."""
        return self._line.is_reachable

    async def start(self) -> None:
        await self._line.start()

    async def stop(self) -> None:
        """Leave the others; when all requests have ended, nothing of this process stays behind."""
        for reading in self._readings.values():
            reading.cancel()
        await asyncio.gather(*self._readings.values(), return_exceptions=True)
        await self._line.stop()

    def meter(self, customer_id: UUID, period_start: datetime) -> Meter:
        key = (customer_id, period_start)
        meter = self._meters.get(key)
        if meter is None:
            self._forget_idle()
            meter = self._meters[key] = Meter(customer_id, period_start)
        return meter

    def start_far(
        self, meter: Meter, tokens: int, *, far_below: int, now: float, is_cut_off: bool
    ) -> Reservation | None:
        """Start a request far from the limit, at once; `None` when the others must be asked.

        `is_cut_off` says that the database does not answer. Then its totals do not bring what other
        processes have used, and only what was heard from them counts.
        """
        if meter.held(now) >= far_below:
            return None
        if (is_cut_off or self._is_behind(now)) and not self._knows_others(meter, now):
            return None
        meter.requests += 1
        return self._start(meter, tokens, now)

    def take_place(self, meter: Meter) -> None:
        """Count one more among the parallel requests, at once: whoever comes next shall see it."""
        meter.requests += 1

    async def start_near(self, meter: Meter, tokens: int, *, limit: int) -> Reservation | Verdict:
        """Start a request near the limit by taking a lease, or say why not.

        It has its place already, by `take_place`, and loses it when there is no lease. `REACHED` is
        final. After `FULL` and `HELD`, which were tried for a while, the same request may succeed
        soon. `UNREADY`, `UNSURE` and `AWAY` are our trouble.
        """
        answer: Reservation | Verdict = Verdict.AWAY
        try:
            answer = await self._near(meter, tokens, limit)
        finally:
            if not isinstance(answer, Reservation):
                self._leave(meter)
        return answer

    def leave(self, reservation: Reservation) -> None:
        """Give the place back, once: the client has gone. The tokens are still to come."""
        if not reservation.has_left:
            reservation.has_left = True
            self._leave(reservation.meter)

    def end(self, reservation: Reservation, actual: int) -> None:
        """Give back what a request held, once; what it used is `settled` already."""
        if reservation.is_over:
            return
        reservation.is_over = True
        meter = reservation.meter
        meter.end(reservation, actual, self.clock())
        self.leave(reservation)
        if reservation.lease:
            self._line.hurry(meter)

    def settled(self, meter: Meter, tokens: int) -> None:
        """Count tokens that are on disk here, and not in the ledger yet."""
        meter.unwritten += tokens
        if self._unwritten_since is None:
            self._unwritten_since = self.clock()
        self._line.touch(meter)

    def written(self, events: Iterable[Event], totals: Iterable[PeriodTotal]) -> None:
        """Take a flush over: the ledger's totals rise, and our part falls, at the same moment."""
        for total in totals:
            meter = self.meter(total.customer_id, total.period_start)
            meter.learn(total.tokens_used)
            self._line.hurry(meter)
        for event in events:
            meter = self.meter(event.customer_id, event.period_start)
            meter.unwritten = max(0, meter.unwritten - event.total_tokens)
            self._line.touch(meter)
        has_more = any(meter.unwritten for meter in self._line.active)
        self._unwritten_since = self.clock() if has_more else None

    async def used(self, customer_id: UUID, period_start: datetime, *, known: int) -> int:
        """Return what all processes have used in a period, as well as it can be known now."""
        meter = self.meter(customer_id, period_start)
        meter.learn(known)
        await self._line.ask(meter, tokens=0, limit=0)  # a wish that nobody grants
        return meter.used(self.clock())

    async def _near(self, meter: Meter, tokens: int, limit: int) -> Reservation | Verdict:
        deadline = self.clock() + PATIENCE_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while True:
            answer = await self._line.ask(meter, tokens, limit)
            now = self.clock()
            if answer is Verdict.AWAY:
                return self._start_alone(meter, tokens, limit, now) or answer
            is_final = answer is Verdict.FULL and meter.has_been_full(now)
            if isinstance(answer, Reservation) or answer is Verdict.REACHED:
                return answer
            if now + pause > deadline:
                return Verdict.REACHED if is_final else answer
            if answer is Verdict.UNSURE:
                await self._read_ledger(meter, seconds=deadline - now)
            else:
                await asyncio.sleep(pause)
                pause *= 2

    def _leave(self, meter: Meter) -> None:
        meter.requests -= 1
        self._line.touch(meter)

    def _start(self, meter: Meter, tokens: int, now: float) -> Reservation:
        reservation = Reservation(meter, tokens, now)
        meter.start(reservation)
        self._line.touch(meter)
        return reservation

    def _start_alone(self, meter: Meter, tokens: int, limit: int, now: float) -> Reservation | None:
        """Go on without Redis, within two percent of the limit."""
        known = meter.used(now) - meter.unwritten
        if limits.may_go_on_alone(known=known, own=meter.own, tokens=tokens, limit=limit):
            meter.has_room()
            return self._start(meter, tokens, now)
        return None

    def _is_behind(self, now: float) -> bool:
        """Say whether the database has not taken what we settled for a while."""
        return self._unwritten_since is not None and now - self._unwritten_since > BEHIND_SECONDS

    def _knows_others(self, meter: Meter, now: float) -> bool:
        return self._line.is_reachable and now - meter.heard < FRESH_SECONDS

    async def _read_ledger(self, meter: Meter, *, seconds: float) -> None:
        """Look the period up, once for all that wait for it."""
        reading = self._readings.get(meter)
        if reading is None:
            reading = asyncio.create_task(self._read(meter, self._line.epoch))
            self._readings[meter] = reading
            reading.add_done_callback(lambda _: self._readings.pop(meter, None))
        await asyncio.wait([reading], timeout=max(0.0, seconds))

    async def _read(self, meter: Meter, epoch: str) -> None:
        try:
            meter.learn(await self._read_total(meter.customer_id, meter.period_start))
        except (SQLAlchemyError, OSError, TimeoutError):
            logger.warning("The ledger cannot be read; the newest total we know has to do.")
        meter.sure_in = epoch

    def _forget_totals(self) -> None:
        for meter in self._meters.values():
            meter.base = 0

    def _forget_idle(self) -> None:
        """Forget customers who have not asked for a while; once a minute at most."""
        now = self.clock()
        if now < self._forget_at:
            return
        self._forget_at = now + FORGET_SECONDS / 2
        oldest = now - FORGET_SECONDS
        idle = [m for m in self._meters.values() if m.touched < oldest and not m.has_something]
        for meter in idle:
            self._line.forget(meter)
            del self._meters[meter.customer_id, meter.period_start]
