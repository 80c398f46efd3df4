"""The same tokens added up in different ways, all seen at one moment.

The ledger is the truth; the months, the days and the counter in Redis are sums of it. One statement
sees one moment, so the sums agree while proxies write.

What a look costs: the customer's events since a day, found by (customer_id, timestamp), and one
look-up of each one's details by its primary key. No other customer's rows are touched, so it does
not matter whether the ledger holds a million events or a hundred million: the pages that the plan
touches grow with the customer's own events only (tests/metering/test_many_events.py). A thorough
look reads the periods that still change, the usual one the last two days: `Settled` keeps the sums
of what lies before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

ONE_DAY = timedelta(days=1)

_LOOK = sa.text("""
SELECT 'event' AS kind, m.period_start, NULL::timestamptz AS period_end,
       (e."timestamp" AT TIME ZONE 'UTC')::date AS day, e.box_id, e.model, count(*) AS requests,
       sum(e.prompt_tokens) AS prompt, coalesce(sum(m.cached_tokens), 0) AS cached,
       coalesce(sum(m.reasoning_tokens), 0) AS reasoning, sum(e.completion_tokens) AS completion,
       count(*) FILTER (WHERE NOT m.late AND NOT
           (e."timestamp" >= p.period_start AND e."timestamp" < p.period_end)) AS outside
FROM usage_events e
LEFT JOIN LATERAL (
    SELECT * FROM usage_event_meta d WHERE d.event_id = e.id OFFSET 0  -- one by one, by their key
) m ON true
LEFT JOIN usage_monthly p ON p.customer_id = e.customer_id AND p.period_start = m.period_start
WHERE e.customer_id = :customer_id AND e."timestamp" >= :since
GROUP BY m.period_start, day, e.box_id, e.model
UNION ALL
SELECT 'day', NULL, NULL, day, box_id, model, requests, prompt_tokens, cached_tokens,
       reasoning_tokens, completion_tokens, 0
FROM usage_daily WHERE customer_id = :customer_id AND day >= :first_day
UNION ALL
SELECT 'month', period_start, period_end, NULL, NULL, NULL, 0, tokens_used, 0, 0, 0, 0
FROM usage_monthly WHERE customer_id = :customer_id
""")


class DayKey(NamedTuple):
    """One row of the days."""

    day: date
    box_id: UUID
    model: str


class Counts(NamedTuple):
    """What is counted of some requests; all but the first in tokens."""

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    reasoning: int = 0
    completion: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Month(NamedTuple):
    """One row of the months."""

    period_start: datetime
    period_end: datetime
    tokens_used: int

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day of which this period has a part."""
        return self.period_start.date(), self.period_end.date()


@dataclass(frozen=True)
class Settled:
    """What an earlier look added up: tokens of a period, and of the days' rows, before a day."""

    before: date
    tokens: int
    day_tokens: int


@dataclass(frozen=True)
class Sums:
    """One period's tokens, counted in several ways; without Redis there is no counter."""

    ledger: int
    month: int
    days: int
    counter: int | None = None

    @property
    def do_agree(self) -> bool:
        """Say whether they agree. The counter may lag behind, but never run ahead."""
        return self.ledger == self.month == self.days and (self.counter or 0) <= self.month


@dataclass
class Look:
    """A customer's rows at one moment, the ledger's since a day (00:00 UTC)."""

    since: date
    events: dict[tuple[datetime | None, DayKey], Counts] = field(default_factory=dict)
    days: dict[DayKey, Counts] = field(default_factory=dict)
    months: list[Month] = field(default_factory=list)
    without_details: int = 0
    outside: dict[datetime, int] = field(default_factory=dict)

    def ledger_days(self) -> dict[DayKey, Counts]:
        """Add the ledger up as the days do, whatever period an event counts in."""
        found: dict[DayKey, Counts] = {}
        for (_, key), counts in self.events.items():
            found[key] = found.get(key, Counts()).plus(counts)
        return found

    def sums(self, month: Month, settled: Settled | None = None) -> Sums:
        """Return a period's sums. Days are whole: what other periods used on them is taken off.

        Without `settled`, the look must reach back to the period's first day.
        """
        first, last = month.days
        before = settled.before if settled is not None else first
        ledger, others = 0, 0
        for (period_start, key), counts in self.events.items():
            if period_start == month.period_start:
                ledger += counts.tokens if settled is None or key.day >= before else 0
            elif max(before, first) <= key.day <= last:
                others += counts.tokens
        days = self.day_tokens(max(before, first), last + ONE_DAY) - others
        if settled is not None:
            ledger += settled.tokens
            # What changed in the days before shows as a difference to what was there.
            days += settled.tokens + self.day_tokens(first, before) - settled.day_tokens
        return Sums(ledger, month.tokens_used, days)

    def settle(self, month: Month, before: date, settled: Settled | None = None) -> Settled:
        """Return what the next look need not add up again, given what this one did not."""
        recent = sum(
            counts.tokens
            for (period_start, key), counts in self.events.items()
            if period_start == month.period_start
            and key.day < before
            and (settled is None or key.day >= settled.before)
        )
        known = settled.tokens if settled is not None else 0
        return Settled(before, known + recent, self.day_tokens(month.days[0], before))

    def day_tokens(self, first: date, before: date) -> int:
        """Add up the days' rows."""
        return sum(counts.tokens for key, counts in self.days.items() if first <= key.day < before)


async def look(
    session: AsyncSession, customer_id: UUID, *, since: date, first_day: date | None = None
) -> Look:
    """Read a customer's ledger and days since a day, and all months, in one statement.

    `first_day` asks for older rows of the days than of the ledger.
    """
    rows = await (await session.connection()).execute(
        _LOOK,
        {
            "customer_id": customer_id,
            "since": midnight(since),
            "first_day": min(since, first_day or since),
        },
    )
    found = Look(since)
    for row in rows:
        if row.kind == "month":
            found.months.append(Month(_utc(row.period_start), _utc(row.period_end), row.prompt))
            continue
        key = DayKey(row.day, row.box_id, row.model)
        counts = Counts(
            row.requests, int(row.prompt), int(row.cached), int(row.reasoning), int(row.completion)
        )
        if row.kind == "day":
            found.days[key] = counts
        else:
            _note(found, row, key, counts)
    found.months.sort()
    return found


def overlaps(months: Sequence[Month]) -> Iterable[tuple[Month, Month]]:
    """Yield each pair of neighbours of which the first ends after the second starts."""
    return ((one, two) for one, two in pairwise(months) if one.period_end > two.period_start)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _note(found: Look, row: sa.Row, key: DayKey, counts: Counts) -> None:
    period_start = _utc(row.period_start) if row.period_start is not None else None
    found.events[period_start, key] = counts
    if period_start is None:
        found.without_details += counts.requests
    elif row.outside:
        found.outside[period_start] = found.outside.get(period_start, 0) + row.outside


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
