"""When the limit will be reached, if the rest of the period goes like its beginning."""

from datetime import datetime, timedelta

SHORTEST_LOOK = timedelta(hours=6)  # less says nothing about a month


def limit_reached_at(
    *, used: int, limit: int, period_start: datetime, period_end: datetime, now: datetime
) -> datetime | None:
    """Return the moment when the straight line through today's usage meets the limit.

    `None` when that is not before the period ends, or when it is too early to tell; `now` when the
    limit is reached already. All times are business time.
    """
    if used >= limit:
        return now
    elapsed = now - period_start
    if used <= 0 or elapsed < SHORTEST_LOOK:
        return None
    # Compared as seconds: after a few tokens only, the date would lie beyond the calendar.
    seconds = elapsed.total_seconds() * ((limit - used) / used)
    if seconds >= (period_end - now).total_seconds():
        return None
    return now + timedelta(seconds=seconds)
