"""`python -m openclaw_web proxy`: the same proxy without pages, in a process of its own."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from sqlmodel import select

from openclaw_web.cli import main
from openclaw_web.local import ports
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import UsageEvent, UsageEventMeta, UsageMonthly
from tests.factories import make_box, make_subscription
from tests.gateway.upstream_server import DONE, USAGE_CHUNK, chunk, stream

PROJECT = Path(__file__).parents[2]


@pytest.fixture(params=[(), ("--workers", "2")], ids=["one", "two"])
async def alone(request, database, valkey_server, proxy_settings, tmp_path):
    arguments = request.param
    port = ports.free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": database,
        "REDIS_URL": valkey_server.url,
        "PORT": str(port),
        "UPSTREAM_URL": proxy_settings.upstream_url,
    }
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openclaw_web", "proxy", *arguments),
            env=environment,
            cwd=PROJECT,
            stderr=log,
        )
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/proxy/v1", trust_env=False
    ) as client:
        for _ in range(400):
            with contextlib.suppress(httpx.TransportError):
                await client.get(f"http://127.0.0.1:{port}/healthz")
                break
            assert process.returncode is None, (tmp_path / "log").read_text()
            await asyncio.sleep(0.05)
        yield process, client
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_it_serves_counts_and_ends_without_losing_anything(
    alone, session, upstream, tmp_path
):
    process, client = alone
    box = await make_box(session, subscription=await make_subscription(session))
    issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
    await session.commit()
    upstream.will(stream(chunk("a"), USAGE_CHUNK, DONE))
    response = await client.post(
        "/chat/completions",
        json={"model": "k2p5", "messages": [], "stream": True},
        headers={"authorization": f"Bearer {issued.clear}"},
    )
    assert (response.status_code, response.content) == (200, chunk("a") + DONE)
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), 20)
    (period,) = await session.exec(select(UsageMonthly))
    assert period.tokens_used == 120, (tmp_path / "log").read_text()
    assert list((tmp_path / "spool").iterdir()) == []
    assert issued.clear not in (tmp_path / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("alone", [()], indirect=True)
async def test_a_process_with_an_endless_stream_ends_in_time_and_has_counted_it(
    alone, session, upstream
):
    process, client = alone
    box = await make_box(session, subscription=await make_subscription(session))
    issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
    await session.commit()

    async def trickle(_, writer):
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        part = chunk("word")
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
                await asyncio.sleep(0.2)

    async def read():
        got = b""
        async with client.stream(
            "POST",
            "/chat/completions",
            json={"model": "k2p5", "messages": [], "stream": True},
            headers={"authorization": f"Bearer {issued.clear}"},
            timeout=None,
        ) as response:
            async for part in response.aiter_raw():
                got += part
        return got

    upstream.will(trickle)
    reading = asyncio.create_task(read())
    await upstream.until_seen(1)
    await asyncio.sleep(0.5)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), 30)  # then Kubernetes kills
    assert time.monotonic() - asked < 28
    assert b"being restarted" in await reading
    (event,) = await session.exec(select(UsageEvent))
    (meta,) = await session.exec(select(UsageEventMeta))
    assert meta.estimated
    assert event.completion_tokens > 20


@pytest.mark.parametrize("alone", [("--workers", "2")], indirect=True)
async def test_workers_end_with_a_parent_that_was_killed(alone):
    process, client = alone
    parent = psutil.Process(process.pid)
    children = parent.children(recursive=True)
    assert len(children) >= 2
    process.kill()
    await process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
    assert alive == []
    with pytest.raises(httpx.TransportError):
        await client.get("/models")


def test_a_senseless_number_of_workers_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["proxy", "--workers", "0"])
    assert "a number from 1 to" in capsys.readouterr().err
