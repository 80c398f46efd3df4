"""The spool keeps every event through crashes, full disks and releases."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from sqlmodel import col, select

from openclaw_web.core.database import session_scope
from openclaw_web.jobs.models import Alert
from openclaw_web.metering import replaying, spool, tasks
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.models import UsageEvent

# As the first release wrote it; a later one may add fields with defaults, and never needs more.
FIRST_RELEASE = (
    b'{"request_id":"req_1","customer_id":"6b0d5a0e-9d0c-4f2e-8f6d-0c2f8a4f1b11",'
    b'"box_id":"0f0f8a4f-9d0c-4f2e-8f6d-0c2f8a4f1b12","period_start":"2026-11-01T00:00:00Z",'
    b'"timestamp":"2026-11-02T03:04:05.678901Z","model":"k2p5","prompt_tokens":900,'
    b'"completion_tokens":30}'
)


def an_event(**fields) -> Event:
    usual: dict[str, Any] = {
        "request_id": f"req_{uuid4()}",
        "customer_id": uuid4(),
        "box_id": uuid4(),
        "period_start": datetime(2026, 11, 1, tzinfo=UTC),
        "timestamp": datetime(2026, 11, 2, tzinfo=UTC),
        "model": "k2p5",
        "prompt_tokens": 100,
        "completion_tokens": 20,
    }
    return Event(**usual | fields)


def dead_folder(root: Path, *lines: bytes, segment="00000001-1000.jsonl") -> Path:
    folder = root / uuid4().hex
    folder.mkdir(parents=True)
    (folder / segment).write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


def line(event: Event) -> bytes:
    return msgspec.json.encode(event)


async def alerts():
    async with session_scope() as session:
        found = await session.exec(select(Alert).where(col(Alert.resolved_at).is_(None)))
        return {alert.code for alert in found}


def test_a_line_of_the_first_release_and_one_of_a_later_one_can_be_read(tmp_path):
    later = FIRST_RELEASE[:-1] + b',"colour":"green","late":[1,2]}'
    folder = dead_folder(tmp_path, FIRST_RELEASE, later)
    first, second = spool.read(next(folder.glob("*.jsonl")))
    assert first == second
    assert (first.total_tokens, first.outcome, first.generation) == (930, "complete", None)
    assert spool.torn_files(tmp_path) == []


def test_torn_lines_are_kept_aside_once(tmp_path):
    event = an_event()
    folder = dead_folder(tmp_path, line(event), line(event)[:40], b"\x00\xff nonsense", line(event))
    segment = next(folder.glob("*.jsonl"))
    as_it_was = segment.read_bytes()
    for _ in range(2):
        assert spool.read(segment) == [event, event]
        spool.finish(segment)
        assert not segment.exists()
        segment.write_bytes(as_it_was)  # as if the first heir had died before deleting it
    (kept,) = spool.torn_files(tmp_path)
    assert kept.read_bytes() == line(event)[:40] + b"\n\x00\xff nonsense\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    with spool.leftovers(tmp_path) as segments:  # what is kept is nobody's spool
        assert len(segments) == 1


def test_a_full_disk_tears_one_line_and_no_other(tmp_path, monkeypatch):
    mine, real = spool.Spool(tmp_path), os.write
    events = [an_event() for _ in range(4)]
    mine.append(events[0])
    monkeypatch.setattr(os, "write", lambda to, text: real(to, text[:30]))
    with pytest.raises(OSError, match="space") as refused:
        mine.append(events[1])
    assert refused.value.errno == errno.ENOSPC
    monkeypatch.setattr(os, "write", real)
    mine.append(events[2])
    mine.append(events[3])
    (segment,) = mine.turn()
    assert spool.read(segment) == [events[0], events[2], events[3]]
    segment.unlink()
    mine.close()


def test_the_oldest_event_is_as_old_as_its_segment(tmp_path):
    assert spool.oldest_seconds(tmp_path / "nowhere") == 0
    mine = spool.Spool(tmp_path)
    assert spool.oldest_seconds(tmp_path) == 0
    mine.append(an_event())
    assert 0 <= spool.oldest_seconds(tmp_path) < 30
    dead_folder(tmp_path, line(an_event()), segment="00000001-1000.jsonl")
    assert spool.oldest_seconds(tmp_path) > 1_000_000
    mine.close()


async def test_two_heirs_at_once_write_a_dead_proxys_events_once(tmp_path, redis, event_of, settle):
    assert redis
    events = [event_of() for _ in range(6)]
    folders = [dead_folder(tmp_path, *map(line, events[i : i + 2])) for i in (0, 2, 4)]
    living = spool.Spool(tmp_path)
    living.append(event_of())
    with spool.leftovers(tmp_path):  # another heir has them
        assert (await replaying.replay(tmp_path)).customers == set()
    assert (await replaying.replay(tmp_path)).customers == {events[0].customer_id}
    assert not any(folder.exists() for folder in folders)
    await settle(*events)
    async with session_scope() as session:
        assert len((await session.exec(select(UsageEvent))).all()) == 6
    for segment in living.turn():
        segment.unlink()
    living.close()


async def test_the_worker_replays_and_says_what_it_cannot_read(tmp_path, redis, event_of):
    assert redis
    dead_folder(tmp_path, line(event_of()), b"half a li")
    await tasks.replay_spool(tmp_path)
    assert await alerts() == {replaying.TORN}
    spool.torn_files(tmp_path)[0].unlink()
    await tasks.replay_spool(tmp_path)
    assert await alerts() == set()


async def test_what_one_machine_tells_of_its_spool_another_leaves_alone(
    tmp_path, redis, event_of, monkeypatch
):
    """In a cluster every proxy's spool has the same path, on a volume of its own."""
    assert redis

    def be(name):
        monkeypatch.setattr(replaying.socket, "gethostname", lambda: name)

    monkeypatch.setattr(replaying, "LEAST_ROOM_BYTES", 1 << 60)
    be("proxy-0")
    dead_folder(tmp_path, line(event_of()), b"half a li")
    await tasks.replay_spool(tmp_path)
    (torn,) = spool.torn_files(tmp_path)
    kept = torn.read_bytes()
    torn.unlink()
    monkeypatch.setattr(replaying, "LEAST_ROOM_BYTES", 0)
    be("proxy-1")
    await tasks.replay_spool(tmp_path)
    assert await alerts() == {replaying.TORN, replaying.FULL}
    be("proxy-0")
    torn.write_bytes(kept)
    await tasks.replay_spool(tmp_path)
    assert await alerts() == {replaying.TORN}
    torn.unlink()
    await tasks.replay_spool(tmp_path)
    assert await alerts() == set()


@pytest.mark.interpreted
async def test_a_full_disk_keeps_torn_lines_waiting_and_no_event(
    tmp_path, redis, event_of, monkeypatch
):
    assert redis

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    events = [event_of() for _ in range(3)]
    torn = dead_folder(tmp_path, line(events[0]), b"half a li")
    gone = dead_folder(tmp_path, line(events[1]))
    fine = dead_folder(tmp_path, line(events[2]))
    real = Path.read_bytes

    def read_bytes(path):
        return full() if path.parent == gone else real(path)

    with monkeypatch.context() as disk:
        disk.setattr(spool, "_keep", full)
        disk.setattr(Path, "read_bytes", read_bytes)
        for _ in range(2):
            await tasks.replay_spool(tmp_path)
        assert replaying.STUCK in await alerts()
        async with session_scope() as session:
            written = {event.timestamp for event in (await session.exec(select(UsageEvent))).all()}
        assert written == {events[0].timestamp, events[2].timestamp}
        assert (torn.exists(), gone.exists(), fine.exists()) == (True, True, False)
    await tasks.replay_spool(tmp_path)
    assert not torn.exists()
    assert not gone.exists()
    assert await alerts() == {replaying.TORN}


async def test_a_spool_that_waits_and_a_full_disk_are_told(tmp_path, session, monkeypatch):
    monkeypatch.setattr(replaying, "LEAST_ROOM_BYTES", 1 << 60)
    dead_folder(tmp_path, line(an_event()))
    await replaying.watch(session, tmp_path)
    await session.commit()
    assert await alerts() == {replaying.WAITS, replaying.FULL}


async def test_without_a_spool_there_is_nothing_to_tell(tmp_path, session):
    assert (await replaying.replay(tmp_path / "nowhere")).customers == set()
    await replaying.watch(session, tmp_path / "nowhere")
    await session.commit()
    assert await alerts() == set()
