"""A box from its first request to its end, in a cluster of its own with a tiny assistant."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.boxes import activating, queries, tasks
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.boxes.sweeping import sweep
from openclaw_web.boxes.watching import Watcher
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster_objects import NamespaceState
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.metering.models import ProxyToken
from openclaw_web.workflows import provisioning
from tests.flows.box_world import box_world, cluster_process, eventually

pytestmark = pytest.mark.usefixtures("database", "redis")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with cluster_process(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, database):
    assert database
    async with box_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


async def live_tokens(box):
    async with session_scope() as session:
        found = await session.exec(
            select(ProxyToken).where(
                ProxyToken.box_id == box.id, col(ProxyToken.revoked_at).is_(None)
            )
        )
        return found.all()


async def test_a_requested_box_answers_and_says_so(world):
    box = await world.new_box()
    await world.do(box, JobType.PROVISION)
    box = await world.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    assert box.activated_at is not None
    assert box.applied_generation == box.generation == 1
    view = await world.view(box)
    assert view.sentence == "Answering on Telegram as @a_test_bot."
    assert [link.is_ok for link in view.links] == [True, True, True, None]
    assert len(await live_tokens(box)) == 1
    (job,) = await world.jobs_of(box)
    assert job.status is JobStatus.COMPLETE
    assert [line["text"] for line in job.progress][-2:] == ["The assistant is ready.", "Done."]


async def test_bringing_a_box_where_it_is_changes_nothing(world):
    box = await world.live_box()
    pod, (token,) = await world.pod_name(box), await live_tokens(box)
    await world.do(box, JobType.UPDATE)
    assert await world.pod_name(box) == pod
    assert [one.id for one in await live_tokens(box)] == [token.id]
    assert (await world.read(box.id)).status is BoxStatus.ACTIVE


async def test_new_settings_make_a_new_pod_with_a_new_token(world):
    box = await world.live_box()
    pod, (token,) = await world.pod_name(box), await live_tokens(box)
    async with session_scope() as session:
        settings = BoxSettings(telegram_user_ids=(111222333,), language="de")
        await boxes.change_settings(session, box, settings, requested_by="customer")
    await world.work()
    box = await world.read(box.id)
    assert (box.status, box.applied_generation) == (BoxStatus.ACTIVE, 2)
    assert await world.pod_name(box) != pod
    (fresh,) = await live_tokens(box)
    assert fresh.id != token.id


async def test_settings_that_do_not_work_are_taken_back(world, monkeypatch):
    box = await world.live_box()
    async with session_scope() as session:
        settings = BoxSettings(telegram_user_ids=(111222333,), thinking_level="max", language="de")
        await boxes.change_settings(session, box, settings, requested_by="customer")
    with monkeypatch.context() as patience:
        patience.setattr(activating, "READY_SECONDS", 1.0)
        await world.work()  # once may be a slow start
        async with session_scope() as session:
            await session.exec(sa.update(OperatorJob).values(run_after=sa.func.now()))
        await world.work()
    assert (await world.read(box.id)).status is BoxStatus.UPDATING
    await world.work()
    box = await world.read(box.id)
    assert (box.status, box.applied_generation) == (BoxStatus.ACTIVE, 1)
    assert "with its former settings" in (await world.view(box)).sentence


async def test_a_paused_box_keeps_its_memory_and_loses_its_token(world):
    box = await world.live_box()
    async with session_scope() as session:
        await boxes.pause(session, box, requested_by="customer")
    await world.work()
    box = await world.read(box.id)
    assert (box.status, box.status_reason) == (BoxStatus.SUSPENDED, "paused")
    assert await world.cluster.pods(box.k8s_namespace) == []
    assert await live_tokens(box) == []
    async with session_scope() as session:
        await boxes.resume(session, box, requested_by="customer")
    await world.work()
    box = await world.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    assert queries.memory_lost_at(box) is None
    assert len(await live_tokens(box)) == 1


async def test_a_destroyed_box_leaves_nothing(world):
    box = await world.live_box()
    await world.do(box, JobType.DESTROY)
    box = await world.read(box.id)
    assert box.status is BoxStatus.DESTROYED
    assert box.destroyed_at is not None
    assert await world.cluster.namespace_state(box.k8s_namespace) is NamespaceState.ABSENT
    assert await live_tokens(box) == []
    async with session_scope() as session:
        assert await queries.find_bot(session, box.id) is None


@contextlib.asynccontextmanager
async def watched(world):
    watcher = Watcher("default", provisioning.box_changed)

    async def follow():
        async with contextlib.aclosing(world.cluster.watch()) as events:
            async for event in events:
                await watcher.take(event)

    following = asyncio.create_task(follow())
    try:
        yield watcher
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_deleted_namespace_is_told_at_once_and_built_again(world):
    box = await world.live_box()

    async def has_status(status):
        return (await world.read(box.id)).status is status

    async with watched(world):
        await asyncio.sleep(0.3)
        await world.cluster.delete_namespace(box.k8s_namespace)
        await eventually(lambda: has_status(BoxStatus.UNHEALTHY), seconds=2)
        assert (await world.view(box)).sentence == (
            "Its namespace was deleted from the cluster; we are building it again."
            " Its memory was lost."
        )
        await world.work()
        assert await has_status(BoxStatus.ACTIVE)
    view = await world.view(box)
    assert "Answering on Telegram" in view.sentence
    assert "Its memory was lost" in view.sentence
    async with session_scope() as session:
        await boxes.dismiss_memory_notice(session, box.customer_id)
    assert "memory" not in (await world.view(box)).sentence


async def test_a_namespace_that_vanished_unseen_is_found_by_the_sweep(world):
    box = await world.live_box()
    await world.cluster.delete_namespace(box.k8s_namespace)

    async def is_gone():
        return await world.cluster.namespace_state(box.k8s_namespace) is NamespaceState.ABSENT

    await eventually(is_gone)
    for _ in range(2):
        await sweep(world.cluster, "default", provisioning.box_changed)
    assert (await world.read(box.id)).status is BoxStatus.UNHEALTHY
    assert len(await world.jobs_of(box)) == 2
    await world.work()
    assert (await world.read(box.id)).status is BoxStatus.ACTIVE


async def test_three_missed_checks_make_a_box_unhealthy_and_one_good_one_heals_it(world):
    box = await world.live_box()
    async with watched(world) as watcher:
        await asyncio.sleep(0.3)
        await world.cluster.scale(box.k8s_namespace, "openclaw", 0)

        async def is_empty():
            return not await world.cluster.pods(box.k8s_namespace)

        await eventually(is_empty)
        await asyncio.sleep(0.3)
        for _ in range(3):
            assert (await world.read(box.id)).status is BoxStatus.ACTIVE
            await watcher.evaluate()
        box = await world.read(box.id)
        assert (box.status, box.status_reason) == (BoxStatus.UNHEALTHY, "no_pod")
        await world.work()
        assert (await world.read(box.id)).status is BoxStatus.ACTIVE


async def test_a_lost_secret_shows_on_the_next_pod_and_is_written_again(world):
    box = await world.live_box()
    before = await world.pod_name(box)
    async with watched(world) as watcher:
        await asyncio.sleep(0.3)
        await world.cluster.delete("Secret", box.k8s_namespace, "openclaw")
        await world.cluster.delete("Pod", box.k8s_namespace, before)

        async def has_another_pod():
            pods = await world.cluster.pods(box.k8s_namespace)
            return len(pods) == 1 and pods[0].name != before

        await eventually(has_another_pod)
        await asyncio.sleep(0.3)
        for _ in range(3):
            await watcher.evaluate()
        assert (await world.read(box.id)).status is BoxStatus.UNHEALTHY
        await world.work()
    assert (await world.read(box.id)).status is BoxStatus.ACTIVE
    assert await world.cluster.find_object("Secret", box.k8s_namespace, "openclaw") is not None


async def test_a_suspend_request_stops_a_running_set_up(world):
    box = await world.new_box(thinking_level="max")
    await world.request(box, JobType.PROVISION)
    working = asyncio.create_task(world.work())

    async def is_waiting():
        lines = [line["text"] for job in await world.jobs_of(box) for line in job.progress]
        return "Waiting for the assistant to be ready." in lines

    await eventually(is_waiting)
    async with session_scope() as session:
        await boxes.pause(session, box, requested_by="customer")
    await working
    await world.work()
    assert (await world.read(box.id)).status is BoxStatus.SUSPENDED


async def test_a_run_that_slept_too_long_writes_nothing(world):
    box = await world.live_box()
    pod = await world.pod_name(box)
    async with session_scope() as session:
        await boxes.request_restart(session, box, requested_by="customer")
    async with session_scope() as session:
        claimed = await leases.claim_job(session, owner="sleeper")
    assert claimed is not None
    old = replace(claimed, fence=replace(claimed.fence, number=1))
    with pytest.raises(leases.LeaseLostError):
        await tasks.converge(world.cluster, old)
    assert await world.pod_name(box) == pod
