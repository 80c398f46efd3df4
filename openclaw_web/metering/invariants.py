"""What must be true of the meter at any moment, and how to say that it is not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from openclaw_web.metering import spool
from openclaw_web.metering.sums import Counts, Look, Month, Settled, Sums, overlaps

SPOOL_SECONDS = 60.0


class Invariant(StrEnum):
    """Each has a `--sabotage` that breaks it; a check that cannot fail is a defect."""

    MONTH = "month"  # a period's counter is the sum of its events
    DAY = "day"  # each day's row is the sum of its events, by box and model
    COUNTER = "counter"  # the proxies' counter in Redis never runs ahead of the period's
    OVERLAP = "overlap"  # a customer's periods do not overlap
    WITHIN = "within"  # an event's time lies in its period, unless it is marked late
    DETAILS = "details"  # each event has its details, and so its period
    PERIOD = "period"  # each event's period exists
    SIGN = "sign"  # nothing is negative
    SPOOL = "spool"  # what was answered reaches the ledger within a minute


MENDABLE = frozenset({Invariant.MONTH, Invariant.DAY, Invariant.COUNTER})


@dataclass(frozen=True)
class Finding:
    """One invariant that does not hold."""

    invariant: Invariant
    customer_id: UUID | None
    subject: str
    sentence: str

    @property
    def is_mendable(self) -> bool:
        """Say whether a sum can be brought back to the ledger, which itself is not touched."""
        return self.invariant in MENDABLE

    def as_dict(self) -> dict[str, str | None]:
        return {
            "invariant": self.invariant,
            "customer_id": str(self.customer_id) if self.customer_id else None,
            "subject": self.subject,
            "sentence": self.sentence,
        }


def judge(
    customer_id: UUID,
    seen: Look,
    watched: Sequence[Month],
    *,
    settled: Mapping[datetime, Settled],
    counters: Mapping[datetime, int],
) -> list[Finding]:
    """Return what does not hold of a customer; `watched` are the periods that the look covers."""

    def finding(invariant: Invariant, subject: str, sentence: str) -> Finding:
        return Finding(invariant, customer_id, subject, sentence)

    return [
        finding(*found)
        for part in (
            _months(seen, watched, settled, counters),
            _days(seen),
            _periods(seen),
            _events(seen),
        )
        for found in part
    ]


def judge_spool(root: Path) -> list[Finding]:
    """Return whether events have waited too long in the spool of this machine."""
    waited = spool.oldest_seconds(root)
    if waited <= SPOOL_SECONDS:
        return []
    sentence = f"Events have waited {waited:.0f} s in the spool and are not in the ledger."
    return [Finding(Invariant.SPOOL, None, str(root), sentence)]


_Found = Iterator[tuple[Invariant, str, str]]


def _months(
    seen: Look,
    watched: Sequence[Month],
    settled: Mapping[datetime, Settled],
    counters: Mapping[datetime, int],
) -> _Found:
    for month in watched:
        sums = seen.sums(month, settled.get(month.period_start))
        subject = _moment(month.period_start)
        if sums.month != sums.ledger:
            yield Invariant.MONTH, subject, _difference("The period's counter", sums.month, sums)
        if month.period_start in settled and sums.days != sums.ledger:
            yield Invariant.DAY, subject, _difference("The sum of the days", sums.days, sums)
        counter = counters.get(month.period_start, 0)
        if counter > month.tokens_used:
            yield (
                Invariant.COUNTER,
                subject,
                f"The proxies count {counter}, the database {month.tokens_used}.",
            )


def _days(seen: Look) -> _Found:
    ledger = seen.ledger_days()
    for key in sorted({*ledger, *(key for key in seen.days if key.day >= seen.since)}):
        counted, told = ledger.get(key, Counts()), seen.days.get(key, Counts())
        subject = f"{key.day} {key.model}"
        if counted != told:
            yield (
                Invariant.DAY,
                subject,
                f"The day's row says {_counts(told)}, its events say {_counts(counted)}.",
            )
        if min(told) < 0:
            yield Invariant.SIGN, subject, f"The day's row is negative: {_counts(told)}."


def _periods(seen: Look) -> _Found:
    for one, two in overlaps(seen.months):
        yield (
            Invariant.OVERLAP,
            _moment(two.period_start),
            f"It begins before the one of {_moment(one.period_start)} has ended.",
        )
    known = {month.period_start for month in seen.months}
    for start in sorted({start for start, _ in seen.events if start is not None} - known):
        yield Invariant.PERIOD, _moment(start), "There are events of this period, but no period."


def _events(seen: Look) -> _Found:
    if seen.without_details:
        yield (
            Invariant.DETAILS,
            "events",
            f"{seen.without_details} events have no details, so nobody knows their period.",
        )
    for start, count in sorted(seen.outside.items()):
        yield (
            Invariant.WITHIN,
            _moment(start),
            f"{count} events of this period lie outside of it and are not marked late.",
        )


def _difference(what: str, found: int, sums: Sums) -> str:
    return f"{what} says {found} tokens, its events say {sums.ledger} ({found - sums.ledger:+})."


def _counts(counts: Counts) -> str:
    return f"{counts.requests} requests, {counts.prompt} + {counts.completion} tokens"


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")
