"""What one process knows of a customer's period: what is used, under way here, and elsewhere."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final
from uuid import UUID

from openclaw_web.metering.limits import Bucket, Fading, faded

FRESH_SECONDS: Final = 2.0  # who has requests under way tells twenty times a second
ALIVE_SECONDS: Final = 60.0  # what a process told counts this long; then it is taken for dead
FULL_SECONDS = 2.0  # by then whoever has written its part into the ledger has told so
FULL_AGAIN_SECONDS = 30.0


class Verdict(Enum):
    """What became of a wish for a lease. The values are spoken by the script in Redis."""

    ADMITTED = 0
    REACHED = 1  # the ledger says so: final
    FULL = 2  # with what is settled and not in the ledger yet
    HELD = 3  # what is under way may use it up
    UNREADY = 4  # after a wipe: not all processes have told what they hold
    UNSURE = 5  # after a wipe: the ledger has to be read
    AWAY = 6  # Redis does not answer (never said by the script)


class Reservation:
    """What one running request may use. Near the limit it is a lease, known to all processes."""

    __slots__ = (
        "epoch",
        "has_left",
        "is_over",
        "lease",
        "meter",
        "renewed",
        "started",
        "tokens",
    )

    def __init__(self, meter: "Meter", tokens: int, started: float, *, lease: str = "") -> None:
        self.meter = meter
        self.tokens = tokens
        self.started = started
        self.lease = lease
        self.renewed = 0.0
        self.epoch = ""  # in which the lease was told last
        self.has_left = False
        self.is_over = False


@dataclass(eq=False)
class Wish:
    """A request near the limit that asks for a lease."""

    lease: str
    tokens: int
    limit: int
    answer: "asyncio.Future[Reservation | Verdict]"

    def tell(self, answer: Reservation | Verdict) -> bool:
        """Answer; `False` when nobody waits any more."""
        if self.answer.done():
            return False
        self.answer.set_result(answer)
        return True


@dataclass(eq=False, slots=True)
class Meter:
    """One customer's period. Times are seconds of the monotonic clock, all else is tokens."""

    customer_id: UUID
    period_start: datetime
    base: int = 0  # the highest total of the ledger that anybody has seen
    unwritten: int = 0  # settled here, and not known to be in the ledger
    underway: int = 0  # what running requests of this process may use, leases included
    leased: int = 0
    requests: int = 0  # running here, while their client waits
    leases: dict[str, Reservation] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)  # leases to give back
    wishes: list[Wish] = field(default_factory=list)
    bucket: Bucket = field(default_factory=Bucket)
    minute: Fading = field(default_factory=Fading)
    others: int = 0  # unwritten and under way in other processes, when last heard of
    others_unwritten: int = 0
    others_requests: int = 0
    others_minute: float = 0.0
    heard: float = -ALIVE_SECONDS
    touched: float = 0.0
    sure_in: str = ""  # the epoch in which the ledger was read
    full_since: float = 0.0
    full_until: float = -ALIVE_SECONDS  # when it was last found full
    is_told: bool = True  # nothing has changed since the last message was written
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.customer_id.hex}:{self.period_start.timestamp():.6f}"

    @property
    def own(self) -> int:
        return self.unwritten + self.underway

    @property
    def has_something(self) -> bool:
        """Say whether other processes should go on hearing of this one."""
        return bool(self.unwritten or self.underway or self.requests or self.ended or self.wishes)

    def used(self, now: float) -> int:
        """Return what is used for certain, as far as this process knows."""
        self._forget_others(now)
        return self.base + self.unwritten + self.others_unwritten

    def held(self, now: float) -> int:
        """Return what is used, and what may be used by requests under way anywhere."""
        if self.others:
            self._forget_others(now)
        return self.base + self.unwritten + self.underway + self.others

    def has_place(self, most: int, now: float) -> bool:
        """Say whether one more request may run; others' count only while they are heard."""
        if self.requests + self.others_requests < most:
            return True
        return now - self.heard > FRESH_SECONDS and self.requests < most

    def minute_anywhere(self, now: float) -> float:
        """Return the tokens of about the last minute, of all processes."""
        level = self.minute.level(now)
        if self.others_minute:
            level += self.others_minute * faded(now - self.heard)
        return level

    def learn(self, total: int) -> None:
        """Take over a total of the ledger; it only grows."""
        self.base = max(self.base, total)

    def hear(self, unwritten: int, underway: int, now: float, *, is_complete: bool) -> None:
        """Take over what the other processes hold; after a wipe some may not have told yet."""
        self._forget_others(now)
        if is_complete or unwritten + underway > self.others:
            self.others_unwritten = unwritten
            self.others = unwritten + underway
        self.heard = now

    def start(self, reservation: Reservation) -> None:
        self.touched = reservation.started
        self.underway += reservation.tokens
        self.minute.add(reservation.tokens, reservation.started)
        if reservation.lease:
            self.leased += reservation.tokens
            self.leases[reservation.lease] = reservation
            self.has_room()

    def end(self, reservation: Reservation, actual: int, now: float) -> None:
        self.touched = now
        self.underway -= reservation.tokens
        self.minute.correct(
            expected=reservation.tokens, actual=actual, started=reservation.started, now=now
        )
        if reservation.lease:
            self.leased -= reservation.tokens
            del self.leases[reservation.lease]
            self.ended.append(reservation.lease)

    def dismiss(self) -> None:
        """Tell who waits for a lease that nobody can be asked."""
        wishes, self.wishes = self.wishes, []
        for wish in wishes:
            wish.tell(Verdict.AWAY)

    def has_been_full(self, now: float) -> bool:
        """Note that it was found full; `True` once that has been so for a while, without a break.

        A request that was admitted in between is one: see `has_room`.
        """
        if now - self.full_until > FULL_AGAIN_SECONDS:
            self.full_since = now
        self.full_until = now
        return now - self.full_since >= FULL_SECONDS

    def has_room(self) -> None:
        """Note that a request was admitted: what looked full was a message on its way."""
        self.full_until = -ALIVE_SECONDS

    def _forget_others(self, now: float) -> None:
        if now - self.heard > ALIVE_SECONDS:
            self.others = self.others_unwritten = 0
