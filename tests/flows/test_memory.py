"""A box's memory: saved when it stops, back when it starts, and never deleted before it is safe."""

import asyncio
import os

import pytest
from sqlmodel import col, select

from openclaw_web.accounts.models import Customer
from openclaw_web.boxes import manifests, queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import addresses, backups, restoring, retaining
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster_objects import NamespaceState
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import Alert, JobType
from tests.flows.box_world import eventually
from tests.flows.memory_world import memory_cluster, memory_world

pytestmark = pytest.mark.usefixtures("database", "redis")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with memory_cluster(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, database):
    assert database
    async with memory_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


async def paused_box(world):
    box = await world.boxes.live_box()
    async with session_scope() as session:
        await boxes.pause(session, box, requested_by="test")
    await world.boxes.work()
    return await world.boxes.read(box.id)


async def act(world, request, *arguments):
    """Do what a customer asks for, and the job that follows from it."""
    async with session_scope() as session:
        await request(session, *arguments, requested_by="test")
    await world.boxes.work()


async def test_a_backup_that_nobody_can_read_brings_the_memory_back(world):
    box = await paused_box(world)
    assert box.status is BoxStatus.SUSPENDED
    (view,) = await world.backups(box)
    assert (view.reason, view.is_usable) == ("suspend", True)
    (stored,) = world.objects()
    assert stored.name == f"{view.id}.sealed"
    assert b"memory" not in stored.read_bytes()
    (world.volume(box) / "memory").write_text("something else", encoding="ascii")
    (world.volume(box) / "new").write_text("since then", encoding="ascii")
    await act(world, backups.request_restore, box, view.id)
    assert world.memory(box) == "something else"  # it is paused: it comes back when it starts
    assert len(await world.backups(box)) == 1  # nothing has run since the first one
    await act(world, boxes.resume, box)
    box = await world.boxes.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    assert world.memory(box) == "xx"  # what was saved, and one more start
    assert not (world.volume(box) / "new").exists()
    assert queries.memory_from(box) == view.made_at
    assert backups.RESTORE not in box.health
    assert await world.boxes.cluster.jobs(box.k8s_namespace) == []


async def test_a_running_box_is_saved_on_request_and_comes_back_when_its_place_is_lost(world):
    box = await world.boxes.live_box()
    await act(world, backups.request_backup, box)
    (view,) = await world.backups(box)
    assert (view.reason, view.is_usable) == ("manual", True)
    assert (await world.boxes.read(box.id)).status is BoxStatus.ACTIVE
    assert world.memory(box) == "xx"
    await world.boxes.cluster.delete_namespace(box.k8s_namespace)
    await world.boxes.do(box, JobType.PROVISION)
    box = await world.boxes.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    assert world.memory(box) == "xx"  # one start before the backup, one after it
    assert queries.memory_from(box) == view.made_at
    told = await world.boxes.view(box)
    assert told.memory_lost_at is None
    assert told.sentence.endswith(f"{view.made_at:%d %B %Y, %H:%M} UTC.")


async def test_what_a_restore_replaces_is_saved_first_or_nothing_is_replaced(world, monkeypatch):
    box = await world.boxes.live_box()
    await act(world, backups.request_backup, box)
    (view,) = await world.backups(box)
    with monkeypatch.context() as broken:
        broken.setattr(addresses, "PATH", "/nowhere/")
        async with session_scope() as session:
            job = await backups.request_restore(session, box, view.id, requested_by="test")
            job.max_attempts = 1
        await world.boxes.work()
    box = await world.boxes.read(box.id)
    assert (box.status, backups.RESTORE in box.health) == (BoxStatus.ACTIVE, False)
    assert (world.memory(box), queries.memory_from(box)) == ("xxx", None)
    assert [one.code for one in await open_alerts()] == [restoring.ALERT_RESTORE]
    await act(world, backups.request_restore, box, view.id)
    assert world.memory(box) == "xx"  # what was saved, and one more start
    assert {one.reason for one in await world.backups(box)} == {"before_restore", "manual"}
    assert queries.memory_from(await world.boxes.read(box.id)) == view.made_at
    assert await open_alerts() == []


@pytest.mark.slow
async def test_a_volume_that_is_gone_without_a_backup_is_told_once(world):
    box = await world.boxes.live_box()
    await act(world, boxes.request_restart, box)
    cluster = world.boxes.cluster
    await cluster.delete("Deployment", box.k8s_namespace, manifests.NAME)
    await cluster.delete("PersistentVolumeClaim", box.k8s_namespace, manifests.NAME)

    async def gone():
        return await cluster.find_claim(box.k8s_namespace, manifests.NAME) is None

    await eventually(gone)
    await world.boxes.do(box, JobType.UPDATE)
    box = await world.boxes.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    told = (await world.boxes.view(box)).memory_lost_at
    assert told is not None
    assert world.memory(box) == "x"
    await act(world, boxes.request_restart, box)
    assert (await world.boxes.view(box)).memory_lost_at == told


async def test_a_deletion_waits_for_the_last_backup(world, monkeypatch):
    box = await world.boxes.live_box()
    with monkeypatch.context() as broken:
        broken.setattr(addresses, "PATH", "/nowhere/")
        await world.boxes.do(box, JobType.DESTROY)
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYING
    state = await world.boxes.cluster.namespace_state(box.k8s_namespace)
    assert state is NamespaceState.ACTIVE
    assert world.memory(box) == "x"
    assert [one.code for one in await open_alerts()] == [backups.ALERT_FINAL]
    async with session_scope() as session:
        for code in ("snapshot_failed", "backup_failed", "restore_failed"):
            await jobs.raise_alert(session, code=code, subject=str(box.id))
    await world.boxes.do(box, JobType.DESTROY)
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYED
    (view,) = await world.backups(box)
    assert (view.reason, view.is_usable) == ("final", True)
    assert view.expires_at is not None
    assert await open_alerts() == []


@pytest.mark.slow
async def test_the_backup_of_a_suspended_box_is_its_last_one(world):
    box = await paused_box(world)
    (before,) = await world.backups(box)
    await world.boxes.do(box, JobType.DESTROY)
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYED
    (after,) = await world.backups(box)
    assert (after.id, after.reason) == (before.id, "final")


async def test_who_asks_to_be_deleted_leaves_nothing(world):
    box = await paused_box(world)
    async with session_scope() as session:
        customer = await session.get_one(Customer, box.customer_id)
        customer.deleted_at = await business_now(session)
        session.add(customer)
    await world.boxes.do(box, JobType.DESTROY)
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYED
    assert await world.backups(box) == []
    await retaining.retain()
    assert world.objects() == []


@pytest.mark.slow
async def test_a_backup_that_was_killed_is_made_again(world):
    box = await world.boxes.live_box()
    ((world.volume(box)) / "large").write_bytes(os.urandom(60_000_000))
    await world.boxes.request(box, JobType.DESTROY)
    working = asyncio.create_task(world.boxes.work())

    async def sent():
        return [one for one in world.objects() if one.name.endswith(".part")]

    await eventually(sent)
    await world.kill_keeper(box)
    await working
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYING
    assert await world.backups(box) == []

    async def forgotten():
        return world.objects() == []

    await eventually(forgotten)
    await world.boxes.do(box, JobType.DESTROY)
    (view,) = await world.backups(box)
    assert view.size_bytes > 60_000_000


@pytest.mark.slow
async def test_a_box_that_is_wanted_again_does_not_wait_for_its_backup(world):
    box = await world.boxes.live_box()
    (world.volume(box) / "large").write_bytes(os.urandom(60_000_000))
    async with session_scope() as session:
        await boxes.pause(session, box, requested_by="test")
    working = asyncio.create_task(world.boxes.work())

    async def sent():
        return [one for one in world.objects() if one.name.endswith(".part")]

    await eventually(sent)
    await world.stop_keeper(box)
    async with session_scope() as session:
        await boxes.resume(session, box, requested_by="test")
    await working
    assert await world.backups(box) == []
    await world.boxes.work()
    assert (await world.boxes.read(box.id)).status is BoxStatus.ACTIVE


@pytest.mark.slow
async def test_a_damaged_backup_leaves_the_memory_as_it_is(world):
    box = await world.boxes.live_box()
    await act(world, backups.request_backup, box)
    (view,) = await world.backups(box)
    (stored,) = world.objects()
    stored.write_bytes(stored.read_bytes()[:-1])
    await act(world, backups.request_restore, box, view.id)
    box = await world.boxes.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    assert world.memory(box) == "xxx"
    assert queries.memory_from(box) is None
    usable = {one.reason: one.is_usable for one in await world.backups(box)}
    assert usable == {"before_restore": True, "manual": False}
    assert restoring.ALERT_RESTORE in [one.code for one in await open_alerts()]


async def open_alerts():
    async with session_scope() as session:
        found = await session.exec(select(Alert).where(col(Alert.resolved_at).is_(None)))
        return found.all()
