"""What somebody changes by hand in the cluster comes back; what nobody can mean stops us."""

from dataclasses import replace

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog
from openclaw_web.boxes import (
    drift,
    drift_brake,
    manifests,
    queries,
    rendering,
    repairs,
    stray_tokens,
)
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations.cluster import KINDS, Cluster
from openclaw_web.jobs.models import Alert, JobType
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import ProxyToken
from tests.contracts.simulator_process import running
from tests.flows.box_world import IMAGE, box_world

pytestmark = pytest.mark.usefixtures("database", "redis")
CLUSTER = "default"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    """Run a cluster whose pods are records: they need no process and are ready at once."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "images.json").write_text("{}")
    arguments = ("--images", str(folder / "images.json"), "--kubeconfig", str(folder / "config"))
    with running("kubernetes", folder, *arguments) as simulator:
        simulator.http.patch("/_control/settings", json={"records": True}).raise_for_status()
        yield folder / "config"


@pytest.fixture
async def world(simulator, tmp_path, monkeypatch, database):
    assert database
    async with box_world(simulator, tmp_path, monkeypatch) as made:
        yield made


async def find(world, box, kind):
    return await world.cluster._call(  # noqa: SLF001 - a test looks at whole objects
        "GET", KINDS[kind].path(box.k8s_namespace, manifests.NAME)
    )


async def by_hand(world, box, kind, change):
    await world.cluster._call(  # noqa: SLF001 - as `kubectl edit` would
        "PATCH",
        KINDS[kind].path(box.k8s_namespace, manifests.NAME),
        body=change,
        query={"fieldManager": "kubectl-edit"},
        content_type="application/merge-patch+json",
    )


async def delete(world, box, kind):
    await world.cluster._call(  # noqa: SLF001
        "DELETE", KINDS[kind].path(box.k8s_namespace, manifests.NAME)
    )


async def mended(world):
    """Look for drift and do what was asked for; looking again must find nothing."""
    asked = await repairs.mend_drift(world.cluster, CLUSTER)
    while await world.work():
        pass
    assert await repairs.mend_drift(world.cluster, CLUSTER) == 0
    return asked


async def tokens_checked(world):
    found = await stray_tokens.check_tokens(world.cluster, CLUSTER)
    while await world.work():
        pass
    return found


async def live_tokens(box):
    async with session_scope() as session:
        return {str(one) for one in await queries.live_token_ids(session, box.id)}


async def shown_token(world, box):
    return (await find(world, box, "Deployment"))["metadata"]["annotations"][manifests.TOKEN_ID]


async def test_a_box_as_it_was_applied_has_no_drift_and_what_others_add_is_theirs(world):
    box = await world.live_box()
    await by_hand(world, box, "Deployment", {"metadata": {"labels": {"team": "blue"}}})
    found = await drift.find_drift(world.cluster, CLUSTER)
    assert (found.checked, found.found) == (1, {})


async def test_another_image_by_setting_is_no_drift_of_boxes_that_are_there(world, monkeypatch):
    box = await world.live_box()
    chosen = replace(rendering.settings(), box_image="openclaw/openclaw:next")
    monkeypatch.setattr(rendering, "settings", lambda: chosen)
    assert (await drift.find_drift(world.cluster, CLUSTER)).found == {}
    assert box.image == IMAGE
    assert (await world.live_box()).image == "openclaw/openclaw:next"


async def test_what_was_edited_by_hand_comes_back_without_a_new_pod(world):
    box = await world.live_box()
    kinds = ("NetworkPolicy", "ResourceQuota", "Deployment")
    before = [(await find(world, box, kind))["spec"] for kind in kinds]
    pod = await world.pod_name(box)
    await by_hand(world, box, "NetworkPolicy", {"spec": {"egress": [{}]}})
    await by_hand(world, box, "ResourceQuota", {"spec": {"hard": {"pods": "5"}}})
    assert await mended(world) == 1
    assert [(await find(world, box, kind))["spec"] for kind in kinds] == before
    assert await world.pod_name(box) == pod
    async with session_scope() as session:
        actions = [line.action for line in (await session.exec(select(AuditLog))).all()]
    assert actions.count("box.drift") == 1


async def test_a_box_that_was_scaled_by_hand_comes_back(world):
    box = await world.live_box()
    await by_hand(world, box, "Deployment", {"spec": {"replicas": 0}})
    assert await mended(world) == 1
    assert (await find(world, box, "Deployment"))["spec"]["replicas"] == 1


async def test_an_image_changed_by_hand_comes_back(world):
    box = await world.live_box()
    template = (await find(world, box, "Deployment"))["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "somebody/elses:1"
    await by_hand(world, box, "Deployment", {"spec": {"template": template}})
    found = await drift.find_drift(world.cluster, CLUSTER)
    assert found.found == {box.id: ["Deployment: spec.template.spec.containers[0].image"]}
    assert await mended(world) == 1


async def test_what_was_deleted_by_hand_comes_back(world):
    box = await world.live_box()
    kinds = ("NetworkPolicy", "ResourceQuota", "LimitRange", "ServiceAccount")
    for kind in kinds:
        await delete(world, box, kind)
    found = await drift.find_drift(world.cluster, CLUSTER)
    assert found.found == {box.id: [f"{kind}: missing" for kind in kinds]}
    assert await mended(world) == 1


async def test_a_suspended_box_that_was_started_by_hand_is_stopped_again(world):
    box = await world.live_box()
    async with session_scope() as session:
        locked = await queries.get_any_box(session, box.id, lock=True)
        locked.user_paused_at = locked.created_at
    await world.do(box, JobType.SUSPEND)
    assert (await world.read(box.id)).status is BoxStatus.SUSPENDED
    assert await mended(world) == 0
    await by_hand(world, box, "Deployment", {"spec": {"replicas": 1}})
    assert await mended(world) == 1
    assert (await find(world, box, "Deployment"))["spec"]["replicas"] == 0


async def test_what_a_job_did_not_mend_is_left_to_a_person(world):
    box = await world.live_box()
    for asked in (1, 0):
        await delete(world, box, "NetworkPolicy")
        assert await mended(world) == asked
    async with session_scope() as session:
        (alert,) = (await session.exec(select(Alert))).all()
        assert (alert.code, alert.subject) == ("drift_stays", str(box.id))
        await advance_clock(session, repairs.STAYS_FOR.total_seconds(), by="test")
    assert await mended(world) == 1


async def test_a_box_whose_volume_is_being_deleted_gets_an_alert_and_no_job(world):
    box = await world.live_box()
    held = {"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}}
    await by_hand(world, box, "PersistentVolumeClaim", held)
    await delete(world, box, "PersistentVolumeClaim")
    await delete(world, box, "NetworkPolicy")
    assert await mended(world) == 0
    async with session_scope() as session:
        (alert,) = (await session.exec(select(Alert))).all()
    assert (alert.code, alert.subject) == (repairs.VOLUME_ALERT, str(box.id))


async def test_many_at_once_wait_for_a_person(world, monkeypatch):
    monkeypatch.setattr(drift_brake, "MINIMUM", 2)
    boxes = [await world.live_box() for _ in range(2)]
    for box in boxes:
        await delete(world, box, "NetworkPolicy")
    assert await repairs.mend_drift(world.cluster, CLUSTER) == 0
    async with session_scope() as session:
        (alert,) = (await session.exec(select(Alert))).all()
        await drift_brake.allow(session, CLUSTER, by="test")
    assert (alert.code, alert.detail) == (drift_brake.ALERT_MANY, {"count": 2, "of": 2})
    assert await mended(world) == 2


async def test_a_pod_with_a_revoked_token_gets_another(world):
    box = await world.live_box()
    old = await shown_token(world, box)
    async with session_scope() as session:
        await metering.revoke_tokens_of_box(session, box.id)
    assert (await tokens_checked(world)).rotated == 1
    assert await live_tokens(box) == {await shown_token(world, box)} != {old}
    assert (await tokens_checked(world)).rotated == 0


async def test_a_token_that_no_pod_has_ends_after_a_safe_time(world):
    box = await world.live_box()
    async with session_scope() as session:
        issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
    assert (await tokens_checked(world)).revoked == 0
    async with session_scope() as session:
        await advance_clock(session, stray_tokens.SAFE_AFTER.total_seconds() + 1, by="test")
    assert (await tokens_checked(world)).revoked == 1
    assert await live_tokens(box) == {await shown_token(world, box)}
    async with session_scope() as session:
        row = await session.get_one(ProxyToken, issued.token_id)
    assert row.revoked_at is not None


async def test_a_token_that_waits_in_the_secret_for_the_pods_next_start_gets_a_new_pod(world):
    box = await world.live_box()
    before = await shown_token(world, box)
    async with session_scope() as session:
        issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
        await advance_clock(session, stray_tokens.SAFE_AFTER.total_seconds() + 1, by="test")
    waiting = {manifests.TOKEN_ID: str(issued.token_id)}
    await by_hand(world, box, "Secret", {"metadata": {"annotations": waiting}})
    found = await tokens_checked(world)
    assert (found.rotated, found.revoked) == (1, 0)
    token = await shown_token(world, box)
    assert await live_tokens(box) == {token}
    assert token not in {before, str(issued.token_id)}


async def test_no_look_at_all_boxes_names_a_secret(world, monkeypatch):
    await world.live_box()
    paths: list[str] = []
    send = Cluster._send  # noqa: SLF001 - the one place that all requests pass

    async def send_and_note(cluster, method, path, **options):
        paths.append(path)
        return await send(cluster, method, path, **options)

    monkeypatch.setattr(Cluster, "_send", send_and_note)
    await drift.find_drift(world.cluster, CLUSTER)
    await stray_tokens.check_tokens(world.cluster, CLUSTER)
    assert paths
    assert not [path for path in paths if "secrets" in path]
