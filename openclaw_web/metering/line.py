"""The one line over which a process tells Redis of its meters and hears of the others'.

One call is under way at a time, so what is said arrives in order, and requests near the limit share
a call. A Redis that does not answer is given up after a quarter of a second and tried again in the
background; until then nobody waits for it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable

from openclaw_web.integrations import redis
from openclaw_web.metering.meter import Meter, Reservation, Verdict, Wish
from openclaw_web.metering.sharing import SCRIPT, Sharing

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
REST_SECONDS = 1.0  # nothing is under way: only to hear of an epoch that was not announced
REDIS_SECONDS = 0.25
PROBE_SECONDS = 0.1
METERS_IN_A_MESSAGE = 200  # a few milliseconds of Redis' time


class Line:
    def __init__(self, sharing: Sharing) -> None:
        self.is_reachable = False
        self._sharing = sharing
        self._active: set[Meter] = set()  # all that hold something, and what has just changed
        self._urgent: set[Meter] = set()
        self._news = asyncio.Event()
        self._is_resting = False
        self._tell_all_at = 0.0
        self._listens = asyncio.Event()
        self._has_begun = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def epoch(self) -> str:
        return self._sharing.epoch

    @property
    def active(self) -> Iterable[Meter]:
        return self._active

    async def start(self) -> None:
        """Join the others. Without Redis it goes on trying in the background."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="meters: listening"),
            asyncio.create_task(self._tell(), name="meters: telling"),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REDIS_SECONDS):
                await self._has_begun.wait()

    async def stop(self) -> None:
        """Tell a last time what is held here: nothing, if all requests have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.is_reachable:
            self._tell_all_at = 0.0
            with contextlib.suppress(redis.RedisError, OSError, TimeoutError):
                await self._round()

    def touch(self, meter: Meter) -> None:
        """Tell of this meter with the next tick."""
        meter.is_told = False
        self._active.add(meter)
        if self._is_resting:
            self._news.set()

    def hurry(self, meter: Meter) -> None:
        """Tell of this meter at once."""
        meter.is_told = False
        self._active.add(meter)
        self._urgent.add(meter)
        self._news.set()

    def forget(self, meter: Meter) -> None:
        self._active.discard(meter)
        self._urgent.discard(meter)

    async def ask(self, meter: Meter, tokens: int, limit: int) -> Reservation | Verdict:
        """Ask for a lease; whoever leaves while waiting holds none."""
        if not self.is_reachable:
            return Verdict.AWAY
        answer: asyncio.Future[Reservation | Verdict] = asyncio.get_running_loop().create_future()
        meter.wishes.append(Wish(self._sharing.next_lease(), tokens, limit, answer))
        self.hurry(meter)
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                return await answer
        except TimeoutError:
            self._give_up(meter, answer)
            return Verdict.AWAY
        except asyncio.CancelledError:
            self._give_up(meter, answer)
            raise

    def _give_up(self, meter: Meter, answer: "asyncio.Future[Reservation | Verdict]") -> None:
        """Give back what was granted in the very moment in which nobody waited any more."""
        if not answer.cancelled() and isinstance(reservation := answer.result(), Reservation):
            meter.end(reservation, 0, time.monotonic())
            self.hurry(meter)

    async def _tell(self) -> None:
        await self._listens.wait()  # who does not listen is not counted as alive
        while True:
            try:
                await self._round()
                self._has_begun.set()
            except (redis.RedisError, OSError, TimeoutError) as error:
                self._lose_redis(error)
            except Exception as error:
                # Part of the proxy's edge: whatever happens, requests are answered.
                logger.exception("What Redis says of the meters cannot be read.")
                self._lose_redis(error)
            await self._wait()

    async def _wait(self) -> None:
        """Wait until there is something to tell."""
        if not self.is_reachable:
            await asyncio.sleep(PROBE_SECONDS)
        elif not self._urgent:
            self._is_resting = not self._active
            seconds = REST_SECONDS if self._is_resting else self._tell_all_at - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._news.wait()
            if self._is_resting:
                self._is_resting = False
                self._tell_all_at = 0.0
        self._news.clear()

    async def _round(self) -> None:
        """Tell of everything that holds something; between two ticks, of what is urgent."""
        now = time.monotonic()
        urgent, self._urgent = self._urgent, set()
        if tells_all := now >= self._tell_all_at:
            self._tell_all_at = now + TICK_SECONDS
        batches = _batched(self._active if tells_all else urgent)
        for number, meters in enumerate(batches, start=1):
            is_last = number == len(batches)
            if not await self._say(meters, registers=tells_all and is_last):
                self._tell_all_at = 0.0
                return

    async def _say(self, meters: list[Meter], *, registers: bool) -> bool:
        """Send one message and take the reply over; `False` when a new epoch has begun."""
        message = self._sharing.compose(meters, time.monotonic(), registers=registers)
        try:
            reply = await redis.run_script(
                SCRIPT, message.keys, [message.body], timeout_seconds=REDIS_SECONDS
            )
            is_current = self._sharing.digest(message, reply, time.monotonic())
        except BaseException:
            self._sharing.lose(message)
            raise
        if not self.is_reachable:
            logger.info("The meters are shared with other processes.")
        self.is_reachable = True
        if is_current:
            self._active.difference_update(
                [meter for meter in meters if meter.is_told and not meter.has_something]
            )
        return is_current

    def _lose_redis(self, error: Exception) -> None:
        if self.is_reachable:
            logger.warning("Without Redis, limits are kept by this process alone: %r", error)
        self.is_reachable = False
        self._tell_all_at = 0.0
        for meter in self._active:
            meter.dismiss()

    async def _listen(self) -> None:
        """Hear when a new epoch begins. Redis counts as alive who listens."""
        while True:
            try:
                async for _ in redis.notes(self._sharing.channel):
                    self._listens.set()
                    self._tell_all_at = 0.0
                    self._news.set()
            except (redis.RedisError, OSError):
                logger.debug("Redis cannot be listened to; trying again.")
            await asyncio.sleep(PROBE_SECONDS)


def _batched(meters: Iterable[Meter]) -> list[list[Meter]]:
    """Return the meters in messages' worth: at least one message, to say that we are there."""
    listed = list(meters)
    starts = range(0, max(1, len(listed)), METERS_IN_A_MESSAGE)
    return [listed[start : start + METERS_IN_A_MESSAGE] for start in starts]
