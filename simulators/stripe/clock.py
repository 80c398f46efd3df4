"""The one clock of the simulator, real time plus an offset, and Stripe's calendar arithmetic."""

import calendar
import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from simulators.stripe.store import Store

OFFSET = "clock_offset_seconds"
HOUR = 3600
DAY = 24 * HOUR
MONTHS = {"month": 1, "year": 12}


class Clock:
    """Seconds since 1970, which only go forwards, also over a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offset: int = store.setting(OFFSET, 0)
        self._held: int | None = None

    @property
    def offset_seconds(self) -> int:
        return self._offset

    def now(self) -> int:
        return self._held if self._held is not None else int(time.time() + self._offset)

    def move_to(self, moment: int) -> None:
        """Go forwards to a moment; a moment that is already past changes nothing."""
        ahead = math.ceil(moment - time.time())
        if ahead > self._offset:
            self._offset = ahead
            self._store.set_setting(OFFSET, ahead)

    @contextmanager
    def held_at(self, moment: int) -> Generator[None]:
        """Let what happens inside happen at exactly this moment."""
        self._held = moment
        try:
            yield
        finally:
            self._held = None


def period_end(anchor: int, after: int, interval: str, count: int) -> int:
    """Return the first billing date later than `after`.

    Months are counted from the anchor, as Stripe does: 31 January, 28 February, 31 March.
    """
    if interval not in MONTHS:
        length = count * (7 * DAY if interval == "week" else DAY)
        return anchor + ((after - anchor) // length + 1) * length
    months = count * MONTHS[interval]
    start, reached = (datetime.fromtimestamp(moment, UTC) for moment in (anchor, after))
    between = (reached.year - start.year) * 12 + reached.month - start.month
    turns = max(0, between // months - 1)
    while _add_months(start, turns * months).timestamp() <= after:
        turns += 1
    return int(_add_months(start, turns * months).timestamp())


def _add_months(start: datetime, months: int) -> datetime:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last_day = calendar.monthrange(year, month + 1)[1]
    return start.replace(year=year, month=month + 1, day=min(start.day, last_day))


def day(moment: int) -> str:
    """Return a date as an American invoice writes it."""
    return f"{datetime.fromtimestamp(moment, UTC):%b %-d, %Y}"


def later(moment: int, **spans: float) -> int:
    return moment + int(timedelta(**spans).total_seconds())
