"""Our token proxy on a real socket before the Kimi simulator, for the clients that others wrote.

Everything lives as long as its test file; each test has a customer of its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import uvicorn
from sqlmodel import col, select

from openclaw_web.core import database
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.gateway.connection import DirectProtocol
from openclaw_web.gateway.front import Proxy
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind, UsageEvent, UsageEventMeta
from tests.contracts.simulator_process import Simulator, running, secret_file
from tests.factories import make_box, make_period, make_subscription

KIMI_KEY = "sk-kimi-of-a-test"
BIG_LIMIT = 10**9


class QuietServer(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@contextlib.asynccontextmanager
async def served(proxy: Proxy) -> AsyncGenerator[str]:
    """Serve a proxy on a free port of this machine and yield its address."""
    config = uvicorn.Config(
        proxy,
        port=0,
        http=partial(DirectProtocol, proxy),  # ty: ignore[invalid-argument-type]
        lifespan="off",
        ws="none",
        proxy_headers=False,
        log_config=None,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@dataclass
class Gateway:
    """The running proxy and the provider behind it."""

    url: str
    proxy: Proxy
    kimi: Simulator

    def kimi_will(self, **answer: Any) -> None:
        body = {"answers": [answer]}
        self.kimi.http.post("/_control/answers", json=body).raise_for_status()

    def last_asked(self) -> dict[str, Any]:
        """Return what the provider noted of the newest request."""
        return self.kimi.http.get("/_control/requests", params={"last": 1}).json()["requests"][0]

    def times_asked(self) -> int:
        return self.kimi.http.get("/_control/requests").json()["count"]


@dataclass
class Holder:
    """A customer's token and where to use it."""

    gateway: Gateway
    customer_id: UUID
    token: str = field(repr=False)

    @property
    def openai_url(self) -> str:
        """Return what OpenAI's clients take for their base: it ends in /v1."""
        return f"{self.gateway.url}/proxy/v1"

    @property
    def anthropic_url(self) -> str:
        """Return what Anthropic's clients take for theirs: they add /v1 themselves."""
        return f"{self.gateway.url}/proxy"

    async def settled(self) -> list[tuple[UsageEvent, UsageEventMeta]]:
        """Return what was counted, oldest first."""
        await self.gateway.proxy.flush()
        async with session_scope() as session:
            rows = await session.exec(
                select(UsageEvent, UsageEventMeta)
                .where(UsageEvent.id == UsageEventMeta.event_id)
                .where(UsageEvent.customer_id == self.customer_id)
                .order_by(col(UsageEvent.id))
            )
            return list(rows)


@pytest.fixture(scope="module")
def kimi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    folder = tmp_path_factory.mktemp("kimi")
    key_file = secret_file(folder / "key", KIMI_KEY)
    with running("kimi", folder / "run", "--key-file", str(key_file)) as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    kimi: Simulator,
    databases: Any,
    valkey_server: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gateway]:
    database.open_database(databases.take())
    open_redis(valkey_server.url)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UPSTREAM_URL", f"{kimi.url}/coding/v1")
        environment.setenv("KIMI_API_KEY", KIMI_KEY)
        environment.setenv("OPENCLAW_CLOUD_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        proxy = Proxy()
        await proxy.start()
        async with served(proxy) as url:
            yield Gateway(url, proxy, kimi)
        await proxy.stop()
    settings.cache_clear()
    await close_redis()
    await database.close_database()
    databases.give_back()


@pytest.fixture
def empty_kimi(kimi: Simulator) -> None:
    """Forget what an earlier test told the model to answer."""
    kimi.http.delete("/_control/answers")
    kimi.http.delete("/_control/requests")


@pytest.fixture
def make_holder(gateway: Gateway) -> Callable[..., Any]:
    """Return a function that makes a customer with a token; what it is given goes to the rows."""

    async def make(
        *,
        subscription: dict[str, Any] | None = None,
        box: dict[str, Any] | None = None,
        period: dict[str, Any] | None = None,
        kind: TokenKind = TokenKind.API,
        is_unthrottled: bool = True,
    ) -> Holder:
        async with session_scope() as session:
            owner = await make_subscription(session, **(subscription or {}))
            wanted: dict[str, Any] = {"api_access": True, **(box or {})}
            home = await make_box(session, subscription=owner, **wanted)
            limits: dict[str, Any] = {"tokens_limit": BIG_LIMIT, **(period or {})}
            await make_period(session, subscription=owner, **limits)
            issued = await metering.issue_token(
                session,
                customer_id=owner.customer_id,
                box_id=home.id,
                kind=kind,
                is_unthrottled=is_unthrottled,
            )
        return Holder(gateway, owner.customer_id, issued.clear)

    return make


@pytest_asyncio.fixture(loop_scope="module")
async def holder(make_holder: Callable[..., Any]) -> Holder:
    return await make_holder()
