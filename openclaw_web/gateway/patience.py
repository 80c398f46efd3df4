"""How long we wait for a client that does not send, or does not take what it asked for.

A timer for each wait costs more than the waits themselves, so one task looks through all of them.
"""

import asyncio
import contextlib
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

logger = logging.getLogger(__name__)

CLIENT_SECONDS = 60.0
LOOK_SECONDS = 5.0

Task = asyncio.Task[Any]


class Waiter(Protocol):
    def cancel(self) -> object: ...


class Patience:
    """Cancels what waits for its client for too long: tasks, and whoever else can be cancelled."""

    def __init__(
        self, seconds: float = CLIENT_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Waiter, float] = {}
        self._lost: weakref.WeakSet[Task] = weakref.WeakSet()  # one may end without asking
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watch = asyncio.create_task(self._run(), name="patience with clients")

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    def begin(self, waiter: Waiter) -> None:
        """Note that somebody waits for their client from now on, if they do not already."""
        self._waiting.setdefault(waiter, self._clock())

    def end(self, waiter: Waiter) -> None:
        """Note that the wait is over."""
        self._waiting.pop(waiter, None)

    def was_lost(self, task: Task) -> bool:
        """Say, once, whether it was we who cancelled a task; it may then go on."""
        if task not in self._lost:
            return False
        self._lost.discard(task)
        task.uncancel()
        return True

    def look(self) -> None:
        """Cancel what has waited for too long."""
        oldest = self._clock() - self._seconds
        for waiter, since in list(self._waiting.items()):
            if since < oldest:
                del self._waiting[waiter]
                if isinstance(waiter, asyncio.Task):
                    self._lost.add(waiter)
                try:
                    waiter.cancel()
                except Exception:
                    logger.exception("Somebody who waits could not be told that it is over.")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()
