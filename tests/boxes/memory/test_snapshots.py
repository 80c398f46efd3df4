"""Snapshots of many boxes: what stands in one's way holds up no other one, and nothing is lost."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.boxes import service
from openclaw_web.boxes.memory import backups, retaining, snapshots
from openclaw_web.boxes.models import BoxBackup, BoxStatus
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.settings import settings
from openclaw_web.integrations.cluster_objects import ClaimView, SnapshotClassView, SnapshotView
from openclaw_web.jobs.models import Alert, JobStatus, JobType, OperatorJob
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("database", "redis", "keeper")


class Storage:
    """A cluster that has one class of snapshots, and says what was asked of it."""

    def __init__(self):
        self.drivers, self.asked, self.snapshots = {}, [], {}

    async def snapshot_classes(self):
        return [SnapshotClassView(name="fast", driver="csi", is_default=True, outlives=False)]

    async def find_claim(self, namespace, _):
        driver = self.drivers.get(namespace, "csi")
        return ClaimView(requested="1Gi", capacity="1Gi", driver=driver)

    async def create(self, manifest):
        self.asked.append(manifest["metadata"]["namespace"])

    async def find_snapshot(self, _, name):
        return self.snapshots.get(name)

    async def delete(self, kind, _, name):
        assert kind == "VolumeSnapshot"
        self.snapshots.pop(name, None)


@pytest.fixture
def keeper(monkeypatch):
    chosen = replace(settings(), keeper_image="keeper:1", box_snapshot_class="")
    monkeypatch.setattr(backups, "settings", lambda: chosen)
    monkeypatch.setattr(snapshots, "settings", lambda: chosen)


async def leading():
    """Lead for ever."""


async def look(storage):
    return await snapshots.look_after(storage, "default", leading)


async def old_box(session, **more):
    box = await make_box(session, status=BoxStatus.ACTIVE, **more)
    box.activated_at = await business_now(session) - timedelta(days=2)
    session.add(box)
    await session.commit()
    return box


async def open_alerts(session):
    found = await session.exec(select(Alert.code).where(col(Alert.resolved_at).is_(None)))
    return found.all()


async def test_boxes_that_no_class_fits_hold_up_nobody_and_are_told(session, monkeypatch):
    monkeypatch.setattr(snapshots, "AT_ONCE", 1)
    storage = Storage()
    boxes = sorted([await old_box(session) for _ in range(3)], key=lambda one: one.id)
    storage.drivers = {one.k8s_namespace: "local" for one in boxes[:2]}
    begun = [await look(storage) for _ in range(2)]
    assert (begun, storage.asked[0]) == ([1, 0], boxes[2].k8s_namespace)
    assert await open_alerts(session) == [snapshots.ALERT_MISSING]
    storage.drivers = {}
    assert [await look(storage) for _ in range(3)] == [1, 1, 0]
    await session.rollback()
    assert await open_alerts(session) == []


async def begun(session, storage, box, **ago):
    """Ask for a snapshot, and let some time go by."""
    assert await look(storage) == 1
    (row,) = await rows(session, box.id)
    row.created_at -= timedelta(**ago)
    session.add(row)
    await session.commit()
    return row


async def rows(session, box_id):
    await session.rollback()
    found = await session.exec(
        select(BoxBackup)
        .where(BoxBackup.box_id == box_id)
        .order_by(col(BoxBackup.created_at))
        .execution_options(populate_existing=True)
    )
    return found.all()


def ready(made_at):
    return SnapshotView(is_ready=True, error="", size="1Gi", made_at=made_at)


async def test_every_unfinished_one_is_followed_however_many_wait(session, monkeypatch):
    monkeypatch.setattr(snapshots, "PAGE", 2)
    storage = Storage()
    boxes = [(await old_box(session)).id for _ in range(5)]
    assert await look(storage) == 5
    names = [snapshots.name_of((await rows(session, one))[0]) for one in boxes]
    storage.snapshots = dict.fromkeys(names, ready(real_now()))
    await look(storage)
    assert all([(await rows(session, one))[0].finished_at for one in boxes])


async def test_one_that_is_ready_late_is_kept_and_dated_when_it_was_made(session):
    storage = Storage()
    box = await old_box(session)
    box_id = box.id
    row = await begun(session, storage, box, hours=26)
    made_at = real_now() - timedelta(hours=1)
    storage.snapshots[snapshots.name_of(row)] = ready(made_at)
    assert await retaining.forget_expired(session) == 0
    await session.commit()
    assert await look(storage) == 0  # the late one is younger than a day
    (row,) = await rows(session, box_id)
    assert (row.deleted_at, row.finished_at is None) == (None, False)
    assert abs(row.created_at - made_at) < timedelta(seconds=5)


async def test_one_that_never_comes_is_given_up_after_a_day_and_made_anew(session):
    storage = Storage()
    box = await old_box(session)
    box_id = box.id
    await begun(session, storage, box, hours=26)
    assert await look(storage) == 1
    first, second = await rows(session, box_id)
    assert (first.deleted_at is None, first.location) == (False, "")
    assert (second.deleted_at, second.location != "") == (None, True)


async def test_nothing_is_asked_for_again_while_a_job_works_on_the_box(session):
    storage = Storage()
    box = await old_box(session)
    await begun(session, storage, box, minutes=1)
    await service.request_converge(
        session, box, job_type=JobType.UPDATE, requested_by="test", payload={}
    )
    await session.commit()
    await session.exec(sa.update(OperatorJob).values(status=JobStatus.RUNNING))
    await session.commit()
    await look(storage)
    assert len(storage.asked) == 1
    await session.exec(sa.update(OperatorJob).values(status=JobStatus.COMPLETE))
    await session.commit()
    await look(storage)
    assert len(storage.asked) == 2
