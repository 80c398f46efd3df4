"""Another OpenClaw for a box: only when somebody asks for it, and back when it does not work."""

import json
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog, OutboxMail
from openclaw_web.boxes import activating, drift, manifests, previews, rendering, upgrading
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import addresses
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import KINDS
from openclaw_web.jobs import queries as jobs
from openclaw_web.workflows import operations
from openclaw_web.workflows.operations import By
from tests.flows.box_world import IMAGE
from tests.flows.memory_world import memory_cluster, memory_world

pytestmark = pytest.mark.usefixtures("database", "redis")
NEXT_IMAGE, NO_IMAGE = "test/assistant:2", "test/assistant:nowhere"
BY = By(reason="a hole in the old one")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with memory_cluster(tmp_path_factory.mktemp("cluster")) as path:
        images = path.parent / "images.json"
        known = json.loads(images.read_text())
        images.write_text(json.dumps({**known, NEXT_IMAGE: known[IMAGE]}), encoding="utf-8")
        yield path


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, database):
    assert database
    async with memory_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


async def upgrade(world, box, image):
    async with session_scope() as session:
        await operations.upgrade_box(session, box.id, image, by=BY)
    await world.boxes.work()
    return await world.boxes.read(box.id)


async def running_image(world, box):
    found = await world.boxes.cluster._call(  # noqa: SLF001 - a test looks at whole objects
        "GET", KINDS["Deployment"].path(box.k8s_namespace, manifests.NAME)
    )
    return found["spec"]["template"]["spec"]["containers"][0]["image"]


async def alert_of(box):
    async with session_scope() as session:
        return await jobs.find_open_alert(
            session, code=upgrading.ALERT_TAKEN_BACK, subject=str(box.id)
        )


@pytest.mark.slow
async def test_another_setting_is_for_new_boxes_and_an_upgrade_for_those_that_are_there(
    world, monkeypatch
):
    box = await world.boxes.live_box()
    assert box.image == IMAGE
    async with session_scope() as session:
        await session.exec(sa.update(Box).values(image=None))  # as an earlier release left it
    monkeypatch.setattr(upgrading, "settings", rendering.settings)
    assert await upgrading.pin_images("default") == 1
    assert await upgrading.pin_images("default") == 0
    chosen = replace(rendering.settings(), box_image=NEXT_IMAGE)
    monkeypatch.setattr(rendering, "settings", lambda: chosen)
    found = await drift.find_drift(world.boxes.cluster, "default")
    assert (found.checked, found.found) == (1, {})
    assert (await world.boxes.live_box()).image == NEXT_IMAGE
    box = await upgrade(world, box, NEXT_IMAGE)
    assert (box.status, box.image, box.applied_generation) == (BoxStatus.ACTIVE, NEXT_IMAGE, 2)
    assert await running_image(world, box) == NEXT_IMAGE
    (saved,) = await world.backups(box)
    assert (saved.reason, saved.is_usable) == ("before_upgrade", True)


@pytest.mark.slow
async def test_nothing_is_upgraded_whose_memory_could_not_be_saved(world, monkeypatch):
    box = await world.boxes.live_box()
    with monkeypatch.context() as broken:
        broken.setattr(addresses, "PATH", "/nowhere/")
        await upgrade(world, box, NEXT_IMAGE)
    await world.boxes.work()
    box = await world.boxes.read(box.id)
    assert (box.status, await running_image(world, box)) == (BoxStatus.ACTIVE, IMAGE)
    assert world.memory(box) == "xx"  # it started before and after, and never in between
    alert = await alert_of(box)
    assert alert is not None
    assert "its memory could not be saved first" in alert.detail["sentence"]


async def test_an_image_that_does_not_work_goes_back_and_an_admin_is_told(world, monkeypatch):
    box = await world.boxes.live_box()
    with monkeypatch.context() as patience:
        patience.setattr(activating, "READY_SECONDS", 1.0)
        await upgrade(world, box, NO_IMAGE)
    async with session_scope() as session:  # its customer saves before it is back
        box = await world.boxes.read(box.id)
        wanted = BoxSettings(telegram_user_ids=(111222333,), language="de")
        await boxes.change_settings(session, box, wanted, requested_by="test")
    await world.boxes.work()
    box = await world.boxes.read(box.id)
    assert (box.status, box.image, box.applied_generation) == (BoxStatus.ACTIVE, IMAGE, 3)
    assert await running_image(world, box) == IMAGE
    alert = await alert_of(box)
    assert alert is not None
    assert alert.detail["sentence"].startswith(f"{NO_IMAGE} does not run here")
    async with session_scope() as session:
        actions = [line.action for line in (await session.exec(select(AuditLog))).all()]
        mails = [mail.kind for mail in (await session.exec(select(OutboxMail))).all()]
        told = await previews.applied_state(session, box)
    assert {"box.upgrade", "box.upgrade_failed"} <= set(actions)
    assert "settings_rolled_back" not in mails  # they are not what failed
    assert (box.status_reason, told.kind) == (None, "applied")
    await upgrade(world, box, NEXT_IMAGE)
    assert await alert_of(box) is None
