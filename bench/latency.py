"""Latencies with and without something, and whether the difference is more than the machine's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import quantile

P99_FACTOR = 1.2
P99_EXTRA_MS = 2.0
OK = 200


@dataclass(frozen=True)
class Sample:
    """One request: when it began (monotonic seconds), how long it took, how it ended."""

    began: float
    latency_ms: float
    status: int


@dataclass(frozen=True)
class Moments:
    """When what happened, in seconds of the monotonic clock."""

    measured_from: float
    broken: float
    mended: float
    calm: float


@dataclass(frozen=True)
class Halves:
    """Latencies in ms of the same kind of request, with and without."""

    there: Sequence[float]
    away: Sequence[float]

    @property
    def figures(self) -> dict[str, float]:
        return {
            f"{name}_p{rank}_ms": round(quantile(values, rank), 2)
            for name, values in (("with", self.there), ("without", self.away))
            for rank in (50, 99)
        }


def halves(samples_file: Path, moments: Moments) -> Halves:
    """Split a generator's samples; the time of recovery counts for neither half."""
    samples = [Sample(*one) for one in json.loads(samples_file.read_text(encoding="utf-8"))]
    answered = [one for one in samples if one.status == OK]
    return Halves(
        there=[
            one.latency_ms
            for one in answered
            if moments.measured_from <= one.began < moments.broken or one.began >= moments.calm
        ],
        away=[one.latency_ms for one in answered if moments.broken <= one.began < moments.mended],
    )


def allowed_ms(ours: Halves, control: Halves) -> float:
    """Return how slow the 99th percentile may become without.

    1.2 times what it is with, and 2 ms; and as much as it rose for those who asked in the same
    seconds without our proxy, since that is the machine's doing.
    """
    rise = control.figures["without_p99_ms"] - control.figures["with_p99_ms"]
    return ours.figures["with_p99_ms"] * P99_FACTOR + P99_EXTRA_MS + max(0.0, rise)
