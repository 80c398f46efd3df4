"""What processes tell each other about customers' meters: messages out, replies in, no I/O.

A process never adds to a counter in Redis: it says what it holds now, and says it again. So a lost
or emptied Redis is complete again as soon as everybody has spoken.

For each customer's period there is one hash:
    base      the highest total of the ledger that anybody has seen
    sure      present once somebody has read the ledger in this epoch
    p:<id>    of one process: "number expires unwritten underway requests minute"
    l:<id>    a lease near the limit: "tokens expires"
Their keys carry an epoch, which lives beside them. When it is gone, or Redis was started anew, the
next message opens another one, and nobody gets a lease before every process that listens has told
what it holds. Expiry follows Redis' own clock. `sharing.lua` is the other half of this file.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from openclaw_web.metering.meter import (
    ALIVE_SECONDS,
    FRESH_SECONDS,
    Meter,
    Reservation,
    Verdict,
    Wish,
)

SCRIPT = Path(__file__).with_name("sharing.lua").read_text(encoding="utf-8")
EPOCH_KEY = "meters:epoch"
CHANNEL = "meters:"
KEEP_SECONDS = 3_600  # a hash that nobody touches: the next one begins with a look at the ledger
RECONNECT_SECONDS = 3.0  # after a start of Redis; processes try several times a second
SHARE_OF_LEASE = 4  # renewed after a quarter of its life

_OVERTAKEN = -1


class _Said(msgspec.Struct):
    base: int
    is_sure: bool
    unwritten: int
    underway: int
    requests: int
    minute: int
    ended: list[str]
    renewed: list[tuple[str, int]]
    wishes: list[tuple[str, int, int]]


class _Message(msgspec.Struct):
    process: str
    channel: str
    number: int
    epoch: str
    next_epoch: str
    registers: bool
    forgets_totals: bool
    alive_ms: int
    fresh_ms: int
    reconnect_ms: int
    keep_ms: int
    meters: list[_Said]


class _Reply(msgspec.Struct):
    epoch: str
    is_ready: bool = False
    forgets_totals: bool = False
    answers: list[list[int]] = []


_REPLY = msgspec.json.Decoder(_Reply)


@dataclass(frozen=True)
class Part:
    """What a message says of one meter."""

    meter: Meter
    ended: list[str]
    renewed: list[Reservation]
    wishes: list[Wish]


@dataclass(frozen=True)
class Message:
    """What goes to Redis in one call."""

    epoch: str
    parts: list[Part]
    keys: list[str]
    body: bytes


@dataclass
class Sharing:
    """One process's side of the conversation."""

    alive_seconds: float = ALIVE_SECONDS
    reconnect_seconds: float = field(default_factory=lambda: RECONNECT_SECONDS)
    process: str = field(default_factory=lambda: secrets.token_hex(6))
    epoch: str = ""
    on_forgetting: Callable[[], None] = lambda: None
    _number: int = 0
    _leases: int = 0

    @property
    def channel(self) -> str:
        """The channel that this process listens to: so Redis knows who is alive."""
        return f"{CHANNEL}{self.process}"

    def next_lease(self) -> str:
        self._leases += 1
        return f"{self.process}:{self._leases}"

    def compose(self, meters: Sequence[Meter], now: float, *, registers: bool) -> Message:
        """Say all there is to say of these meters; their wishes are handed over with it.

        `registers` marks the last message of a round that told of everything.
        """
        self._number += 1
        parts = [self._part(meter, now) for meter in meters]
        body = self._body(parts, now, registers=registers)
        keys = [EPOCH_KEY, *(f"meter:{self.epoch}:{meter.name}" for meter in meters)]
        return Message(self.epoch, parts, keys, msgspec.json.encode(body))

    def compose_forgetting(self) -> Message:
        """Open a new epoch in which all totals come from the ledger anew, also smaller ones."""
        body = self._body([], 0.0, registers=False, forgets_totals=True)
        return Message("", [], [EPOCH_KEY], msgspec.json.encode(body))

    def digest(self, message: Message, reply: bytes | str, now: float) -> bool:
        """Take a reply over; `False` when there is a new epoch, and everything is to be told again.

        Raises:
            msgspec.MsgspecError: the reply is none of ours.
        """
        read = _REPLY.decode(reply)
        if read.epoch != message.epoch:
            self.epoch = read.epoch
            if read.forgets_totals:
                self.on_forgetting()
            for part in message.parts:
                part.meter.is_told = False
                _tell(part.wishes, Verdict.UNREADY)
            return False
        for part, answer in zip(message.parts, read.answers, strict=True):
            if answer[0] == _OVERTAKEN:
                _tell(part.wishes, Verdict.UNREADY)
            else:
                self._take_over(part, answer, now, is_ready=read.is_ready)
        return True

    def lose(self, message: Message) -> None:
        """No reply came. What was granted without our knowing is given back with the next one."""
        for part in message.parts:
            part.meter.ended += [wish.lease for wish in part.wishes]
            part.meter.is_told = False
            _tell(part.wishes, Verdict.AWAY)

    def _body(
        self, parts: list[Part], now: float, *, registers: bool, forgets_totals: bool = False
    ) -> _Message:
        return _Message(
            process=self.process,
            channel=CHANNEL,
            number=self._number,
            epoch=self.epoch,
            next_epoch=secrets.token_hex(6),
            registers=registers,
            forgets_totals=forgets_totals,
            alive_ms=round(self.alive_seconds * 1000),
            fresh_ms=round(FRESH_SECONDS * 1000),
            reconnect_ms=round(self.reconnect_seconds * 1000),
            keep_ms=KEEP_SECONDS * 1000,
            meters=[self._said(part, now) for part in parts],
        )

    def _part(self, meter: Meter, now: float) -> Part:
        wishes = [wish for wish in meter.wishes if not wish.answer.done()]
        meter.wishes = []
        meter.is_told = True
        oldest = now - self.alive_seconds / SHARE_OF_LEASE
        renewed = [
            lease
            for lease in meter.leases.values()
            if lease.epoch != self.epoch or lease.renewed <= oldest
        ]
        return Part(meter, list(meter.ended), renewed, wishes)

    def _said(self, part: Part, now: float) -> _Said:
        meter = part.meter
        return _Said(
            base=meter.base,
            is_sure=meter.sure_in == self.epoch,
            unwritten=meter.unwritten,
            underway=meter.underway - meter.leased,
            requests=meter.requests,
            minute=round(meter.minute.level(now)),
            ended=part.ended,
            renewed=[(lease.lease, lease.tokens) for lease in part.renewed],
            wishes=[(wish.lease, wish.tokens, wish.limit) for wish in part.wishes],
        )

    def _take_over(self, part: Part, answer: list[int], now: float, *, is_ready: bool) -> None:
        meter = part.meter
        base, unwritten, underway, meter.others_requests, meter.others_minute, *verdicts = answer
        meter.learn(base)
        meter.hear(unwritten, underway, now, is_complete=is_ready)
        del meter.ended[: len(part.ended)]
        for lease in part.renewed:
            lease.renewed, lease.epoch = now, self.epoch
        for wish, verdict in zip(part.wishes, verdicts, strict=True):
            self._grant_or_tell(meter, wish, Verdict(verdict), now)

    def _grant_or_tell(self, meter: Meter, wish: Wish, verdict: Verdict, now: float) -> None:
        if verdict is not Verdict.ADMITTED:
            wish.tell(verdict)
            return
        lease = Reservation(meter, wish.tokens, now, lease=wish.lease)
        lease.renewed, lease.epoch = now, self.epoch
        if wish.tell(lease):
            meter.start(lease)
        else:  # its client has left
            meter.ended.append(wish.lease)


def _tell(wishes: Sequence[Wish], verdict: Verdict) -> None:
    for wish in wishes:
        wish.tell(verdict)
