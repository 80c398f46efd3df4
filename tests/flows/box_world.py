"""A cluster with a tiny assistant in it, and the worker's hands, for the stories about boxes."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from openclaw_web.accounts.models import Customer
from openclaw_web.boxes import queries, rendering
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import Box
from openclaw_web.boxes.openclaw_config import PUT_USER_FILE
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.integrations import cluster as adapter
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.jobs import leases
from openclaw_web.jobs import queries as job_queries
from openclaw_web.jobs.models import JobType
from openclaw_web.worker import Worker
from tests.contracts.simulator_process import running
from tests.factories import make_subscription

IMAGE = "test/assistant:1"
# Answers OpenClaw's health paths, writes one memory, and never becomes ready with the level `max`.
ASSISTANT = """
import http.server, json, os, pathlib
config = json.loads(pathlib.Path(os.environ["OPENCLAW_CONFIG_PATH"]).read_text())
memory = pathlib.Path(os.environ["OPENCLAW_STATE_DIR"]) / "memory"
memory.write_text(memory.read_text() + "x" if memory.exists() else "x")
is_ready = config["agents"]["defaults"]["thinkingDefault"] != "max"
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = self.path in ("/startupz", "/healthz") or (self.path == "/readyz" and is_ready)
        self.send_response(200 if ok else 503)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
place = (os.environ["POD_IP"], int(os.environ["PORT_18789"]))
http.server.ThreadingHTTPServer(place, Health).serve_forever()
"""


@contextlib.contextmanager
def cluster_process(folder: Path) -> Generator[Path]:
    """Run the cluster simulator and return its kubeconfig."""
    script, images = folder / "assistant.py", folder / "images.json"
    script.write_text(ASSISTANT, encoding="utf-8")
    command = [sys.executable, "-I", "-S", str(script)]
    image = {"command": command, "also": [list(PUT_USER_FILE)]}
    images.write_text(json.dumps({IMAGE: image}), encoding="utf-8")
    kubeconfig = folder / "kubeconfig"
    arguments = ("--images", str(images), "--kubeconfig", str(kubeconfig))
    with running("kubernetes", folder / "cluster", *arguments):
        yield kubeconfig


@dataclass
class BoxWorld:
    """One cluster, one worker that does one job when asked."""

    cluster: Cluster
    worker: Worker

    async def new_box(self, *, customer: Customer | None = None, **fields: Any) -> Box:
        async with session_scope() as session:
            subscription = await make_subscription(session, customer=customer)
            number = subscription.id.int % 1_000_000_000
            fields.setdefault("telegram_user_ids", (111222333,))
            fields.setdefault("model", "kimi-coding/k2p5")
            return await boxes.create_box(
                session,
                customer_id=subscription.customer_id,
                subscription_id=subscription.id,
                settings=BoxSettings(**fields),
                bot=Bot(
                    token=f"{number}:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr",
                    bot_id=number,
                    username="a_test_bot",
                ),
            )

    async def live_box(self) -> Box:
        box = await self.new_box()
        await self.do(box, JobType.PROVISION)
        return await self.read(box.id)

    async def request(self, box: Box, job_type: JobType) -> UUID:
        async with session_scope() as session:
            box = await queries.get_any_box(session, box.id, lock=True)
            job = await boxes.request_converge(session, box, job_type=job_type, requested_by="test")
        return job.id

    async def do(self, box: Box, job_type: JobType) -> None:
        """Queue a job and do it to its end."""
        await self.request(box, job_type)
        await self.work()

    async def work(self) -> bool:
        """Do one due job, and say whether there was one."""
        async with session_scope() as session:
            claimed = await leases.claim_job(session, owner=self.worker.owner)
        if claimed is not None:
            await self.worker.work(claimed)
        return claimed is not None

    async def read(self, box_id: UUID) -> Box:
        async with session_scope() as session:
            return await queries.get_any_box(session, box_id)

    async def view(self, box: Box) -> queries.BoxView:
        async with session_scope() as session:
            found = await queries.box_status_view(session, box.customer_id)
        assert found is not None
        return found

    async def jobs_of(self, box: Box) -> list[Any]:
        async with session_scope() as session:
            return list(await job_queries.jobs_of_customer(session, box.customer_id))

    async def pod_name(self, box: Box) -> str:
        (pod,) = await self.cluster.pods(box.k8s_namespace)
        return pod.name


@contextlib.asynccontextmanager
async def box_world(kubeconfig: Path, home: Path, monkeypatch: Any) -> AsyncGenerator[BoxWorld]:
    chosen = replace(
        settings(),
        box_image=IMAGE,
        box_proxy_url="http://127.0.0.1:3000/proxy/v1",
        telegram_api_url="http://127.0.0.1:3001",
    )
    monkeypatch.setattr(rendering, "settings", lambda: chosen)
    monkeypatch.setattr(boxes, "COALESCE", timedelta())  # a changed setting is due at once
    opened = await adapter.connect(str(kubeconfig))
    try:
        yield BoxWorld(opened, Worker(cluster=opened, cluster_name="default", home=home))
    finally:
        await opened.close()


async def eventually(
    look: Callable[[], Awaitable[Any]], *, seconds: float = 20, pause: float = 0.05
) -> Any:
    """Return the first true answer; looks again until the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := await look()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(pause)
    return answer
