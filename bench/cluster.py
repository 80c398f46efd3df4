"""`python -m bench.cluster --boxes 5000`: one worker and a whole cluster of boxes.

The cluster is the simulator, its pods are records; PostgreSQL is durable, as in production, and the
worker is the real process. Most boxes are there already, the last `--provisions` are paid for while
it runs. Each figure stands against its goal; the run ends red when one is missed.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg

from bench import cluster_boxes, machine
from bench.checks import Outcome
from bench.cluster_boxes import Made
from bench.stack import Server, Stack, stack
from openclaw_web import tables
from openclaw_web.boxes import drift, manifests, stray_tokens, sweeping
from openclaw_web.core import database
from openclaw_web.core.settings import settings
from openclaw_web.integrations import cluster as adapter
from openclaw_web.integrations import redis
from openclaw_web.integrations.cluster import KINDS, Cluster
from openclaw_web.integrations.cluster_objects import pod_view
from tests.contracts.simulator_process import Simulator, running

SWEEP_GOAL_SECONDS = 60.0
STATUS_GOAL_SECONDS = 2.0
PROVISIONS_GOAL = 5.0  # a second
MEMORY_GOAL_MB = 500.0
EVENTS, BURST, EDITED = 40, 100, 20
STEP_SECONDS, PATIENCE_SECONDS = 0.01, 900.0
MEMORY_STEP_SECONDS = 0.5
NAME = "default"
PROXY_URL = "http://127.0.0.1:3000/proxy/v1"  # nobody calls it
_READY = "SELECT count(*) FROM boxes WHERE health->'pod'->>'is_ready' = 'true'"
_NOTED = """
SELECT count(*) FROM boxes
WHERE k8s_namespace = ANY(%s) AND health->'pod'->>'is_ready' = %s
"""
_ARRIVED = "SELECT count(*) FROM boxes WHERE id = ANY(%s) AND status = 'active'"


@dataclass(kw_only=True)
class Run:
    """What every phase needs."""

    opened: Stack
    simulator: Simulator
    cluster: Cluster
    outcome: Outcome
    connection: psycopg.AsyncConnection[Any]
    peak_mb: float = 0.0
    boxes: list[Made] = field(default_factory=list)

    async def count(self, statement: LiteralString, *values: object) -> int:
        row = await (await self.connection.execute(statement, values)).fetchone()
        return row[0] if row else 0

    async def until(self, wanted: int, statement: LiteralString, *values: object) -> float:
        """Return how long it took until the database says so.

        Raises:
            TimeoutError: it never did.
        """
        begun = time.monotonic()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.count(statement, *values) < wanted:  # noqa: ASYNC110 - others write it
                await asyncio.sleep(STEP_SECONDS)
        return time.monotonic() - begun

    async def put(self, namespace: str, state: str) -> None:
        body = {"namespace": namespace, "state": state}
        answer = await asyncio.to_thread(self.simulator.http.post, "/_control/records", json=body)
        answer.raise_for_status()

    def note(self, name: str, figure: object) -> None:
        self.outcome.figures[name] = figure
        print(f"  {name}: {figure}", flush=True)


def main() -> int:
    chosen = _parser().parse_args()
    outcome = Outcome("cluster" if chosen.boxes >= 5_000 else "cluster-part")  # noqa: PLR2004
    machine.hurry(chosen.nice)
    with stack() as opened, _cluster(opened) as (simulator, kubeconfig):
        os.environ.update(opened.environment(KUBECONFIG=str(kubeconfig), BOX_PROXY_URL=PROXY_URL))
        asyncio.run(_prove(opened, simulator, chosen, outcome))
    print(f"  written: {outcome.write()}")
    print(f"{'PASS' if outcome.holds else 'FAIL'}  {outcome.name}")
    return 0 if outcome.holds else 1


@contextlib.contextmanager
def _cluster(opened: Stack) -> Generator[tuple[Simulator, Path]]:
    folder = opened.folder / "cluster"
    folder.mkdir()
    (folder / "images.json").write_text("{}", encoding="utf-8")
    kubeconfig = folder / "config"
    arguments = ("--images", str(folder / "images.json"), "--kubeconfig", str(kubeconfig))
    with running("kubernetes", folder, *arguments) as simulator:
        simulator.http.patch("/_control/settings", json={"records": True}).raise_for_status()
        yield simulator, kubeconfig


async def _prove(
    opened: Stack, simulator: Simulator, chosen: argparse.Namespace, outcome: Outcome
) -> None:
    async with _opened(opened, simulator, outcome) as run:
        begun = time.monotonic()
        run.boxes = await cluster_boxes.live_boxes(run.cluster, chosen.boxes - chosen.provisions)
        run.note("boxes made in advance", f"{time.monotonic() - begun:.0f} s")
        await _wait_for_pods(run)
        worker = opened.start_worker(WORKER_JOBS=str(chosen.jobs))
        watching = asyncio.create_task(_watch_memory(run, worker))
        try:
            first = await run.until(len(run.boxes), _READY)
            run.note("from the worker's start until every box's pod is noted", f"{first:.1f} s")
            await _events(run)
            await _provisions(run, chosen.provisions)
            await _sweeps(run)
        finally:
            watching.cancel()
        run.note("the cluster's own memory", f"{simulator.rss_megabytes():.0f} MB")
        outcome.check(
            f"the worker needs less than {MEMORY_GOAL_MB:.0f} MB",
            holds=0 < run.peak_mb < MEMORY_GOAL_MB,
            found=f"{run.peak_mb:.0f} MB at most",
        )


@contextlib.asynccontextmanager
async def _opened(opened: Stack, simulator: Simulator, outcome: Outcome) -> AsyncGenerator[Run]:
    tables.resolve()
    database.open_database(opened.database_url)
    redis.open_redis(settings().redis_url)
    cluster = await adapter.connect(settings().kubeconfig)
    connection = await psycopg.AsyncConnection.connect(opened.database_url, autocommit=True)
    try:
        yield Run(
            opened=opened,
            simulator=simulator,
            cluster=cluster,
            outcome=outcome,
            connection=connection,
        )
    finally:
        await connection.close()
        await cluster.close()
        await redis.close_redis()
        await database.close_database()


async def _wait_for_pods(run: Run) -> None:
    """Let the cluster catch up: its own controllers are not what is measured."""
    begun = time.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            pods = [one async for page in run.cluster.pages("Pod") for one in page]
            if sum(pod_view(one).is_ready for one in pods) >= len(run.boxes):
                break
            await asyncio.sleep(1)
    run.note("until the cluster had all pods ready", f"{time.monotonic() - begun:.0f} s")


async def _events(run: Run) -> None:
    """See how long a pod's change takes to be in the database: one by one, then many at once."""
    names = [one.box.k8s_namespace for one in run.boxes]
    taken = []
    for name in names[:EVENTS]:
        begun = time.monotonic()
        await run.put(name, "Unready")
        await run.until(1, _NOTED, [name], "false")
        taken.append(time.monotonic() - begun)
        await run.put(name, "Running")
    await run.until(EVENTS, _NOTED, names[:EVENTS], "true")
    run.note("status noted, median", f"{statistics.median(taken) * 1000:.0f} ms")
    run.outcome.check(
        f"a pod's change is in the database within {STATUS_GOAL_SECONDS:.0f} s",
        holds=max(taken) < STATUS_GOAL_SECONDS,
        found=f"{max(taken):.2f} s at most, of {len(taken)}",
    )
    many = names[-BURST:]
    begun = time.monotonic()
    await asyncio.gather(*(run.put(name, "Unready") for name in many))
    sent = time.monotonic() - begun
    left = await run.until(len(many), _NOTED, many, "false")
    await asyncio.gather(*(run.put(name, "Running") for name in many))
    await run.until(len(many), _NOTED, many, "true")
    run.outcome.check(
        f"and so are {len(many)} at once, {STATUS_GOAL_SECONDS:.0f} s after the last",
        holds=left < STATUS_GOAL_SECONDS,
        found=f"{left:.2f} s, after {sent:.2f} s of events",
    )


async def _provisions(run: Run, count: int) -> None:
    """See how many new boxes a second one worker brings up beside all the others."""
    servers = {
        "worker": run.opened.servers["worker"].processes(),
        "PostgreSQL": run.opened.servers["postgres"].processes(),
        "the cluster": [psutil.Process(run.simulator.process.pid)],
    }
    before = {name: machine.cpu_seconds(found) for name, found in servers.items()}
    asked = await cluster_boxes.ask_for_boxes(count)
    already = await run.count(_ARRIVED, asked)
    taken = await run.until(count, _ARRIVED, asked)
    rate = (count - already) / taken if taken else 0.0
    for name, found in servers.items():
        used = (machine.cpu_seconds(found) - before[name]) / count * 1000
        run.note(f"processor time of a provision, {name}", f"{used:.0f} ms")
    run.note("provisions", f"{count - already} in {taken:.1f} s, {already} while they were asked")
    run.outcome.check(
        f"one worker brings up {PROVISIONS_GOAL:.0f} boxes a second",
        holds=rate >= PROVISIONS_GOAL,
        found=f"{rate:.1f} a second",
    )


async def _sweeps(run: Run) -> None:
    """Compare everything with everything, with some objects deleted by hand."""
    begun = time.monotonic()
    await sweeping.sweep(run.cluster, NAME)
    run.note("the minute's sweep", f"{time.monotonic() - begun:.2f} s")
    begun = time.monotonic()
    checked = await stray_tokens.check_tokens(run.cluster, NAME)
    run.note("the tokens' check", f"{time.monotonic() - begun:.2f} s, {checked}")
    for one in run.boxes[:EDITED]:
        path = KINDS["NetworkPolicy"].path(one.box.k8s_namespace, manifests.NAME)
        await asyncio.to_thread(_delete, run.simulator, path)
    begun = time.monotonic()
    found = await drift.find_drift(run.cluster, NAME)
    taken = time.monotonic() - begun
    wanted = {one.box.id for one in run.boxes[:EDITED]}
    run.outcome.check(
        f"a full drift sweep takes less than {SWEEP_GOAL_SECONDS:.0f} s",
        holds=taken < SWEEP_GOAL_SECONDS,
        found=f"{taken:.1f} s for {found.checked} boxes",
    )
    run.outcome.check(
        "it finds exactly what was deleted by hand",
        holds=set(found.found) == wanted,
        found=f"{len(found.found)} of {len(wanted)}",
    )


def _delete(simulator: Simulator, path: str) -> None:
    bearer = {"authorization": f"Bearer {simulator.http.headers['x-simulator-token']}"}
    simulator.http.delete(path, headers=bearer).raise_for_status()


async def _watch_memory(run: Run, worker: Server) -> None:
    while True:
        with contextlib.suppress(psutil.Error, IndexError):
            process = worker.process
            run.peak_mb = max(run.peak_mb, process.memory_info().rss / machine.MIB)
        await asyncio.sleep(MEMORY_STEP_SECONDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=500, help="how many live boxes in the end")
    parser.add_argument("--provisions", type=int, default=300, help="how many of them are new")
    parser.add_argument("--jobs", type=int, default=16, help="on how many the worker works at once")
    parser.add_argument("--nice", type=int, default=0, help="go before other work, such as -10")
    return parser


if __name__ == "__main__":
    sys.exit(main())
