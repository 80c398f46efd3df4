"""Scheduled backups: a snapshot of a running box a day, kept some days, brought back like any."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import col, select

from openclaw_web.boxes import manifests, queries
from openclaw_web.boxes.memory import backups, lifting, restoring, retaining, snapshots
from openclaw_web.boxes.memory.keeper_run import KeeperError
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings
from openclaw_web.jobs.models import Alert, JobType, OperatorJob
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


async def nothing():
    """Lead for ever."""


async def look(world):
    return await snapshots.look_after(world.boxes.cluster, "default", nothing)


async def age(box, **by):
    """Make a box, and what was saved of it, older than they are."""
    span = timedelta(**by)
    async with session_scope() as session:
        fresh = await session.get_one(Box, box.id)
        fresh.activated_at = (fresh.activated_at or await business_now(session)) - span
        rows = await session.exec(select(BoxBackup).where(BoxBackup.box_id == box.id))
        for one in rows.all():
            one.created_at = (one.created_at or await business_now(session)) - span
            session.add(one)
        session.add(fresh)


async def scheduled(box):
    async with session_scope() as session:
        found = await session.exec(
            select(BoxBackup)
            .where(BoxBackup.box_id == box.id, BoxBackup.reason == "scheduled")
            .order_by(col(BoxBackup.created_at))
        )
        return found.all()


async def snapshot_of(world, box):
    """Let a day pass, and return the snapshot that was made."""
    await age(box, hours=25)
    assert await look(world) == 1

    async def made():
        await look(world)
        return (await scheduled(box))[-1].finished_at

    await eventually(made)
    return (await scheduled(box))[-1]


async def open_alerts():
    async with session_scope() as session:
        found = await session.exec(select(Alert.code).where(col(Alert.resolved_at).is_(None)))
        return found.all()


async def act(world, request, *arguments):
    async with session_scope() as session:
        await request(session, *arguments, requested_by="test")
    await world.boxes.work()


async def test_a_running_box_is_saved_once_a_day_and_comes_back_as_it_was_then(world):
    box = await world.boxes.live_box()
    assert await look(world) == 0  # it has just begun
    taken = await snapshot_of(world, box)
    assert await look(world) == 0  # once a day
    (view,) = await world.backups(box)
    assert (view.reason, view.is_usable, world.objects()) == ("scheduled", True, [])
    (world.volume(box) / "memory").write_text("something else", encoding="ascii")
    await act(world, backups.request_restore, box, view.id)
    box = await world.boxes.read(box.id)
    assert (box.status, world.memory(box)) == (BoxStatus.ACTIVE, "xx")
    assert queries.memory_from(box) == view.made_at
    assert {one.reason for one in await world.backups(box)} == {"scheduled", "before_restore"}
    assert len(world.objects()) == 2  # what was replaced, and what the snapshot has become
    await look(world)
    name = snapshots.name_of(taken)

    async def gone():
        return await world.boxes.cluster.find_snapshot(box.k8s_namespace, name) is None

    await eventually(gone)
    assert await open_alerts() == []


@pytest.mark.slow
async def test_a_lost_volume_takes_the_newest_snapshot_and_a_lost_place_does_not(world):
    box = await world.boxes.live_box()
    await act(world, backups.request_backup, box)
    await snapshot_of(world, box)
    cluster = world.boxes.cluster
    for kind in ("Deployment", "PersistentVolumeClaim"):
        await cluster.delete(kind, box.k8s_namespace, "openclaw")

    async def gone():
        return await cluster.find_claim(box.k8s_namespace, "openclaw") is None

    await eventually(gone)
    await world.boxes.do(box, JobType.PROVISION)
    assert world.memory(box) == "xxx"  # the start after the backup was in the snapshot
    await snapshot_of(world, box)
    await cluster.delete_namespace(box.k8s_namespace)
    await world.boxes.do(box, JobType.PROVISION)
    assert world.memory(box) == "xxx"  # the older snapshot had become a backup; the newer is gone
    assert await open_alerts() == []


@pytest.mark.slow
async def test_a_snapshot_that_nobody_can_read_leaves_the_older_backups_their_turn(
    world, monkeypatch
):
    box = await world.boxes.live_box()
    await act(world, backups.request_backup, box)
    (view,) = await world.backups(box)
    taken = await snapshot_of(world, box)
    cluster = world.boxes.cluster
    await lose_volume(world, box)

    monkeypatch.setattr(lifting, "lift", hang)
    await world.boxes.do(box, JobType.PROVISION)
    mark = (await world.boxes.read(box.id)).health[backups.RESTORE]
    assert (mark["backup"], mark["or_older"]) == (str(taken.id), True)
    asked = await world.boxes.request(box, JobType.PROVISION)
    async with session_scope() as session:
        job = await session.get_one(OperatorJob, asked)
        job.max_attempts = job.attempt + 1
    await world.boxes.work()
    assert world.memory(box) == "xx"
    assert (await world.boxes.read(box.id)).status is BoxStatus.ACTIVE
    older = await world.row(view.id)
    assert queries.memory_from(await world.boxes.read(box.id)) == older.created_at
    assert (await world.row(taken.id)).error is None
    assert await cluster.find_snapshot(box.k8s_namespace, snapshots.name_of(taken)) is not None


async def lose_volume(world, box):
    cluster = world.boxes.cluster
    for kind in ("Deployment", "PersistentVolumeClaim"):
        await cluster.delete(kind, box.k8s_namespace, manifests.NAME)

    async def gone():
        return await cluster.find_claim(box.k8s_namespace, manifests.NAME) is None

    await eventually(gone)


@pytest.mark.slow
async def test_a_snapshot_that_was_half_brought_back_is_brought_back_again(world, monkeypatch):
    box = await world.boxes.live_box()
    taken = await snapshot_of(world, box)
    with monkeypatch.context() as broken:

        async def die(*_):
            raise VendorError("It ended here.", can_retry=True, code="server_error")

        broken.setattr(lifting, "_take_its_place", die)
        await act(world, backups.request_restore, box, taken.id)
    quota = await read_quota(world, box)
    assert quota == "1"
    assert (await world.row(taken.id)).deleted_at is None
    (world.volume(box) / "memory").write_text("since", encoding="ascii")
    await world.boxes.do(box, JobType.UPDATE)
    assert world.memory(box) == "xx"
    found = {one.reason: one.made_at for one in await world.backups(box)}
    assert found["scheduled"] == taken.created_at
    async with session_scope() as session:
        left = await session.exec(select(BoxBackup).where(BoxBackup.reason == "copy"))
        assert [backups.is_usable(one, await business_now(session)) for one in left.all()] == [
            False
        ]
    await age(box, days=2)
    async with session_scope() as session:
        assert await retaining.forget_expired(session) == 1  # what was left half done


async def read_quota(world, box):
    async for page in world.boxes.cluster.pages("ResourceQuota", f"{manifests.BOX_LABEL}={box.id}"):
        for one in page:
            return one["spec"]["hard"][lifting.QUOTA_NAME]
    raise AssertionError


@pytest.mark.slow
async def test_a_snapshot_that_somebody_deleted_changes_nothing(world):
    box = await world.boxes.live_box()
    taken = await snapshot_of(world, box)
    await world.boxes.cluster.delete("VolumeSnapshot", box.k8s_namespace, snapshots.name_of(taken))
    await act(world, backups.request_restore, box, taken.id)
    box = await world.boxes.read(box.id)
    assert (box.status, world.memory(box)) == (BoxStatus.ACTIVE, "xx")
    assert await open_alerts() == [restoring.ALERT_RESTORE]
    usable = {one.reason: one.is_usable for one in await world.backups(box)}
    assert usable == {"scheduled": False, "before_restore": True}


@pytest.mark.slow
async def test_old_ones_go_and_the_newest_good_one_stays_for_ever(world, monkeypatch):
    monkeypatch.setattr(retaining, "settings", lambda: replace(settings(), box_snapshot_days=2))
    box = await world.boxes.live_box()
    first = await snapshot_of(world, box)
    await age(box, days=3)
    async with session_scope() as session:
        assert await retaining.forget_expired(session) == 0
    await snapshot_of(world, box)
    async with session_scope() as session:
        assert await retaining.forget_expired(session) == 1
    await look(world)
    cluster = world.boxes.cluster

    async def gone():
        name = f"scheduled-{first.id.hex[:12]}"
        return await cluster.find_snapshot(box.k8s_namespace, name) is None

    await eventually(gone)
    assert [one.location for one in await scheduled(box) if one.id == first.id] == [""]


@pytest.mark.slow
async def test_without_a_class_that_deletes_nothing_is_made(world, monkeypatch):
    box = await world.boxes.live_box()
    await age(box, hours=25)

    def choose(name):
        chosen = replace(settings(), box_snapshot_class=name)
        monkeypatch.setattr(snapshots, "settings", lambda: chosen)

    choose("off")
    assert await look(world) == 0
    choose("elsewhere")
    assert (await look(world), await open_alerts()) == (0, [snapshots.ALERT_CLASS])
    with monkeypatch.context() as absent:

        async def none(_):
            return []

        choose("")
        absent.setattr(type(world.boxes.cluster), "snapshot_classes", none)
        assert (await look(world), await open_alerts()) == (0, [])
    assert await scheduled(box) == []


@pytest.mark.slow
async def test_two_failures_in_a_row_are_told_and_the_next_success_closes_it(world, monkeypatch):
    box = await world.boxes.live_box()
    with monkeypatch.context() as broken:

        async def refuse(*_):
            raise VendorError("The cluster refused it.", can_retry=True, code="server_error")

        broken.setattr(type(world.boxes.cluster), "create", refuse)
        for expected in ([], [snapshots.ALERT_FAILED]):
            await age(box, hours=25)
            await look(world)
            assert await open_alerts() == expected
    await snapshot_of_last(world, box)
    assert await open_alerts() == []
    first, second = await scheduled(box)
    assert (first.finished_at, second.deleted_at) == (None, None)
    assert first.deleted_at is not None  # older than a day, and never made


async def snapshot_of_last(world, box):
    """Let the one that could not be asked for be asked for again."""

    async def made():
        await look(world)
        return (await scheduled(box))[-1].finished_at

    await eventually(made)


@pytest.mark.slow
async def test_a_kept_snapshot_is_no_reason_to_skip_the_backup_of_a_suspension(world):
    box = await world.boxes.live_box()
    taken = await snapshot_of(world, box)
    async with session_scope() as session:
        long_ago = taken.created_at - timedelta(days=1)
        assert await backups.find_since(session, box.id, long_ago) is None
        newest = await backups.newest_usable(session, box.id)
        assert newest is not None
        assert newest.id == taken.id
        assert await backups.find_final(session, box.id) is None
        assert not await queries.has_usable_backup(session, box.id)


@pytest.mark.slow
@pytest.mark.parametrize("is_made_anew", [False, True])
async def test_a_deletion_first_brings_out_what_lies_in_a_snapshot_alone(
    world, monkeypatch, is_made_anew
):
    box = await world.boxes.live_box()
    taken = await snapshot_of(world, box)
    await lose_volume(world, box)
    if is_made_anew:
        with monkeypatch.context() as broken:
            broken.setattr(lifting, "lift", hang)
            await world.boxes.do(box, JobType.PROVISION)
        assert await world.boxes.cluster.find_claim(box.k8s_namespace, manifests.NAME) is not None
    with monkeypatch.context() as broken:
        broken.setattr(lifting, "lift", hang)
        await world.boxes.do(box, JobType.DESTROY)
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYING
    assert backups.ALERT_FINAL in await open_alerts()
    await world.boxes.do(box, JobType.DESTROY)
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYED
    (view,) = await world.backups(box)
    assert (view.reason, view.is_usable, view.made_at) == ("final", True, taken.created_at)
    assert len(world.objects()) == 1
    assert backups.ALERT_FINAL not in await open_alerts()


async def hang(*_):
    raise KeeperError("The keeper does not start.")
