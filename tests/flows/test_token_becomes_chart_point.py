"""A token becomes a chart point: a box asks, the model answers, the dashboard shows it."""

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from openclaw_web.core.settings import settings
from openclaw_web.gateway.front import Proxy
from openclaw_web.local import ports
from openclaw_web.metering import queries
from openclaw_web.metering import service as metering
from tests.factories import make_box, make_period, make_subscription

PROJECT = Path(__file__).parents[2]


class QuietServer(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@pytest.fixture
async def kimi(tmp_path) -> AsyncIterator[tuple[str, str, str]]:
    """Run the simulator and return its address, the API key and the control token."""
    port, key, token = ports.free_port(), secrets.token_hex(16), secrets.token_hex(16)
    for name, value in (("key", key), ("token", token)):
        (tmp_path / name).write_text(value)
        (tmp_path / name).chmod(0o600)
    url = f"http://127.0.0.1:{port}"
    options = {
        "port": str(port),
        "state": str(tmp_path / "kimi"),
        "public-url": url,
        "token-file": str(tmp_path / "token"),
        "key-file": str(tmp_path / "key"),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators.kimi", *words, cwd=PROJECT
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(300):
                with contextlib.suppress(httpx.TransportError):
                    await client.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"})
                    break
                await asyncio.sleep(0.05)
        yield url, key, token
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def proxy_url(database, redis, kimi, monkeypatch, tmp_path) -> AsyncIterator[str]:
    assert database
    assert redis
    url, key, _ = kimi
    monkeypatch.setenv("UPSTREAM_URL", f"{url}/coding/v1")
    monkeypatch.setenv("KIMI_API_KEY", key)
    monkeypatch.setenv("OPENCLAW_CLOUD_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    proxy = Proxy()
    await proxy.start()
    server = QuietServer(uvicorn.Config(proxy, port=0, lifespan="off", ws="none", log_config=None))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task
    await proxy.stop()
    settings.cache_clear()


async def test_a_token_becomes_a_chart_point(session, proxy_url, kimi):
    subscription = await make_subscription(session)
    box = await make_box(session, subscription=subscription)
    period = await make_period(session, subscription=subscription)
    issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
    await session.commit()
    url, _, token = kimi
    answer = {"text": "Hello there", "prompt_tokens": 900, "completion_tokens": 30}
    async with httpx.AsyncClient(trust_env=False) as client:
        queued = await client.post(
            f"{url}/_control/answers",
            json={"answers": [answer | {"cached_tokens": 800}] * 4},
            headers={"x-simulator-token": token},
        )
        assert queued.is_success, queued.text
        asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
        for path, model, is_stream in (
            ("/proxy/v1/chat/completions", "kimi-coding/k2p5", True),
            ("/proxy/v1/chat/completions", "kimi-for-coding", False),
            ("/proxy/v1/messages", "k2p5", True),
            ("/proxy/v1/messages", "k2p5", False),
        ):
            response = await client.post(
                f"{proxy_url}{path}",
                json=asked | {"model": model, "stream": is_stream},
                headers={"authorization": f"Bearer {issued.clear}"},
            )
            assert response.status_code == 200, response.text
            assert "Hello" in response.text
    usage = await shown(session, box.customer_id, requests=4)
    assert usage == (4, 3600, 3200, 120)
    current = await queries.current_usage(session, box.customer_id)
    assert current is not None
    assert (current.used, current.percent) == (3720, 0.0)
    assert await queries.usage_sums(session, box.customer_id, period) == (3720, 3720, 3720)
    events = await queries.recent_events(session, box.customer_id, limit=10)
    assert [event.outcome for event in events] == ["complete"] * 4
    assert not any(event.estimated for event in events)
    assert json.dumps([event.request_id for event in events]).count("req_") == 4


async def shown(session, customer_id, *, requests):
    """Wait for the flusher, which is never more than a moment behind."""
    for _ in range(100):
        days = await queries.daily_usage(session, customer_id, days=1)
        if sum(day.requests for day in days) == requests:
            break
        await session.commit()
        await asyncio.sleep(0.05)
    (day,) = days
    return day.requests, day.prompt_tokens, day.cached_tokens, day.completion_tokens
