"""Real workers, real signals, a real PostgreSQL that restarts: every box ends where it belongs."""

import asyncio
import contextlib
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.migrations import ensure_database, migrate
from openclaw_web.core.settings import settings
from openclaw_web.integrations import redis as redis_client
from openclaw_web.jobs.models import JobStatus, OperatorJob
from openclaw_web.local import children, places, ports, postgres
from openclaw_web.local.postgres import Postgres
from tests.chaos import stories
from tests.chaos.hands import Hands, Twins, looking_for_twins
from tests.contracts.simulator_process import ROOT, Simulator, clean_environment
from tests.flows.box_world import IMAGE, BoxWorld, box_world, eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("redis")]
LONGEST_SECONDS = 240
STOPPED_SECONDS = 90
CALL_SECONDS = 0.5  # how long each call of the cluster takes, so that jobs are met in their midst
DATABASE = "chaos"
RUNNING = {"pods": [("Running", True, False)], "live tokens": 1}
STOPPED = {"pods": [], "live tokens": 0}
ENDS = {
    "provision": RUNNING,
    "update": RUNNING,
    "restart": RUNNING,
    "resize": RUNNING,
    "reactivate": RUNNING,
    "suspend": STOPPED,
    "destroy": STOPPED,
}
ALWAYS = {
    "pods are as the deployment says": True,
    "the pod's token lives": True,
    "the secret has the pod's token": True,
    "unended jobs": [],
}


@dataclass
class Reality:
    """A cluster, a database, and workers that can be stopped, killed and started."""

    world: BoxWorld
    simulator: Simulator
    twins: Twins
    environment: dict[str, str]
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self) -> subprocess.Popen[bytes]:
        home = self.folder / f"worker-{len(self.workers)}"
        home.mkdir()
        command = [sys.executable, "-m", "openclaw_web", "worker"]
        environment = clean_environment(**self.environment, OPENCLAW_CLOUD_HOME=str(home))
        with (home / "log").open("wb") as log:
            worker = subprocess.Popen(  # noqa: S603 - our own program
                command, cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.workers.append(worker)
        return worker

    async def ask_for_everything(self) -> dict[str, Hands]:
        """Bring a box to the beginning of each story, and ask for all of the jobs at once."""
        found = {}
        for name in ENDS:
            box = await self.world.new_box()
            found[name] = Hands(self.world.cluster, self.folder, box, [])
            await stories.STORIES[name].prepare(found[name], box)
        await self.slow_down()
        for name, hands in found.items():
            await stories.STORIES[name].ask(hands, hands.box)
        return found

    async def slow_down(self) -> None:
        fault = {"delay_seconds": CALL_SECONDS, "times": 0}
        answer = await asyncio.to_thread(self.simulator.http.post, "/_control/faults", json=fault)
        answer.raise_for_status()

    async def is_at_work(self) -> bool:
        """Say whether some jobs have come some way, and others run too."""
        running = [job for job in await all_jobs() if job.status is JobStatus.RUNNING]
        return len(running) > 1 and any(len(job.progress) > 1 for job in running)

    async def is_done(self) -> bool:
        busy = {JobStatus.QUEUED, JobStatus.RUNNING}
        return not any(job.status in busy for job in await all_jobs())

    async def check(self, found: dict[str, Hands]) -> None:
        await eventually(self.is_done, seconds=LONGEST_SECONDS, pause=0.5)
        outcomes = {name: await hands.outcome() for name, hands in found.items()}
        for name, outcome in outcomes.items():
            wanted = {**ALWAYS, **ENDS[name]}
            assert {key: outcome[key] for key in wanted} == wanted, (name, outcome)
        assert self.twins.seen == set()

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


async def all_jobs() -> list[OperatorJob]:
    async with session_scope() as session:
        return list((await session.exec(select(OperatorJob))).all())


class RestartingPostgres:
    """A PostgreSQL of this test's own, which can go away and come back."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(places.PASSABLE)
        self._folder = folder
        self.server = Postgres(
            folder=folder / "postgres",
            port=ports.free_port(),
            password=secrets.token_hex(16),
            identity=places.unprivileged_identity(),
            is_durable=False,
        )
        postgres.prepare(self.server)
        self.start()

    def start(self) -> None:
        log = self._folder / "postgres.log"
        self._child = children.start(postgres.command(self.server), log=log)
        postgres.wait_until_ready(self.server)

    def stop(self) -> None:
        self._child.end(10)


@pytest.fixture
def own_postgres(passable_path) -> Generator[RestartingPostgres]:
    made = RestartingPostgres(passable_path)
    try:
        yield made
    finally:
        made.stop()


@contextlib.asynccontextmanager
async def reality_of(
    made: tuple[Simulator, Path], folder: Path, monkeypatch: Any, **urls: str
) -> AsyncGenerator[Reality]:
    simulator, kubeconfig = made
    simulator.http.delete("/_control/faults").raise_for_status()
    environment = {
        "SECRET_KEY": settings().secret_key,
        "KUBECONFIG": str(kubeconfig),
        "BOX_IMAGE": IMAGE,
        "BOX_PROXY_URL": "http://127.0.0.1:3000/proxy/v1",
        "TELEGRAM_API_URL": "http://127.0.0.1:3001",
        **urls,
    }
    async with (
        box_world(kubeconfig, folder, monkeypatch) as world,
        looking_for_twins(world.cluster) as twins,
    ):
        reality = Reality(world, simulator, twins, environment, folder)
        try:
            yield reality
        finally:
            reality.end()
            simulator.http.delete("/_control/faults").raise_for_status()


@pytest.fixture
async def reality(cluster_and_config, tmp_path, monkeypatch, database, valkey_server):
    urls = {"DATABASE_URL": database, "REDIS_URL": valkey_server.url}
    async with reality_of(cluster_and_config, tmp_path, monkeypatch, **urls) as made:
        yield made


async def test_a_worker_that_stands_still_for_90_seconds_changes_nothing(reality):
    found = await reality.ask_for_everything()
    sleeper = reality.start_worker()
    await eventually(reality.is_at_work, seconds=60)
    sleeper.send_signal(signal.SIGSTOP)
    held = [job for job in await all_jobs() if job.status is JobStatus.RUNNING]
    assert held
    reality.start_worker()
    await asyncio.sleep(STOPPED_SECONDS)  # the one thing that cannot be moved: a process' own time
    sleeper.send_signal(signal.SIGCONT)
    await reality.check(found)
    taken = {job.id: job for job in await all_jobs()}
    assert all(taken[job.id].attempt > job.attempt for job in held)
    assert sleeper.poll() is None


@pytest.mark.parametrize("pause", [0.0, 1.0, 2.5, 4.0])
async def test_a_killed_workers_jobs_are_done_by_another(reality, pause):
    found = await reality.ask_for_everything()
    victim = reality.start_worker()
    await eventually(reality.is_at_work, seconds=60)
    await asyncio.sleep(pause)
    victim.kill()
    victim.wait()
    async with session_scope() as session:
        await session.exec(
            sa.update(OperatorJob)
            .where(col(OperatorJob.status) == JobStatus.RUNNING)
            .values(lease_until=sa.func.clock_timestamp())
        )
    reality.start_worker()
    await reality.check(found)


async def test_a_restart_of_postgresql_loses_no_job(
    own_postgres, cluster_and_config, tmp_path, monkeypatch, valkey_server
):
    url = own_postgres.server.url(DATABASE)
    await asyncio.to_thread(migrations_of, url)
    open_database(url)
    urls = {"DATABASE_URL": url, "REDIS_URL": valkey_server.url}
    try:
        async with reality_of(cluster_and_config, tmp_path, monkeypatch, **urls) as reality:
            found = await reality.ask_for_everything()
            worker = reality.start_worker()
            await eventually(reality.is_at_work, seconds=60)
            own_postgres.stop()
            await asyncio.sleep(3)
            own_postgres.start()
            await redis_client.client().flushall()
            await reality.check(found)
            assert worker.poll() is None
    finally:
        await close_database()


def migrations_of(url: str) -> None:
    ensure_database(url)
    migrate(url)
