"""Whatever happens in whatever order, nobody gets more than the limit, and no limit is invented.

Three processes share a real Valkey; messages are sent by hand, so that each may come late, get
lost, or meet an emptied Redis. The ledger is a number.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from openclaw_web.metering import limits
from openclaw_web.metering.meter import Meter, Reservation, Verdict, Wish
from openclaw_web.metering.sharing import SCRIPT, Message, Sharing

LIMIT = 10_000_000
FAR_BELOW = limits.far_below(LIMIT, 2)
MOST = 266_000  # a context and an answer
UNTOLD = 3  # what may start in other processes between two ticks; it fits into the margin
NOW = 1_000.0  # no time passes

LEFT = [1, 1_000, MOST // 2, MOST, 2 * MOST, 1_000_001, 1_200_000, 1_500_000]
# What happens, as often as it stands here.
HAPPENINGS = [
    *["ask"] * 9,
    *["finish"] * 6,
    *["commit"] * 2,
    *["hear_of_commit"] * 2,
    *["tick"] * 2,
    *["wipe"] * 2,
    "lose_a_message",
    "bring_a_lost_message_after_all",
    "die",
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(HAPPENINGS), st.integers(0, 2), st.sampled_from([0, 1, 50, 100, 100])
    ),
    min_size=30,
    max_size=60,
)


@dataclass
class Process:
    meter: Meter
    listening: object
    sharing: Sharing = field(default_factory=lambda: Sharing(reconnect_seconds=0.0))
    running: list[Reservation] = field(default_factory=list)
    pending: int = 0  # settled, not in the ledger
    in_transit: int = 0  # in the ledger, and the process does not know it yet
    total: int = 0


class World:
    def __init__(self, url: str, left: int) -> None:
        self.redis: Any = Redis.from_url(url)
        self.redis.flushall()
        self.script = self.redis.register_script(SCRIPT)
        self.customer = uuid4()
        self.ledger = LIMIT - left
        self.untold = 0
        self.late: list[Message] = []
        self.dead: list[str] = []
        self.all = [self.new_process() for _ in range(3)]
        for one in self.all:
            one.meter.learn(self.ledger)
        self.tick()

    def new_process(self) -> Process:
        listening = self.redis.pubsub()
        made = Process(Meter(self.customer, datetime(2026, 11, 1, tzinfo=UTC)), listening)
        listening.subscribe(made.sharing.channel)
        listening.get_message(timeout=5.0)
        return made

    @property
    def used(self) -> int:
        return self.ledger + sum(one.pending for one in self.all)

    def deliver(self, message: Message) -> bytes:
        return self.script(keys=message.keys, args=[message.body])

    def say(self, one: Process, *, registers: bool = False) -> bool:
        message = one.sharing.compose([one.meter], NOW, registers=registers)
        return one.sharing.digest(message, self.deliver(message), NOW)

    def wish(self, one: Process, count: int) -> Reservation | Verdict:
        answer: Any = Future()
        one.meter.wishes.append(Wish(one.sharing.next_lease(), count, LIMIT, answer))
        self.say(one)
        return answer.result()

    def grant(self, one: Process, reservation: Reservation) -> None:
        leases = sum(held.tokens for other in self.all for held in other.running if held.lease)
        assert self.used + (leases if reservation.lease else 0) < LIMIT
        one.running.append(reservation)

    def ask(self, at, share):
        count = max(1, MOST * share // 100)
        one = self.all[at]
        one.meter.learn(self.ledger if at else one.meter.base)  # one knows what it is told only
        if one.meter.held(NOW) < FAR_BELOW:
            if self.untold < UNTOLD:
                self.untold += 1
                reservation = Reservation(one.meter, count, NOW)
                one.meter.start(reservation)
                self.grant(one, reservation)
            return
        answer = self.wish(one, count)
        if answer is Verdict.UNSURE:
            one.meter.learn(self.ledger)
            one.meter.sure_in = one.sharing.epoch
            answer = self.wish(one, count)
            assert answer is not Verdict.UNSURE
        if isinstance(answer, Reservation):
            self.grant(one, answer)
        is_final = answer is Verdict.REACHED or (
            answer is Verdict.FULL and not any(other.in_transit for other in self.all)
        )
        assert not is_final or self.used >= LIMIT

    def finish(self, at, share):
        one = self.all[at]
        if one.running:
            reservation = one.running.pop()
            actual = reservation.tokens * share // 100
            one.pending += actual
            one.meter.unwritten += actual
            one.meter.end(reservation, actual, NOW)
            self.say(one)

    def commit(self, at, _=0):
        one = self.all[at]
        if one.pending and not one.in_transit:
            self.ledger += one.pending
            one.in_transit, one.pending, one.total = one.pending, 0, self.ledger

    def hear_of_commit(self, at, _=0):
        one = self.all[at]
        if one.in_transit:
            one.meter.unwritten -= one.in_transit
            one.meter.learn(one.total)
            one.in_transit = 0
            self.say(one)

    def tick(self, *_):
        self.untold = 0
        for _ in range(2):  # the second time in a new epoch
            for one in self.all:
                if not self.say(one, registers=True):
                    self.say(one, registers=True)

    def wipe(self, *_):
        self.redis.flushall()

    def lose_a_message(self, at, share):
        one = self.all[at]
        count = MOST * share // 100 + 1
        one.meter.wishes.append(Wish(one.sharing.next_lease(), count, LIMIT, cast("Any", Future())))
        message = one.sharing.compose([one.meter], NOW, registers=False)
        one.sharing.lose(message)
        self.late.append(message)

    def bring_a_lost_message_after_all(self, *_):
        if self.late:
            self.deliver(self.late.pop())

    def die(self, at, _=0):
        """Its successor writes what is in its spool; what it held in Redis expires."""
        dead = self.all[at]
        self.stop_listening(dead)
        self.dead.append(dead.sharing.process)
        self.ledger += dead.pending
        self.expire_dead()
        self.all[at] = self.new_process()
        for one in self.all:
            one.meter.learn(self.ledger)
        self.tick()

    def stop_listening(self, one: Any) -> None:
        one.listening.unsubscribe()
        while one.listening.subscribed:
            one.listening.get_message(timeout=5.0)
        one.listening.close()

    def expire_dead(self) -> None:
        for key in self.redis.scan_iter("meter:*"):
            for name, value in self.redis.hgetall(key).items():
                if any(process in name.decode() for process in self.dead):
                    parts = value.split(b" ")
                    parts[1] = b"1"
                    self.redis.hset(key, name, b" ".join(parts))

    def end(self):
        for at, one in enumerate(self.all):
            while one.running:
                self.finish(at, 50)
            self.hear_of_commit(at)
            self.commit(at)
            self.hear_of_commit(at)
        while self.late:
            self.deliver(self.late.pop())
        self.expire_dead()
        self.tick()
        self.nothing_is_left()
        for at, one in enumerate(self.all):
            one.meter.learn(self.ledger)
            self.ask(at, 100)
            assert bool(one.running) == (self.ledger < LIMIT)
            self.finish(at, 0)
            self.stop_listening(one)
        self.redis.close()

    def nothing_is_left(self):
        for key in self.redis.scan_iter(f"meter:{self.all[0].sharing.epoch}:*"):
            assert not [name for name in self.redis.hgetall(key) if name.startswith(b"l:")]
        for one in self.all:
            assert (one.meter.unwritten, one.meter.underway, one.meter.others) == (0, 0, 0)


@pytest.mark.parametrize("examples", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_no_order_of_events_breaks_the_limit_or_invents_one(valkey_server, examples):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples < 100,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(steps=STEPS, left=st.sampled_from(LEFT))
    def play(steps, left):
        world = World(valkey_server.url, left)
        for happening, at, share in steps:
            getattr(world, happening)(at, share)
        world.end()

    play()
