"""A keeper's token lives with its Job: nobody who comes late touches another attempt's."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from openclaw_web.boxes.memory import keeper_job, keeper_run
from openclaw_web.boxes.memory.addresses import Ticket, Way
from openclaw_web.boxes.models import Box
from openclaw_web.boxes.runs import Run
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.integrations.cluster import KINDS, Cluster
from openclaw_web.integrations.cluster_objects import ObjectView
from openclaw_web.jobs import leases
from openclaw_web.jobs.leases import LeaseLostError
from openclaw_web.jobs.models import JobType, OperatorJob
from tests.chaos.records import cluster_of_records
from tests.contracts.simulator_process import Simulator
from tests.flows.box_world import IMAGE, BoxWorld, box_world, eventually

pytestmark = pytest.mark.usefixtures("database", "redis")
HELD_BACK = "CreateContainerConfigError"


@dataclass
class KeeperWorld:
    """Boxes whose pods are records: a keeper ends when it is told to."""

    boxes: BoxWorld
    simulator: Simulator

    @property
    def cluster(self) -> Cluster:
        return self.boxes.cluster

    async def stopped_box(self) -> tuple[Box, Run]:
        """Return a box whose pod is away, and the attempt that sees to that."""
        box = await self.boxes.live_box()
        await self.boxes.request(box, JobType.UPDATE)
        async with session_scope() as session:
            claimed = await leases.claim_job(session, owner="older")
        assert claimed is not None
        run = Run(cluster=self.cluster, job=claimed.job, fence=claimed.fence)
        await keeper_run.scale_down(run, box)
        return box, run

    async def taken_over(self, run: Run) -> Run:
        """Give the job to somebody else, as it goes when a lease runs out."""
        fence = replace(
            run.fence, owner="newer", attempt=run.fence.attempt + 1, number=run.fence.number + 1
        )
        async with session_scope() as session:
            job = await session.get_one(OperatorJob, run.job.id)
            job.lease_owner, job.attempt = fence.owner, fence.attempt
            session.add(job)
        return replace(run, cluster=self.cluster, fence=fence)

    async def tokens(self, box: Box) -> dict[str, str]:
        """Return the keepers' Secrets: what each holds, by its name."""
        path = KINDS["Secret"].path(box.k8s_namespace)
        found = await self.cluster._call("GET", path)  # noqa: SLF001 - the product never lists them
        return {
            one["metadata"]["name"]: base64.b64decode(one["data"][keeper_job.TOKEN_KEY]).decode()
            for one in found["items"]
            if keeper_job.TOKEN_KEY in one["data"]
        }

    async def jobs(self, box: Box) -> list[str]:
        return [one.name for one in await self.cluster.jobs(box.k8s_namespace)]

    async def end_keeper(self, box: Box) -> None:
        """Let the one pod that there is succeed, once it runs."""

        async def running() -> Any:
            found = await self.cluster.pods(box.k8s_namespace)
            return [pod for pod in found if pod.phase == "Running"]

        (pod,) = await eventually(running)
        body = {"namespace": pod.namespace, "pod": pod.name, "state": "Succeeded"}
        answer = await asyncio.to_thread(self.simulator.http.post, "/_control/records", json=body)
        answer.raise_for_status()

    async def nothing_left(self, box: Box) -> bool:
        return not (await self.tokens(box) or await self.jobs(box))


@dataclass
class Asleep:
    """A cluster for a worker that stands still before its first write of a kind."""

    cluster: Cluster
    kind: str

    def __post_init__(self) -> None:
        self.has_come, self.wakes = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.cluster, name)

    async def apply(self, manifest: dict[str, Any]) -> Any:
        if manifest["kind"] == self.kind:
            self.has_come.set()
            await self.wakes.wait()
        return await self.cluster.apply(manifest)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    with cluster_of_records(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
async def world(records, tmp_path, monkeypatch, database):
    assert database
    simulator, kubeconfig = records
    chosen = replace(settings(), keeper_image=IMAGE, box_proxy_url="http://127.0.0.1:1/proxy/v1")
    monkeypatch.setattr(keeper_run, "settings", lambda: chosen)
    async with box_world(kubeconfig, tmp_path, monkeypatch) as boxes:
        yield KeeperWorld(boxes, simulator)


def ticket(token):
    return Ticket(backup_id=uuid4(), way=Way.SAVE, token=token)


def carrying(run, box, token):
    return asyncio.create_task(keeper_run.carry(run, box, ticket(token), keeper_run.patient()))


def spec_of(box, token):
    return keeper_job.KeeperSpec(
        namespace=box.k8s_namespace,
        box_id=str(box.id),
        image=IMAGE,
        url="http://127.0.0.1:1/",
        ticket=ticket(token),
        fence=1,
    )


@pytest.mark.parametrize(
    ("kind", "ended_by"),
    [
        pytest.param("Job", LeaseLostError, marks=pytest.mark.slow),
        ("Secret", keeper_run.KeeperError),
    ],
)
async def test_a_sleeper_leaves_the_secret_of_a_newer_attempt_alone(world, kind, ended_by):
    box, older = await world.stopped_box()
    asleep = Asleep(world.cluster, kind)
    sleeper = carrying(replace(older, cluster=asleep), box, "old")
    await asleep.has_come.wait()
    newer = await world.taken_over(older)
    await keeper_run.clear(newer, box.k8s_namespace)
    awake = carrying(newer, box, "new")
    before = await eventually(partial(world.tokens, box))
    asleep.wakes.set()
    with pytest.raises(ended_by):
        await sleeper

    async def alone():
        return await world.tokens(box) == before and len(await world.jobs(box)) == 1

    assert list(before.values()) == ["new"]
    await eventually(alone)
    await world.end_keeper(box)
    await awake
    await eventually(partial(world.nothing_left, box))


async def test_a_keeper_that_fails_takes_its_token_along(world, monkeypatch):
    box, run = await world.stopped_box()
    monkeypatch.setattr(keeper_run, "_wait_for", broken)
    with pytest.raises(keeper_run.KeeperError):
        await keeper_run.carry(run, box, ticket("one"), keeper_run.patient())
    await eventually(partial(world.nothing_left, box))


async def broken(*_):
    raise keeper_run.KeeperError("It does not work.")


async def test_what_a_dead_worker_left_waits_for_its_token_and_is_swept_with_it(world):
    box, run = await world.stopped_box()
    spec = spec_of(box, "one")
    made = await world.cluster.apply(keeper_job.job(spec))

    async def held_back():
        return [pod.reason for pod in await world.cluster.pods(box.k8s_namespace)] == [HELD_BACK]

    await eventually(held_back)
    await world.cluster.apply(keeper_job.secret(spec, job_uid=made["metadata"]["uid"]))
    assert await world.tokens(box) == {spec.name: "one"}
    await keeper_run.clear(run, box.k8s_namespace)
    await eventually(partial(world.nothing_left, box))


def former_secret(box, token):
    """Return the Secret of the release in which all attempts shared one."""
    meta = {"name": keeper_job.FORMER_SECRET, "namespace": box.k8s_namespace}
    data = {keeper_job.TOKEN_KEY: token}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}


async def test_the_secret_of_a_former_release_is_swept_unless_it_has_just_been_written(
    world, monkeypatch
):
    box, run = await world.stopped_box()
    await world.cluster.apply(former_secret(box, "former"))

    async def find_older(*_):
        return ObjectView(annotations={}, resource_version="1")

    with monkeypatch.context() as late:
        late.setattr(world.cluster, "find_object", find_older)
        await keeper_run.forget_former_secret(run, box.k8s_namespace)
    assert await world.tokens(box) == {keeper_job.FORMER_SECRET: "former"}
    working = carrying(run, box, "one")
    await world.end_keeper(box)
    await working
    await eventually(partial(world.nothing_left, box))
