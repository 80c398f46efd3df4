"""Limits in process: tokens that are under way, requests a second, requests at once."""

import time
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

BURST_SECONDS = 2  # as many requests as two seconds allow may come at once
CHARACTERS_PER_TOKEN = 4
EXPECTED_ANSWER_TOKENS = 1_000
LARGEST_RESERVATION = 32_000


class Room(Enum):
    """Whether one more request fits into the period."""

    ENOUGH = "enough"
    UNDER_WAY = "what is under way may use it up"
    NONE = "the limit is reached"


@dataclass(frozen=True)
class Reservation:
    """What one running request may use; give it back when the request has ended."""

    customer_id: UUID
    tokens: int


@dataclass
class Underway:
    """What the running requests of this process may add to each customer's period."""

    tokens: dict[UUID, int] = field(default_factory=dict)
    requests: dict[UUID, int] = field(default_factory=dict)

    def start(self, customer_id: UUID, tokens: int) -> Reservation:
        self.tokens[customer_id] = self.tokens_of(customer_id) + tokens
        self.requests[customer_id] = self.requests_of(customer_id) + 1
        return Reservation(customer_id, tokens)

    def leave(self, reservation: Reservation) -> None:
        """Free the place of a request whose client has gone; its tokens are still to come."""
        _take(self.requests, reservation.customer_id, 1)

    def end(self, reservation: Reservation, *, has_left: bool) -> None:
        _take(self.tokens, reservation.customer_id, reservation.tokens)
        if not has_left:
            self.leave(reservation)

    def tokens_of(self, customer_id: UUID) -> int:
        return self.tokens.get(customer_id, 0)

    def requests_of(self, customer_id: UUID) -> int:
        return self.requests.get(customer_id, 0)


def expected_tokens(body_bytes: int, max_tokens: int | None) -> int:
    """Estimate what a request will use; a guess, only held while it runs."""
    answer = EXPECTED_ANSWER_TOKENS if max_tokens is None else max(0, max_tokens)
    return max(1, min(body_bytes // CHARACTERS_PER_TOKEN + answer, LARGEST_RESERVATION))


def room(*, used: int, unwritten: int, underway: int, limit: int) -> Room:
    """Tell whether a request may start: the overshoot is at most one request for each process."""
    if used + unwritten >= limit:
        return Room.NONE
    return Room.ENOUGH if used + unwritten + underway < limit else Room.UNDER_WAY


class RequestRate:
    """A bucket for each customer that fills with `per_second` and holds two seconds' worth."""

    def __init__(self) -> None:
        self._buckets: dict[UUID, tuple[float, float]] = {}

    def wait_seconds(
        self, customer_id: UUID, per_second: float, *, now: float | None = None
    ) -> float:
        """Take one request and return 0, or take nothing and return how long to wait."""
        now = time.monotonic() if now is None else now
        full = max(1.0, per_second * BURST_SECONDS)
        level, since = self._buckets.get(customer_id, (full, now))
        level = min(full, level + (now - since) * per_second)
        if level < 1:
            self._buckets[customer_id] = (level, now)
            return (1 - level) / per_second
        self._buckets[customer_id] = (level - 1, now)
        return 0.0


def _take(counts: dict[UUID, int], customer_id: UUID, count: int) -> None:
    counts[customer_id] -= count
    if not counts[customer_id]:
        del counts[customer_id]
