"""Several processes, one limit: here each `Meters` stands for a process, with a real Valkey."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import OperationalError

from openclaw_web.integrations import redis as our_redis
from openclaw_web.metering import line, meters
from openclaw_web.metering.ledger import Event, PeriodTotal
from openclaw_web.metering.limits import far_below
from openclaw_web.metering.meter import Meter, Reservation, Verdict
from openclaw_web.metering.meters import Meters
from openclaw_web.metering.sharing import SCRIPT, Sharing

LIMIT = 10_000_000
START = datetime(2026, 11, 1, tzinfo=UTC)


class World:
    """A customer, a ledger that is a number, and as many processes as a test wants."""

    def __init__(self, processes: contextlib.AsyncExitStack) -> None:
        self.customer = uuid4()
        self.ledger = 0
        self.reads = 0
        self.has_database = True
        self._processes = processes

    async def read(self, customer_id: UUID, _start: datetime) -> int:
        self.reads += 1
        if not self.has_database:
            raise OperationalError("SELECT", {}, ConnectionError("no database"))
        assert customer_id == self.customer
        return self.ledger

    async def process(self, **fields) -> "Process":
        sharing = Sharing(reconnect_seconds=0.0, **fields)
        made = Meters(sharing, self.read)
        await made.start()
        self._processes.push_async_callback(made.stop)
        return Process(self, made, sharing)

    async def processes(self, count: int) -> list["Process"]:
        return [await self.process() for _ in range(count)]


class Process:
    def __init__(self, world: World, made: Meters, sharing: Sharing) -> None:
        self.world = world
        self.meters = made
        self.sharing = sharing

    @property
    def meter(self):
        return self.meters.meter(self.world.customer, START)

    async def ask(self, tokens: int = 1_000) -> Reservation | Verdict:
        self.meters.take_place(self.meter)
        return await self.meters.start_near(self.meter, tokens, limit=LIMIT)

    async def until_admitted(self, tokens: int = 1_000) -> Reservation:
        async with asyncio.timeout(20):
            while not isinstance(answer := await self.ask(tokens), Reservation):
                pass
        return answer

    def far(self, tokens: int = 1_000, *, is_cut_off: bool = False) -> Reservation | None:
        now = asyncio.get_running_loop().time()
        return self.meters.start_far(
            self.meter, tokens, far_below=far_below(LIMIT, 2), now=now, is_cut_off=is_cut_off
        )

    def finish(self, reservation: Reservation, actual: int) -> None:
        self.meters.settled(self.meters.meter(self.world.customer, START), actual)
        self.meters.end(reservation, actual)

    def flush(self, tokens: int) -> None:
        self.world.ledger += tokens
        event = Event(
            request_id="r",
            customer_id=self.world.customer,
            box_id=uuid4(),
            period_start=START,
            timestamp=START,
            model="k2p5",
            prompt_tokens=tokens,
            completion_tokens=0,
        )
        total = PeriodTotal(self.world.customer, START, self.world.ledger)
        self.meters.written([event], [total])


@pytest.fixture
async def world(redis, monkeypatch) -> AsyncIterator[World]:
    assert redis
    monkeypatch.setattr(line, "REDIS_SECONDS", 20.0)  # a busy machine is no lost Redis
    async with contextlib.AsyncExitStack() as processes:
        yield World(processes)


async def until(claim) -> None:
    async with asyncio.timeout(20):
        while not claim():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0.01)


async def leases(redis) -> list[str]:
    keys = [key async for key in redis.scan_iter("meter:*")]
    return [name for key in keys for name in await redis.hgetall(key) if name.startswith("l:")]


async def test_one_lease_blocks_the_others_only_while_it_lasts(world, redis):
    world.ledger = LIMIT - 10_000
    one, two = await world.processes(2)
    reservation = await one.until_admitted(10_000)
    assert await two.ask() is Verdict.HELD
    one.finish(reservation, 500)
    other = await two.until_admitted()
    two.finish(other, 0)
    await until(lambda: two.meter.others_unwritten == 500)
    await until(lambda: not two.meter.ended)
    assert await leases(redis) == []


async def test_the_last_request_may_overshoot_by_itself(world):
    world.ledger = LIMIT - 1
    (one,) = await world.processes(1)
    reservation = await one.until_admitted(200_000)
    one.finish(reservation, 200_000)
    one.flush(200_000)
    assert await one.ask() is Verdict.REACHED


async def test_what_another_process_has_not_written_yet_counts(world):
    world.ledger = LIMIT - 1_000
    one, two = await world.processes(2)
    one.finish(await one.until_admitted(), 2_000)
    assert await two.ask() in {Verdict.FULL, Verdict.HELD}
    one.flush(2_000)
    assert await two.ask() is Verdict.REACHED


async def test_full_is_final_only_when_it_stays_so(world, monkeypatch):
    world.ledger = LIMIT - 1_000
    (one,) = await world.processes(1)
    one.finish(await one.until_admitted(), 2_000)
    assert await one.ask() is Verdict.FULL
    monkeypatch.setattr("openclaw_web.metering.meter.FULL_SECONDS", 0.0)
    assert await one.ask() is Verdict.REACHED


async def blip(world, one, two, tokens):
    """Let `two` ask while one's tokens are seen twice: in the ledger, and as unwritten."""
    one.finish(await one.until_admitted(tokens), tokens)
    while two.meter.others_unwritten != tokens:
        await two.meters.used(world.customer, START, known=0)
    two.meter.learn(world.ledger + tokens)  # as when it looks at the database by itself
    before, asking = two.meter.full_until, asyncio.create_task(two.ask())
    await until(lambda: two.meter.full_until != before)
    one.flush(tokens)
    return await asking


async def test_two_harmless_moments_of_full_are_no_end(world):
    world.ledger = LIMIT - 100_000
    one, two = await world.processes(2)
    passed, real = 0.0, two.meters.clock
    two.meters.clock = lambda: real() + passed
    first = await blip(world, one, two, 60_000)
    assert isinstance(first, Reservation)
    two.finish(first, 0)
    passed = 3.0
    second = await blip(world, one, two, 30_000)
    assert isinstance(second, Reservation), second
    two.finish(second, 0)


async def test_what_was_full_for_a_moment_long_ago_is_no_end_without_a_look(world):
    world.ledger = LIMIT - 100_000
    (one,) = await world.processes(1)
    now = one.meters.clock()
    assert not one.meter.has_been_full(now - 5)
    reservation = await one.until_admitted()
    assert not one.meter.has_been_full(now)
    one.finish(reservation, 0)


async def test_a_process_far_from_the_limit_soon_knows_of_the_others(world):
    one, two = await world.processes(2)
    assert one.far(9_500_000) is not None
    assert two.far() is not None  # nobody has told it yet; the margin is for that
    await until(lambda: two.meter.others == 9_500_000)
    assert two.far() is None


async def test_an_emptied_redis_knows_all_again_before_anybody_is_admitted(world, redis):
    world.ledger = LIMIT - 10_000
    one, two, three = await world.processes(3)
    held = await one.until_admitted(8_000)
    one.meters.settled(one.meters.meter(world.customer, START), 3_000)
    await redis.flushall()
    for _ in range(3):
        assert await two.ask() in {Verdict.HELD, Verdict.UNREADY}
    await until(lambda: three.sharing.epoch == one.sharing.epoch)
    one.meters.end(held, 0)
    two.meters.end(await two.until_admitted(), 0)


async def test_a_silent_process_keeps_the_epoch_from_being_ready(world, redis):
    (one,) = await world.processes(1)
    async with redis.pubsub() as silent:
        await silent.subscribe("meters:silent")
        await silent.get_message(timeout=5)
        await redis.flushall()
        assert await one.ask() is Verdict.UNREADY
        assert one.far() is not None
        await silent.unsubscribe()
        await silent.get_message(timeout=5)
        await one.until_admitted()


async def test_the_ledger_is_read_once_in_an_epoch(world, redis):
    one, two = await world.processes(2)
    for process in (one, two, one):
        await process.until_admitted()
    assert world.reads == 1
    world.ledger = LIMIT
    await redis.flushall()
    async with asyncio.timeout(20):
        while await two.ask() is not Verdict.REACHED:
            pass
    assert world.reads == 2


async def test_without_a_ledger_what_is_known_has_to_do(world):
    world.has_database = False
    (one,) = await world.processes(1)
    await one.until_admitted()


async def test_the_lease_of_a_dead_process_expires(world, redis):
    world.ledger = LIMIT - 1_000
    (one,) = await world.processes(1)
    one.meters.end(await one.until_admitted(), 0)
    dead = Sharing(epoch=one.sharing.epoch, alive_seconds=0.5)
    meter = Meter(world.customer, START)
    meter.start(Reservation(meter, 5_000, 0.0, lease=dead.next_lease()))
    message = dead.compose([meter], 0.0, registers=False)
    await our_redis.run_script(SCRIPT, message.keys, [message.body], timeout_seconds=20)
    assert f"l:{dead.process}:1" in await leases(redis)
    one.meters.end(await one.until_admitted(), 0)
    await until(lambda: not one.meter.ended)
    assert await leases(redis) == []


async def test_a_lease_lives_as_long_as_its_request(world, redis):
    world.ledger = LIMIT - 1_000
    one = await world.process(alive_seconds=0.4)
    await one.until_admitted(5_000)
    known = await leases(redis)
    for _ in range(8):
        await asyncio.sleep(0.1)
        assert await leases(redis) == known


async def test_whoever_leaves_while_waiting_holds_nothing(world, redis):
    world.ledger = LIMIT - 100_000
    (one,) = await world.processes(1)
    await one.until_admitted(1)
    asking = [asyncio.create_task(one.ask()) for _ in range(20)]
    for number, task in enumerate(asking):
        await asyncio.sleep(0.0001 * number)
        task.cancel()
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(answer, Reservation):
            one.meters.end(answer, 0)
    await until(lambda: (one.meter.requests, len(one.meter.leases), one.meter.ended) == (1, 1, []))
    assert len(await leases(redis)) == 1


async def test_parallel_requests_of_all_processes_count(world):
    one, two = await world.processes(2)
    one.far()
    two.far()
    await until(lambda: two.meter.others_requests == 1)
    now = asyncio.get_running_loop().time()
    assert not two.meter.has_place(2, now)
    assert two.meter.has_place(3, now)
    assert two.meter.has_place(2, now + 10)  # nobody has been heard for so long


async def test_tokens_a_minute_of_all_processes_count(world):
    one, two = await world.processes(2)
    one.far(50_000)
    two.far(1)
    await until(lambda: two.meter.others_minute)
    level = two.meter.minute_anywhere(asyncio.get_running_loop().time())
    assert 45_000 < level <= 50_001


async def test_what_was_used_is_the_same_everywhere(world):
    world.ledger = 700
    one, two = await world.processes(2)
    one.finish(one.far(), 40)
    async with asyncio.timeout(20):
        while await two.meters.used(world.customer, START, known=700) != 740:
            pass


async def test_nothing_of_a_stopped_process_stays_behind(world):
    (gone,) = await world.processes(1)
    gone.finish(await gone.until_admitted(), 500)
    gone.flush(500)
    await gone.meters.stop()
    (one,) = await world.processes(1)
    await one.until_admitted()
    assert (one.meter.base, one.meter.others, one.meter.others_requests) == (500, 0, 0)


async def test_idle_customers_are_forgotten(world, monkeypatch):
    monkeypatch.setattr(meters, "FORGET_SECONDS", 0.0)
    (one,) = await world.processes(1)
    busy = one.far()
    customer = uuid4()
    idle = one.meters.meter(customer, START)
    one.meters.meter(uuid4(), START)
    assert one.meter is busy.meter
    assert one.meters.meter(customer, START) is not idle


@pytest.fixture
async def away(monkeypatch) -> AsyncIterator[None]:
    """Let Redis accept every connection and never answer."""
    ended = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    monkeypatch.setattr(line, "REDIS_SECONDS", 0.05)
    yield server.sockets[0].getsockname()[1]
    ended.set()
    server.close()


async def test_without_redis_a_process_goes_on_within_two_percent(away):
    our_redis.open_redis(f"redis://127.0.0.1:{away}/0")
    async with contextlib.AsyncExitStack() as processes:
        (one,) = await World(processes).processes(1)
        assert not one.meters.is_shared
        one.meter.learn(LIMIT - 500_000)
        assert isinstance(await one.ask(150_000), Reservation)
        assert isinstance(await one.ask(50_000), Reservation)
        assert await one.ask(1) is Verdict.AWAY
    await our_redis.close_redis()


async def test_redis_may_stop_answering_and_come_back(world, monkeypatch):
    one, two = await world.processes(2)
    held = await one.until_admitted(3_000)
    real = our_redis.run_script

    async def broken(*_arguments, **_options):
        raise TimeoutError

    monkeypatch.setattr(our_redis, "run_script", broken)
    await until(lambda: not one.meters.is_shared)
    assert one.far() is not None
    one.finish(held, 100)
    monkeypatch.setattr(our_redis, "run_script", real)
    await until(lambda: one.meters.is_shared and not one.meter.ended)
    await two.until_admitted()
    assert (two.meter.others_unwritten, two.meter.others) == (100, 1_100)


async def test_a_lost_answer_leaves_no_lease(world, redis, monkeypatch):
    (one,) = await world.processes(1)
    await one.until_admitted()
    real = our_redis.run_script

    async def forgetful(*arguments, **options):
        await real(*arguments, **options)
        raise TimeoutError

    monkeypatch.setattr(our_redis, "run_script", forgetful)
    alone = await one.ask()
    assert isinstance(alone, Reservation)
    assert alone.lease == ""
    monkeypatch.setattr(our_redis, "run_script", real)
    await until(lambda: one.meters.is_shared and not one.meter.ended)
    assert len(await leases(redis)) == 1


async def test_cut_off_from_the_database_only_what_redis_knows_lets_go_on(world):
    (one,) = await world.processes(1)
    assert one.far(is_cut_off=True) is None  # it has never heard of this customer's others
    one.meters.end(await one.until_admitted(), 0)
    assert one.far(is_cut_off=True) is not None


async def test_requests_that_ask_in_one_breath_do_not_get_what_one_may(world):
    world.ledger = LIMIT - 1
    (one,) = await world.processes(1)
    one.meters.end(await one.until_admitted(), 0)
    answers = await asyncio.gather(*[one.ask() for _ in range(10)])
    assert sum(isinstance(answer, Reservation) for answer in answers) == 1


def test_after_a_wipe_what_was_known_of_others_stays_until_all_have_told():
    meter = Meter(uuid4(), START)
    meter.hear(500, 100, now=0.0, is_complete=True)
    meter.hear(20, 0, now=1.0, is_complete=False)
    assert (meter.others, meter.others_unwritten) == (600, 500)
    meter.hear(700, 0, now=2.0, is_complete=False)
    assert meter.others == 700
    meter.hear(20, 0, now=3.0, is_complete=True)
    assert meter.others == 20
    assert meter.held(now=3.0) == 20
    assert meter.held(now=70.0) == 0


async def test_a_total_that_was_corrected_is_learned_anew_everywhere(world):
    world.ledger = LIMIT
    one, two = await world.processes(2)
    for process in (one, two):
        process.meter.learn(LIMIT)
        assert await process.ask() is Verdict.REACHED
    world.ledger = LIMIT - 1_000
    await meters.forget_totals()
    await until(lambda: one.meter.base == two.meter.base == 0)
    one.meters.end(await one.until_admitted(), 0)
    two.meters.end(await two.until_admitted(), 0)
    assert (one.meter.base, two.meter.base) == (LIMIT - 1_000, LIMIT - 1_000)
