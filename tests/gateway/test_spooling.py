"""Events on their way into the ledger: in memory, on disk alone, and never one twice or lost."""

import asyncio
import os
from functools import partial

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from openclaw_web.core.database import session_scope
from openclaw_web.gateway import settling
from openclaw_web.gateway.credentials import Directory
from openclaw_web.gateway.front import Proxy
from openclaw_web.metering import spool
from openclaw_web.metering.meters import Meters
from openclaw_web.metering.models import UsageMonthly
from tests.gateway.test_settling import event_of


class Ledger:
    """A database that goes away when a test says so, and knows what it was given."""

    def __init__(self):
        self.events, self.leaves_after = [], 0

    async def __call__(self, events):
        if len(self.events) >= self.leaves_after:
            raise OperationalError("", {}, OSError("away"))
        self.events += events
        return await settling.write(events)


@pytest.fixture
def book():
    return Ledger()


@pytest.fixture
async def small_settler(monkeypatch, book, database, redis, tmp_path):
    """A settler that keeps three events in memory and writes only when a test says so."""
    assert database
    assert redis
    for name, value in (
        ("MOST_PENDING", 3),
        ("MOST_UNSPOOLED", 3),
        ("SEGMENT_EVENTS", 4),
        ("BATCH_EVENTS", 2),
        ("BATCH_SECONDS", 3_600.0),
    ):
        monkeypatch.setattr(settling, name, value)
    meters = Meters()
    made = settling.Settler(Directory(), meters, tmp_path / "small", write=book)
    yield made, meters
    await made.stop()


@pytest.fixture
async def new_event(holder, session):
    start = (await session.exec(select(UsageMonthly.period_start))).one()
    return partial(event_of, holder, start)


@pytest.mark.parametrize("count", [2, 3, 4, 11, 30])
async def test_what_does_not_fit_into_memory_waits_on_disk(small_settler, book, new_event, count):
    settler, meters = small_settler
    for number in range(count):
        settler.settle(event := new_event())
        if number % 5 == 4:
            with pytest.raises(OperationalError):
                await settler.flush()
        assert settler.in_memory <= 3
    assert meters.meter(event.customer_id, event.period_start).unwritten == 120 * count
    book.leaves_after = 1_000
    await settler.flush()
    assert len({event.request_id for event in book.events}) == len(book.events) == count
    assert meters.meter(event.customer_id, event.period_start).unwritten == 0


async def test_a_flush_that_breaks_off_goes_on_where_it_was(small_settler, book, new_event):
    settler, meters = small_settler
    for _ in range(11):
        settler.settle(event := new_event())
    book.leaves_after = 4
    with pytest.raises(OperationalError):
        await settler.flush()
    assert meters.meter(event.customer_id, event.period_start).unwritten == 120 * 7
    settler.settle(new_event())
    book.leaves_after = 1_000
    await settler.flush()
    assert len({event.request_id for event in book.events}) == len(book.events) == 12
    assert meters.meter(event.customer_id, event.period_start).unwritten == 0


async def test_many_events_do_not_wait_for_the_time_to_be_up(
    monkeypatch, small_settler, book, new_event
):
    monkeypatch.setattr(settling, "MANY_PENDING", 2)
    settler, _ = small_settler
    book.leaves_after = 1_000
    settler.settle(new_event())
    await asyncio.sleep(0.02)
    assert book.events == []
    settler.settle(new_event())
    async with asyncio.timeout(10):
        while len(book.events) < 2:  # noqa: ASYNC110 - the flusher tells nobody
            await asyncio.sleep(0.005)


@pytest.mark.interpreted
async def test_without_disk_and_database_counting_says_that_it_is_full(
    monkeypatch, small_settler, book, new_event
):
    def no_space(*_arguments):
        raise OSError(28, "No space left on device")

    settler, _ = small_settler
    monkeypatch.setattr(spool.Spool, "append", no_space)
    for number in range(3):
        assert settler.is_full is (number >= 3)
        settler.settle(new_event())
    assert settler.is_full
    book.leaves_after = 1_000
    await settler.flush()
    assert not settler.is_full
    assert len(book.events) == 3


@pytest.mark.interpreted
async def test_what_an_earlier_process_left_never_keeps_counting_waiting(
    holder, tmp_path, monkeypatch
):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "_keep", full)
    monkeypatch.setattr(settling, "BATCH_SECONDS", 0)
    dead = tmp_path / "spool" / "dead"
    dead.mkdir()
    (dead / "00000001-1.jsonl").write_bytes(b'{"request_id":"re')  # what a full disk tears
    heir = Proxy()
    await heir.start()
    assert heir._running is not None  # noqa: SLF001 - its flusher shall do it by itself
    settler = heir._running.settler  # noqa: SLF001
    async with session_scope() as session:
        start = (await session.exec(select(UsageMonthly.period_start))).one()
    settler.settle(event_of(holder, start))
    for _ in range(500):
        async with session_scope() as session:
            if (await session.exec(select(UsageMonthly.tokens_used))).one():
                break
        await asyncio.sleep(0.01)
    await heir.stop()
    async with session_scope() as session:
        assert (await session.exec(select(UsageMonthly.tokens_used))).one() == 120
    assert dead.exists()


async def test_a_segment_that_the_disk_does_not_give_stops_no_other(
    small_settler, book, new_event, monkeypatch
):
    settler, meters = small_settler
    real, events = spool.read, [new_event() for _ in range(11)]

    def read(segment):
        if segment.name.startswith("00000001-"):
            raise OSError(5, "Input/output error")
        return real(segment)

    for event in events:
        settler.settle(event)
    book.leaves_after = 1_000
    with monkeypatch.context() as disk:
        disk.setattr(spool, "read", read)
        await settler.flush()
        await settler.flush()
    meter = meters.meter(events[0].customer_id, events[0].period_start)
    assert (len(book.events), meter.unwritten) == (7, 120 * 4)
    await settler.flush()
    assert len({event.request_id for event in book.events}) == len(book.events) == 11
    assert meter.unwritten == 0


async def test_a_segment_that_cannot_be_deleted_counts_once(
    small_settler, book, new_event, monkeypatch
):
    def read_only(*_arguments, **_named):
        raise OSError(30, "Read-only file system")

    settler, meters = small_settler
    for _ in range(11):
        settler.settle(event := new_event())
    book.leaves_after = 1_000
    with monkeypatch.context() as disk:
        disk.setattr("pathlib.Path.unlink", read_only)
        await settler.flush()
        settler.settle(new_event())
        await settler.flush()
    await settler.flush()
    assert len({event.request_id for event in book.events}) == len(book.events) == 12
    assert meters.meter(event.customer_id, event.period_start).unwritten == 0


async def test_what_waits_for_the_database_is_soon_safe_from_a_power_cut(
    monkeypatch, small_settler, book, new_event
):
    settler, _ = small_settler
    real, loop, secured = spool.secure, asyncio.get_running_loop(), asyncio.Queue()

    def secure(segments):
        real(segments)
        loop.call_soon_threadsafe(secured.put_nowait, [len(spool.read(one)) for one in segments])

    monkeypatch.setattr(settling, "SECURE_SECONDS", 0.01)
    monkeypatch.setattr(spool, "secure", secure)
    for expected in ([1], [2], [3], [4], [4, 1], [2]):
        settler.settle(new_event())
        while (found := await secured.get()) != expected:
            assert len(found) <= len(expected)
    book.leaves_after = 1_000
    await settler.flush()


def test_a_segment_that_is_in_the_ledger_meanwhile_keeps_no_other_from_being_secured(
    monkeypatch, tmp_path
):
    secured, real = [], os.fsync

    def fsync(descriptor):
        secured.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    still_there = tmp_path / "1.jsonl"
    still_there.write_bytes(b"{}\n")
    spool.secure([tmp_path / "gone.jsonl", still_there])
    assert secured == [still_there.stat().st_ino, tmp_path.stat().st_ino]
