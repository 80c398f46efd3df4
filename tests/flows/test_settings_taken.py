"""Settings for a running assistant when something goes wrong on the way, or they do not work."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from openclaw_web.boxes import activating, manifests, previews, proving, rendering, writing
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.drift import find_drift
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.jobs.models import JobType, OperatorJob
from tests.flows.box_world import box_world, cluster_process

pytestmark = pytest.mark.usefixtures("database", "redis")
KNOWN = BoxSettings(telegram_user_ids=(111222333,))


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with cluster_process(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, database):
    assert database
    async with box_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


async def change(box, **fields):
    async with session_scope() as session:
        await boxes.change_settings(session, box, replace(KNOWN, **fields), requested_by="test")


async def marks(world, box):
    """Return what the three objects say of the mounted files, and what they must say."""
    async with session_scope() as session:
        wanted = await rendering.render(session, await world.read(box.id))
    name = box.k8s_namespace
    deployment = await world.cluster.find_deployment(name, manifests.NAME)
    secret = await world.cluster.find_object("Secret", name, manifests.NAME)
    (pod,) = await world.cluster.pods(name)
    found = {one.annotations.get(manifests.LIVE_HASH, "") for one in (deployment, secret, pod)}
    return found, {manifests.live_hash(wanted.spec)}


async def drift_of(world, box):
    return (await find_drift(world.cluster, "default")).found.get(box.id, [])


async def state_of(world, box):
    async with session_scope() as session:
        return await previews.applied_state(session, await world.read(box.id))


async def call(box, generation, *, minutes):
    async with session_scope() as session:
        at = await business_now(session) + timedelta(minutes=minutes)
        await proving.record_model_call(session, box.id, generation=generation, asked_at=at)


def break_after(monkeypatch, step):
    """Let a step happen and its run end right after it, once."""
    real = getattr(writing, step)

    async def broken(*arguments):
        monkeypatch.setattr(writing, step, real)
        await real(*arguments)
        raise VendorError("The worker was killed.", can_retry=True, code="timeout")

    monkeypatch.setattr(writing, step, broken)


async def test_a_run_that_ends_after_any_step_is_finished_by_the_next(world, monkeypatch):
    box = await world.live_box()
    pod = await world.pod_name(box)
    steps = {"write_files": "high", "write_deployment": "low", "wake_kubelet": "minimal"}
    for number, (step, level) in enumerate(steps.items(), start=2):
        await change(box, thinking_level=level)
        break_after(monkeypatch, step)
        await world.work()
        assert (await state_of(world, box)).kind == "applying"
        await world.do(box, JobType.UPDATE)
        found, wanted = await marks(world, box)
        assert found == wanted
        assert await drift_of(world, box) == []
        assert (await state_of(world, box)).kind == "waiting_for_proof"
        await call(box, number, minutes=0)
        assert (await state_of(world, box)).kind == "applied"
    box = await world.read(box.id)
    assert (box.status, box.applied_generation) == (BoxStatus.ACTIVE, 4)
    assert await world.pod_name(box) == pod
    await late_write_is_refused(world, box)


async def late_write_is_refused(world, box):
    """Whoever slept since it looked at the Secret writes over nothing."""
    async with session_scope() as session:
        spec = (await rendering.render(session, await world.read(box.id))).spec
    change = manifests.live_files(spec, fence=1, resource_version="1")
    with pytest.raises(VendorError) as refused:
        await world.cluster.merge("Secret", box.k8s_namespace, manifests.NAME, change)
    assert refused.value.code == "conflict"


async def test_settings_that_are_not_taken_up_restart_it_and_go_back_when_they_fail(
    world, monkeypatch
):
    box = await world.live_box()
    pod = await world.pod_name(box)
    await change(box, thinking_level="max")
    await world.work()
    assert await world.pod_name(box) == pod
    await call(box, 1, minutes=3)
    with monkeypatch.context() as patience:
        patience.setattr(activating, "READY_SECONDS", 1.0)
        await world.work()
        assert (await state_of(world, box)).kind == "applying"  # once may be a slow start
        async with session_scope() as session:
            await session.exec(sa.update(OperatorJob).values(run_after=sa.func.now()))
        await world.work()
    assert (await world.read(box.id)).status is BoxStatus.UPDATING
    await world.work()
    state, box = await state_of(world, box), await world.read(box.id)
    assert (box.status, box.applied_generation, state.kind) == (
        BoxStatus.ACTIVE,
        1,
        "rolled_back",
    )
    assert await drift_of(world, box) == []

    pod = await world.pod_name(box)
    await world.do(box, JobType.UPDATE)
    assert await world.pod_name(box) == pod
    assert "with its former settings" in (await world.view(box)).sentence

    await change(box, thinking_level="low")
    await world.work()
    assert await world.pod_name(box) == pod
    await call(box, 3, minutes=0)
    assert (await state_of(world, box)).kind == "applied"
    assert "former" not in (await world.view(box)).sentence
