"""Every token is counted once: after a crash, without a database, and when the client leaves."""

import asyncio
import json
import logging
import signal
import sys
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select

from openclaw_web.boxes import proving, troubles
from openclaw_web.boxes.models import Box
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import read_switch
from openclaw_web.gateway import settling
from openclaw_web.gateway.front import Proxy
from openclaw_web.metering import spool
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.models import TokenKind, UsageEvent, UsageMonthly
from tests.gateway.conftest import WAYS
from tests.gateway.upstream_server import (
    ANTHROPIC_STREAM,
    DONE,
    USAGE,
    USAGE_CHUNK,
    chunk,
    completion,
    stream,
    whole,
)

CANARY = "the-canary-sings-4711"
LEAVE_A_SPOOL = """
import os, signal, sys
from pathlib import Path
import msgspec
from openclaw_web.metering import spool
from openclaw_web.metering.ledger import Event
mine = spool.Spool(Path(sys.argv[1]))
for line in sys.stdin.buffer.read().splitlines():
    mine.append(msgspec.json.decode(line, type=Event))
    mine.append(msgspec.json.decode(line, type=Event))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=WAYS[1:])
def way(request):
    return request.param


async def settled(holder, ledger, count=1):
    """Wait for what a detached task still reads."""
    for _ in range(200):
        if len(found := await ledger(holder)) >= count:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was counted")


async def test_a_client_that_leaves_midway_pays_what_the_provider_counts(holder, upstream, ledger):
    go_on = asyncio.Event()
    upstream.will(stream(chunk("a"), chunk("b"), USAGE_CHUNK, DONE, before=go_on))
    body = {"model": "k2p5", "messages": [], "stream": True}
    async with holder.client.stream("POST", "/chat/completions", json=body) as response:
        await anext(response.aiter_raw())
    go_on.set()
    ((event, meta),) = await settled(holder, ledger)
    assert (event.total_tokens, meta.estimated) == (120, False)


async def test_a_client_that_leaves_when_the_provider_dies_pays_an_estimate(
    holder, upstream, ledger
):
    go_on = asyncio.Event()
    upstream.will(stream(chunk("a"), chunk("b"), before=go_on, cut=True))
    body = {"model": "k2p5", "messages": [], "stream": True}
    async with holder.client.stream("POST", "/chat/completions", json=body) as response:
        await anext(response.aiter_raw())
    go_on.set()
    ((event, meta),) = await settled(holder, ledger)
    assert meta.estimated
    assert event.completion_tokens >= 1
    assert meta.outcome in {"abandoned", "cut"}


async def test_a_flush_tells_pages_and_the_box(holder, redis, session, proxy):
    async with redis.pubsub(ignore_subscribe_messages=True) as listening:
        await listening.subscribe("changes")
        await holder.client.post(
            "/chat/completions",
            json={"model": "k2p5", "messages": []},
            headers={"X-OpenClaw-Generation": "1"},
        )
        await proxy.flush()
        message = None
        while message is None:
            message = await listening.get_message(timeout=5)
    assert message["data"] == str(holder.customer_id)
    box = await session.get(Box, holder.box_id)
    await session.refresh(box)
    assert box.first_answer_at is not None
    assert box.observed_generation == 1


async def test_a_customers_program_proves_nothing_of_the_box(make_holder, session, proxy):
    program = await make_holder(kind=TokenKind.API, box={"api_access": True})
    answer = await program.client.post(
        "/chat/completions",
        json={"model": "k2p5", "messages": []},
        headers={"X-OpenClaw-Generation": "1"},
    )
    assert answer.status_code == 200
    await proxy.flush()
    box = await session.get_one(Box, program.box_id, populate_existing=True)
    assert (box.first_answer_at, box.agent_ok_at, box.observed_generation) == (None, None, 0)


async def test_a_locked_box_is_noted_later_and_holds_up_no_counting(
    holder, make_holder, session, proxy
):
    other = await make_holder()
    await holder.chat()
    await other.chat()
    async with session_scope() as working:
        await working.get_one(Box, holder.box_id, with_for_update={"key_share": True})
        await proxy._running.settler._flush()  # noqa: SLF001 - what the flusher itself does
        assert len(await counted(holder, other)) == 2
    await proxy.flush()
    for one in (holder, other):
        box = await session.get_one(Box, one.box_id, populate_existing=True)
        assert box.first_answer_at is not None


async def counted(*holders):
    async with session_scope() as session:
        ids = [one.customer_id for one in holders]
        found = await session.exec(select(UsageEvent).where(col(UsageEvent.customer_id).in_(ids)))
        return found.all()


async def test_a_refused_request_is_no_sign_of_life(holder, upstream, session, proxy):
    upstream.will(whole({"error": {}}, status=500))
    await holder.chat()
    await proxy.flush()
    box = await session.get(Box, holder.box_id)
    assert box.first_answer_at is None


async def test_a_call_in_vain_is_noted_until_the_next_one_is_answered(
    holder, upstream, session, proxy
):
    upstream.will(whole({"error": {}}, status=500))
    await holder.chat()
    await proxy.flush()
    box = await session.get_one(Box, holder.box_id)
    assert proving.FAILED_AT in box.health
    await holder.chat()
    await proxy.flush()
    await session.refresh(box)
    assert proving.FAILED_AT not in box.health
    assert list((await read_switch(session, troubles.ANSWERED)).keys()) == ["127.0.0.1"]


async def test_what_is_wrong_with_a_request_or_a_program_is_no_trouble_of_the_box(
    holder, make_holder, upstream, session, proxy
):
    program = await make_holder(kind=TokenKind.API, box={"api_access": True})
    for caller, status in ((holder, 400), (program, 500)):
        upstream.will(whole({"error": {}}, status=status))
        await caller.chat()
    await proxy.flush()
    for caller in (holder, program):
        box = await session.get_one(Box, caller.box_id)
        assert proving.FAILED_AT not in box.health


async def test_without_a_database_events_wait(holder, ledger, proxy, monkeypatch):
    real = settling.session_scope

    def broken():
        raise OperationalError("INSERT", {}, ConnectionError("no database"))

    monkeypatch.setattr(settling, "session_scope", broken)
    for _ in range(3):
        assert (await holder.chat()).status_code == 200
    with pytest.raises(OperationalError):
        await proxy.flush()
    monkeypatch.setattr(settling, "session_scope", real)
    assert len(await ledger(holder)) == 3


def event_of(holder, period_start) -> Event:
    return Event(
        request_id=f"req_{uuid4()}",
        customer_id=holder.customer_id,
        box_id=holder.box_id,
        period_start=period_start,
        timestamp=datetime.now(UTC),
        model="kimi-for-coding",
        prompt_tokens=100,
        completion_tokens=20,
    )


async def test_what_a_killed_proxy_left_is_counted_once_at_the_next_start(
    holder, ledger, tmp_path, session
):
    start = (await session.exec(select(UsageMonthly.period_start))).one()
    events = [event_of(holder, start) for _ in range(5)]
    root = tmp_path / "spool"
    dead = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEAVE_A_SPOOL, str(root), stdin=asyncio.subprocess.PIPE
    )
    await dead.communicate(b"\n".join(msgspec.json.encode(event) for event in events))
    assert dead.returncode == -signal.SIGKILL
    (left,) = [folder for folder in root.iterdir() if list(folder.glob("*.jsonl"))]
    copy = next(left.glob("*.jsonl")).read_bytes()
    for _ in range(2):
        heir = Proxy()
        await heir.start()
        for _ in range(500):
            if not left.exists():
                break
            await asyncio.sleep(0.01)
        await heir.stop()
        assert len(await ledger(holder)) == 5
        left.mkdir()
        (left / "00000001.jsonl").write_bytes(copy)  # as if the first heir had died too


async def test_a_living_proxys_spool_is_left_alone(tmp_path, holder):
    living = spool.Spool(tmp_path / "other")
    living.append(event_of(holder, datetime.now(UTC)))
    with spool.leftovers(tmp_path / "other") as segments:
        assert segments == []
    living.close()
    with spool.leftovers(tmp_path / "other") as segments:
        assert len(segments) == 1


async def test_a_torn_line_is_left_out(tmp_path, holder):
    event = event_of(holder, datetime.now(UTC))
    segment = tmp_path / "1.jsonl"
    line = msgspec.json.encode(event)
    segment.write_bytes(line + b"\n" + line[:50])
    assert spool.read(segment) == [event]


async def test_stopping_writes_what_is_settled(holder, upstream, proxy, tmp_path):
    upstream.will(whole(completion(usage=USAGE)))
    await holder.chat()
    await proxy.stop()
    async with session_scope() as session:
        used = (await session.exec(select(UsageMonthly.tokens_used))).one()
    assert used == 120
    assert list((tmp_path / "spool").iterdir()) == []


async def everything_in_the_database() -> bytes:
    async with session_scope() as session:
        connection = await session.connection()
        tables = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
        rows = [
            dict(row)
            for table in tables
            for row in (
                await connection.execute(sa.select(sa.text("*")).select_from(sa.table(table)))
            ).mappings()
        ]
    return json.dumps(rows, default=str).encode()


async def test_no_prompt_and_no_answer_is_kept_anywhere(holder, upstream, ledger, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    upstream.will(
        whole(completion(CANARY)),
        stream(chunk(CANARY), USAGE_CHUNK, DONE),
        stream(chunk(CANARY), cut=True),
        whole({"error": {"message": CANARY}}, status=500),
        whole(CANARY.encode()),
    )
    for number in range(5):
        await holder.chat(messages=[{"content": CANARY}], stream=number in {1, 2})
    await holder.client.post("/chat/completions", content=CANARY.encode())
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(await ledger(holder)) == 5
    kept += await everything_in_the_database()
    assert CANARY.encode() not in kept
    assert holder.clear.encode() not in kept
    ours = [record for record in caplog.records if record.name.startswith("openclaw_web")]
    assert CANARY not in "".join(record.getMessage() + str(record.exc_text) for record in ours)


async def test_a_client_that_left_frees_its_place_at_once(holder, upstream, ledger):
    go_on = asyncio.Event()
    upstream.will(*[stream(chunk("a"), USAGE_CHUNK + DONE, before=go_on)] * 4)
    body = {"model": "k2p5", "messages": [], "stream": True}
    for _ in range(4):
        async with holder.client.stream("POST", "/chat/completions", json=body) as response:
            if response.status_code == 200:
                await anext(response.aiter_raw())
        await asyncio.sleep(0.05)  # the server sees the closed socket
    assert len(upstream.seen) == 4
    go_on.set()
    assert len(await settled(holder, ledger, 4)) == 4


async def test_an_anthropic_stream_that_is_cut_is_estimated(holder, upstream, ledger):
    upstream.will(stream(*ANTHROPIC_STREAM[:2], cut=True))
    response = await holder.message(stream=True)
    assert b"event: error" in response.content
    ((event, meta),) = await ledger(holder)
    assert (event.prompt_tokens, meta.estimated) == (100, True)
    assert event.completion_tokens >= 1  # one piece of text came
