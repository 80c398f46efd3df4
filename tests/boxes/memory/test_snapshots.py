"""Snapshots of many boxes: what stands in one's way holds up no other one, and nothing is lost."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import col, select

from openclaw_web.boxes.memory import backups, snapshots
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.settings import settings
from openclaw_web.integrations.cluster_objects import ClaimView, SnapshotClassView
from openclaw_web.jobs.models import Alert
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
