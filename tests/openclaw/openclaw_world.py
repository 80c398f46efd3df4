"""A cluster whose boxes run the real OpenClaw, with Telegram, a model and our proxy beside it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvicorn
from sqlmodel import col, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from openclaw_web.billing.models import Subscription, Tier
from openclaw_web.boxes import manifests
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import carrying
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.gateway import memory
from openclaw_web.gateway.calls import Receive, Scope, Send
from openclaw_web.gateway.front import Proxy
from openclaw_web.integrations import cluster as adapter
from openclaw_web.jobs.models import JobType
from openclaw_web.local import box_images
from openclaw_web.local.places import Places, unprivileged_identity
from openclaw_web.local.real_openclaw import Installed
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.worker import Worker
from tests.contracts.simulator_process import Simulator, running, secret_file
from tests.factories import make_period, make_subscription
from tests.flows.box_world import BoxWorld, eventually

OWNER, SECOND, STRANGER = 111222333, 444555666, 999888777
ANSWER_SECONDS = 240  # a cold OpenClaw's first answer took 5 to 70 s on two very busy cores
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


def places_of_install(folder: Path, home: Path | None = None) -> Places:
    """Return places whose OpenClaw is in this folder."""
    return Places(home=home or folder, outside=folder.parent, identity=unprivileged_identity())


class QuietServer(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncGenerator[str]:
    config = uvicorn.Config(app, port=0, lifespan="off", ws="none", log_config=None)
    server = QuietServer(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def inside(proxy: Proxy) -> Any:
    """Return what answers at the address that boxes and keepers call."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (memory.memory if memory.is_ours(scope) else proxy)(scope, receive, send)

    return serve


@dataclass
class Upstream:
    """Stands between our proxy and the model, and keeps what arrives there."""

    target: str
    http: httpx.AsyncClient
    asked: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.forward, methods=["GET", "POST"])])

    async def forward(self, request: Request) -> StreamingResponse:
        body = await request.body()
        if body:
            self.asked.append(json.loads(body))
        headers = {k: v for k, v in request.headers.items() if k not in HOP_BY_HOP}
        url = f"{self.target}/{request.path_params['path']}"
        asked = self.http.build_request(request.method, url, content=body, headers=headers)
        answer = await self.http.send(asked, stream=True)
        kept = {k: v for k, v in answer.headers.items() if k not in HOP_BY_HOP}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept)


@dataclass
class RealWorld(BoxWorld):
    """The world of the stories about boxes, with people who write on Telegram."""

    telegram: Simulator
    kimi: Simulator
    upstream: Upstream
    proxy: Proxy
    folder: Path
    username: str = ""

    async def new_real_box(
        self, *, username: str = "real_box_bot", tier: Tier = Tier.TEAM, **fields: Any
    ) -> Box:
        self.username = username
        made = self.telegram.http.post(
            "/_control/bots", json={"name": "Box", "username": username}
        ).json()
        async with session_scope() as session:
            subscription = await make_subscription(session, tier=tier)
            await make_period(session, subscription=subscription)
            fields.setdefault("telegram_user_ids", (OWNER,))
            bot = Bot(token=made["token"], bot_id=made["id"], username=made["username"])
            box = await boxes.create_box(
                session,
                customer_id=subscription.customer_id,
                subscription_id=subscription.id,
                settings=BoxSettings(**fields),
                bot=bot,
            )
        await self.do(box, JobType.PROVISION)
        box = await self.read(box.id)
        assert box.status is BoxStatus.ACTIVE, "it did not start in time: is the machine busy?"
        return box

    async def act(self, request: Callable[..., Awaitable[Any]], box: Box, *more: Any) -> Box:
        """Do what a customer asks for, and every job that follows from it."""
        async with session_scope() as session:
            await request(session, box, *more, requested_by="test")
        while await self.work():
            pass
        return await self.read(box.id)

    def answers_next(self, *texts: str, **more: Any) -> None:
        """Queue what the model says next."""
        self.queue(*({"text": text, **more} for text in texts))

    def queue(self, *answers: dict[str, Any]) -> None:
        said = self.kimi.http.post("/_control/answers", json={"answers": list(answers)})
        assert said.is_success, said.text

    def chat(self, person: int) -> list[str]:
        """Return what the bot said to this person."""
        found = self.telegram.http.get(
            "/_control/messages", params={"person": person, "bot": self.username}
        ).json()
        return [one["text"] for one in found if one["from"] == "bot"]

    def write(self, person: int, text: str) -> None:
        said = self.telegram.http.post(
            "/_control/messages", json={"from": person, "bot": self.username, "text": text}
        )
        assert said.is_success, said.text

    async def ask(self, person: int, text: str) -> str:
        """Write to the bot and return the answer to it."""
        before = len(self.chat(person))
        self.write(person, text)

        async def answer() -> list[str]:
            return self.chat(person)[before:]

        return "\n".join(await eventually(answer, seconds=ANSWER_SECONDS, pause=0.1))

    async def hear(self, person: int, text: str, *, after: str) -> None:
        """Write to the bot and wait for this answer; it may say that it works on it before."""
        self.write(person, after)

        async def is_said() -> bool:
            return text in self.chat(person)

        await eventually(is_said, seconds=ANSWER_SECONDS, pause=0.1)

    def gateway(self) -> psutil.Process:
        """Return the process of the one OpenClaw that runs here."""
        ours = psutil.Process(self.cluster_pid).children(recursive=True)
        (found,) = [one for one in ours if one.name().startswith("openclaw")]
        return found

    def log(self) -> str:
        """Return what the OpenClaws here have written."""
        found = self.folder.glob("cluster/state/pods/*/logs/openclaw.*.log")
        return "".join(one.read_text(errors="replace") for one in found)

    def resident_megabytes(self) -> int:
        """Return what the kubelet measures: everything below its guardian."""
        ours = psutil.Process(self.cluster_pid).children(recursive=True)
        return sum(one.memory_info().rss for one in ours) // 1024**2

    @property
    def cluster_pid(self) -> int:
        return int((self.folder / "cluster.pid").read_text())

    def add_image(self, name: str) -> None:
        """Let the cluster run the same program under another image's name."""
        path = self.folder / "images.json"
        known = json.loads(path.read_text())
        path.write_text(json.dumps({**known, name: known[box_images.BOX_IMAGE]}))

    async def change_tier(self, box: Box, tier: Tier) -> None:
        async with session_scope() as session:
            found = await session.get_one(Subscription, box.subscription_id)
            found.tier = tier
            session.add(found)

    async def image_and_memory(self, box: Box) -> tuple[str, str]:
        """Return what the cluster says of the box's container: its image and its limit."""
        path = adapter.KINDS["Deployment"].path(box.k8s_namespace, manifests.NAME)
        found = await self.cluster._call("GET", path)  # noqa: SLF001 - the product never reads it
        (container,) = found["spec"]["template"]["spec"]["containers"]
        return container["image"], container["resources"]["limits"]["memory"]

    async def change_limit(self, box: Box, tokens_limit: int) -> None:
        """Give the customer's period and subscription another limit, as a change of plan does."""
        async with session_scope() as session:
            found = await session.exec(
                select(Subscription).where(col(Subscription.customer_id) == box.customer_id)
            )
            subscription = found.one()
            subscription.tokens_limit = tokens_limit
            session.add(subscription)
            periods = await session.exec(
                select(UsageMonthly).where(col(UsageMonthly.customer_id) == box.customer_id)
            )
            period = periods.one()
            period.tokens_limit = tokens_limit
            session.add(period)


@contextlib.asynccontextmanager
async def real_world(
    installed: Installed, folder: Path, monkeypatch: Any
) -> AsyncGenerator[RealWorld]:
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_context
        key = secret_file(folder / "kimi-key", "sk-of-a-test")
        kimi = enter(running("kimi", folder / "kimi", "--key-file", str(key)))
        telegram = enter(running("telegram", folder / "telegram"))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=60))
        upstream = Upstream(kimi.url, http)
        upstream_url = await stack.enter_async_context(served(upstream.app()))
        monkeypatch.setenv("UPSTREAM_URL", f"{upstream_url}/coding/v1")
        monkeypatch.setenv("KIMI_API_KEY", key.read_text())
        monkeypatch.setenv("TELEGRAM_API_URL", telegram.url)
        monkeypatch.setenv("BOX_IMAGE", box_images.BOX_IMAGE)
        places = places_of_install(installed.folder, folder)
        monkeypatch.setenv("BOX_DENIED_TOOLS", box_images.denied_tools(places))
        monkeypatch.setenv("KEEPER_IMAGE", box_images.KEEPER_IMAGE)
        monkeypatch.setenv("BACKUP_URL", f"file://{folder}/backups")
        for cached in (settings, carrying.store):
            cached.cache_clear()
            stack.callback(cached.cache_clear)
        proxy = Proxy()
        await proxy.start()
        stack.push_async_callback(proxy.stop)
        proxy_url = await stack.enter_async_context(served(inside(proxy)))
        monkeypatch.setenv("BOX_PROXY_URL", f"{proxy_url}/proxy/v1")
        settings.cache_clear()
        cluster = enter(running("kubernetes", folder / "cluster", *_options(places)))
        (folder / "cluster.pid").write_text(str(cluster.process.pid))
        opened = await adapter.connect(str(folder / "kubeconfig"))
        stack.push_async_callback(opened.close)
        worker = Worker(cluster=opened, cluster_name="default", home=folder)
        yield RealWorld(opened, worker, telegram, kimi, upstream, proxy, folder)


def _options(places: Places) -> list[str]:
    words = ["--images", str(box_images.write(places))]
    words += ["--kubeconfig", str(places.home / "kubeconfig")]
    words += ["--volumes", str(places.home / "volumes")]
    return words + (["--run-as", str(places.identity)] if places.identity else [])
