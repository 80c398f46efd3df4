"""The global clock of the simulator: real time plus an offset that only grows.

A customer may live on a test clock of their own; while something happens to them, the time is
frozen at that clock's moment (`clocks`).
"""

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from simulators.stripe.store import Store

OFFSET = "clock_offset_seconds"
HOUR = 3600
DAY = 24 * HOUR


class Clock:
    """Seconds since 1970, which only go forwards, also over a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offset: float = store.setting(OFFSET, 0)
        self._held: int | None = None
        self._frozen: int | None = None

    @property
    def offset_seconds(self) -> float:
        return self._offset

    def now(self) -> int:
        """Return the time of whoever is being dealt with."""
        return self._frozen if self._frozen is not None else self.wall()

    def wall(self) -> int:
        """Return the global time, which Stripe writes on payments even of test clocks.

        https://github.com/stripe/stripe-python/issues/1183; that it does so on events too is what
        we assume: they are listed by it.
        """
        return self._held if self._held is not None else int(time.time() + self._offset)

    def move_to(self, moment: int) -> None:
        """Go forwards to a moment; a moment that is already past changes nothing."""
        # To the millisecond: others on this machine are told the same moment, and may not find
        # themselves a second behind.
        self.be_ahead(math.ceil((moment - time.time()) * 1000) / 1000)

    def be_ahead(self, seconds: float) -> None:
        """Be so far ahead of real time; less than now changes nothing."""
        if seconds > self._offset:
            self._offset = seconds
            self._store.set_setting(OFFSET, seconds)

    @contextmanager
    def held_at(self, moment: int) -> Generator[None]:
        """Let what happens inside happen at exactly this global moment."""
        self._held = moment
        try:
            yield
        finally:
            self._held = None

    @contextmanager
    def frozen_at(self, moment: int | None) -> Generator[None]:
        """Let what happens inside happen at a test clock's moment; None changes nothing."""
        before, self._frozen = self._frozen, moment
        try:
            yield
        finally:
            self._frozen = before


def day(moment: int) -> str:
    """Return a date as an American invoice writes it."""
    return f"{datetime.fromtimestamp(moment, UTC):%b %-d, %Y}"


def later(moment: int, **spans: float) -> int:
    return moment + int(timedelta(**spans).total_seconds())
