"""A proxy of our own before a provider that does what the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import httpx
import pytest
import uvicorn
from sqlmodel import col, select

from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.gateway.connection import DirectProtocol
from openclaw_web.gateway.front import Proxy
from openclaw_web.gateway.patience import Patience
from openclaw_web.metering import line, queries, sharing
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind, UsageEvent, UsageEventMeta, UsageMonthly
from tests.factories import make_box, make_period, make_subscription
from tests.gateway.upstream_server import ScriptedUpstream, serving

UPSTREAM_KEY = "sk-the-providers-own-key"


class QuietServer(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with serving() as server:
        yield server


@pytest.fixture
def proxy_settings(monkeypatch, tmp_path, upstream):
    monkeypatch.setenv("UPSTREAM_URL", upstream.url)
    monkeypatch.setenv("KIMI_API_KEY", UPSTREAM_KEY)
    monkeypatch.setenv("OPENCLAW_CLOUD_HOME", str(tmp_path))
    monkeypatch.setattr(line, "REDIS_SECONDS", 20.0)  # a busy machine is no lost Redis
    monkeypatch.setattr(sharing, "RECONNECT_SECONDS", 0.0)  # and a fresh one needs no patience
    settings.cache_clear()
    yield settings()
    settings.cache_clear()


WAYS = ("asgi", "waiting", "direct")
CONNECTIONS = 4


@pytest.fixture
def way() -> str:
    """Return which way through the code completions take; a module may have a fixture with WAYS.

    "direct" is what uvicorn and a kept connection to the provider make possible, "waiting" is what
    happens without such a connection, and "asgi" what happens under any other server.
    """
    return "direct"


@pytest.fixture
async def proxy(database, redis, proxy_settings, way) -> AsyncIterator[Proxy]:
    assert database
    assert redis
    assert proxy_settings
    made = Proxy()
    await made.start()
    if way == "direct":
        await keep_connections(made, CONNECTIONS)
    yield made
    await made.stop()


@pytest.fixture
def impatient(proxy: Proxy) -> Patience:
    """Let the proxy lose patience with its clients at each look."""
    assert proxy._running is not None  # noqa: SLF001 - a test sets the scene
    patience = proxy._running.patience  # noqa: SLF001
    patience._seconds = -1.0  # noqa: SLF001
    return patience


async def keep_connections(proxy: Proxy, count: int) -> None:
    """Let the pools have connections already, as they do after the first requests."""
    running = proxy._running  # noqa: SLF001 - a test sets the scene, which nobody else needs to
    assert running is not None
    for provider in running.providers._providers:  # noqa: SLF001
        for pool in provider.pools.values():
            made = [await pool._connect() for _ in range(count)]  # noqa: SLF001
            for connection in made:
                pool.release(connection)


@pytest.fixture
def ws() -> str:
    """Return which library for websockets the server has, if any."""
    return "none"


@pytest.fixture
async def base_url(proxy, way, ws) -> AsyncIterator[str]:
    config = uvicorn.Config(
        proxy,
        port=0,
        http="httptools" if way == "asgi" else partial(DirectProtocol, proxy),  # ty: ignore[invalid-argument-type]
        lifespan="off",
        ws=ws,
        proxy_headers=False,
        log_config=None,
    )
    server = QuietServer(config)
    serving_task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/proxy/v1"
    server.should_exit = True
    await serving_task


@dataclass
class Holder:
    """A customer with a box, a period and a token, and a client that uses it."""

    customer_id: UUID
    box_id: UUID
    token_id: UUID
    clear: str = field(repr=False)
    client: httpx.AsyncClient

    async def chat(self, **fields) -> httpx.Response:
        body = {"model": "kimi-coding/k2p5", "messages": [{"role": "user", "content": "hi"}]}
        return await self.client.post("/chat/completions", json=body | fields)

    async def message(self, **fields) -> httpx.Response:
        body = {"model": "k2p5", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
        return await self.client.post("/messages", json=body | fields)


@pytest.fixture
async def make_holder(session, base_url):
    """Return a function that makes a holder; what it is given goes to the rows."""
    async with contextlib.AsyncExitStack() as clients:

        async def make(
            *,
            subscription=None,
            box=None,
            period=None,
            kind=TokenKind.BOX,
            is_unthrottled=False,
            expires_at=None,
        ) -> Holder:
            owner = await make_subscription(session, **(subscription or {}))
            home = await make_box(session, subscription=owner, **(box or {}))
            if period is not False:
                await make_period(session, subscription=owner, **(period or {}))
            issued = await metering.issue_token(
                session,
                customer_id=owner.customer_id,
                box_id=home.id,
                kind=kind,
                is_unthrottled=is_unthrottled,
                expires_at=expires_at,
            )
            await session.commit()
            client = await clients.enter_async_context(
                httpx.AsyncClient(
                    base_url=base_url,
                    headers={"authorization": f"Bearer {issued.clear}"},
                    trust_env=False,
                )
            )
            return Holder(owner.customer_id, home.id, issued.token_id, issued.clear, client)

        yield make


@pytest.fixture
async def holder(make_holder) -> Holder:
    return await make_holder()


@pytest.fixture
def ledger(proxy):
    """Return a function that writes what is settled and returns the events with their details."""

    async def read(holder: Holder) -> list[tuple[UsageEvent, UsageEventMeta]]:
        await proxy.flush()
        async with session_scope() as session:
            rows = await session.exec(
                select(UsageEvent, UsageEventMeta)
                .where(UsageEvent.id == UsageEventMeta.event_id)
                .where(UsageEvent.customer_id == holder.customer_id)
                .order_by(col(UsageEvent.id))
            )
            found = list(rows)
            for period in await session.exec(
                select(UsageMonthly).where(UsageMonthly.customer_id == holder.customer_id)
            ):
                sums = await queries.usage_sums(session, holder.customer_id, period)
                assert not found or len(set(sums)) == 1, sums
            return found

    return read
