"""What comes too late, or is asked of a cluster that cannot do it, harms no box."""

from dataclasses import replace

import pytest
from sqlmodel import select

from openclaw_web.billing.models import Hold, Subscription, Tier
from openclaw_web.boxes import drift, ending, fencing, manifests, queries, writing
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.desired import Why
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.runs import Run, StopRequestedError
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceState
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import Alert, JobStatus, JobType
from tests.contracts.simulator_process import running
from tests.flows.box_world import box_world

pytestmark = pytest.mark.usefixtures("database", "redis")


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


async def put_on(box, tier):
    async with session_scope() as session:
        subscription = await session.get_one(Subscription, box.subscription_id)
        subscription.tier = tier
        session.add(subscription)


async def box_on(world, tier):
    box = await world.new_box()
    await put_on(box, tier)
    await world.do(box, JobType.PROVISION)
    return await world.read(box.id)


async def volume(world, box):
    found = await world.cluster.find_claim(box.k8s_namespace, manifests.NAME)
    return found.requested


async def claimed_run(world, box, job_type):
    await world.request(box, job_type)
    async with session_scope() as session:
        claimed = await leases.claim_job(session, owner="one")
    assert claimed is not None
    return Run(cluster=world.cluster, job=claimed.job, fence=claimed.fence)


async def test_a_smaller_tier_keeps_the_larger_volume_and_answers(world):
    box = await box_on(world, Tier.TEAM)
    large = await volume(world, box)
    await put_on(box, Tier.STARTER)
    await world.do(box, JobType.UPDATE)
    box = await world.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    assert {job.status for job in await world.jobs_of(box)} == {JobStatus.COMPLETE}
    assert await volume(world, box) == large
    assert (await drift.find_drift(world.cluster, "default")).found == {}


async def test_a_larger_tier_makes_the_volume_larger(world):
    box = await box_on(world, Tier.STARTER)
    small = await volume(world, box)
    await put_on(box, Tier.TEAM)
    await world.do(box, JobType.UPDATE)
    assert await volume(world, box) != small


async def test_a_volume_that_cannot_grow_keeps_no_box_from_answering(world, monkeypatch):
    box = await box_on(world, Tier.STARTER)
    small = await volume(world, box)
    merge = Cluster.merge

    async def refuse(self, kind, *others):
        if kind == "PersistentVolumeClaim":
            raise VendorError("only dynamically provisioned", can_retry=False, code="forbidden")
        await merge(self, kind, *others)

    monkeypatch.setattr(Cluster, "merge", refuse)
    await put_on(box, Tier.TEAM)
    await world.do(box, JobType.UPDATE)
    assert (await world.read(box.id)).status is BoxStatus.ACTIVE
    assert await volume(world, box) == small
    async with session_scope() as session:
        (alert,) = (await session.exec(select(Alert))).all()
    assert (alert.code, alert.subject) == (writing.ALERT_VOLUME, str(box.id))


async def test_a_write_that_slept_through_two_suspensions_starts_nothing(world):
    box = await world.live_box()
    async with session_scope() as session:
        await boxes.pause(session, box, requested_by="customer")
    await world.work()
    seen = await world.cluster.find_deployment(box.k8s_namespace, manifests.NAME)
    assert seen.replicas == 0
    await world.do(box, JobType.SUSPEND)  # nothing to stop any more, and yet it fences
    late = {"metadata": {"resourceVersion": seen.resource_version}, "spec": {"replicas": 1}}
    with pytest.raises(VendorError) as refused:
        await world.cluster.merge("Deployment", box.k8s_namespace, manifests.NAME, late)
    assert refused.value.code == fencing.CONFLICT


async def test_a_sleeper_makes_no_place_again_that_was_destroyed(world):
    box = await world.live_box()
    run = await claimed_run(world, box, JobType.UPDATE)
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": box.k8s_namespace, "labels": {}, "annotations": {}},
    }
    looked = await world.cluster.find_object("Namespace", "", box.k8s_namespace)

    async def look(*_):
        return looked

    await world.cluster.delete_namespace(box.k8s_namespace)
    while await world.cluster.namespace_state(box.k8s_namespace) is not NamespaceState.ABSENT:
        pass
    asleep = replace(run, cluster=Sleeper(world.cluster, look))
    with pytest.raises(VendorError) as refused:
        await fencing.write_namespace(asleep, manifest)
    assert refused.value.code == "not_found"


class Sleeper:
    """A cluster as it was looked at before a long sleep."""

    def __init__(self, cluster, look):
        self.find_object = look
        self.create, self.merge = cluster.create, cluster.merge


async def test_a_box_that_is_wanted_again_is_not_destroyed(world):
    box = await world.live_box()
    run = await claimed_run(world, box, JobType.UPDATE)
    with pytest.raises(StopRequestedError):
        await ending.destroy(run, box, Why.DELETION_DUE)
    box = await world.read(box.id)
    assert box.status is BoxStatus.ACTIVE
    async with session_scope() as session:
        assert await queries.live_token_ids(session, box.id)


async def test_a_hold_that_comes_late_keeps_what_is_there(world):
    box = await world.live_box()
    await world.request(box, JobType.DESTROY)
    async with session_scope() as session:
        doomed = await queries.get_any_box(session, box.id, lock=True)
        doomed.status = BoxStatus.DESTROYING
        session.add_all([doomed, Hold(customer_id=box.customer_id, kind="dispute", reason="late")])
    await world.work()
    assert (await world.read(box.id)).status is BoxStatus.DESTROYING
    assert await world.cluster.namespace_state(box.k8s_namespace) is NamespaceState.ACTIVE
    (job,) = [one for one in await world.jobs_of(box) if one.job_type is JobType.DESTROY]
    assert (job.status, job.error_code) == (JobStatus.QUEUED, ending.HELD)
