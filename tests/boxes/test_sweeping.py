from datetime import timedelta
from typing import cast

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog
from openclaw_web.billing.models import BillingSync, SubscriptionStatus
from openclaw_web.boxes import deletions, health, incidents, queries, sweeping
from openclaw_web.boxes.changes import ChangeKind
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.sweeping import sweep
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView
from openclaw_web.jobs import queries as jobs_read
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType, OperatorJob
from tests.factories import make_box, make_subscription, now

pytestmark = pytest.mark.usefixtures("database", "redis")


ENFORCE = "pod-security.kubernetes.io/enforce"


class Namespaces:
    """As much of a cluster as the sweep looks at."""

    def __init__(self, *names):
        self.names = set(names)
        self.hidden: set[str] = set()  # somebody took off their labels
        self.unguarded: set[str] = set()  # somebody lets any pod into these

    async def list_namespaces(self, selector="managed"):
        return [
            NamespaceView(
                name=name,
                uid=f"uid-{name}",
                state=NamespaceState.ACTIVE,
                labels=self.labels_of(name),
            )
            for name in self.names - (self.hidden if selector else set())
        ]

    def labels_of(self, name):
        found = {} if name in self.hidden else dict(sweeping.LABELS)
        return found | ({ENFORCE: "privileged"} if name in self.unguarded else {})

    async def merge(self, _kind, _namespace, name, change):
        labels = self.labels_of(name) | change["metadata"]["labels"]
        assert labels == sweeping.LABELS
        self.hidden.discard(name)
        self.unguarded.discard(name)

    async def find_namespace(self, name):
        return next((one for one in await self.list_namespaces("") if one.name == name), None)


async def a_box(*, subscription_status=SubscriptionStatus.ACTIVE, **fields):
    async with session_scope() as session:
        subscription = await make_subscription(session, status=subscription_status)
        return await make_box(session, subscription=subscription, **fields)


async def swept(*boxes):
    """Sweep twice, and return the jobs that this asked for: the second time must add none."""
    cluster = cast(Cluster, Namespaces(*(box.k8s_namespace for box in boxes)))
    for _ in range(2):
        await sweep(cluster, "default")
    async with session_scope() as session:
        return [job.job_type for job in (await session.exec(select(OperatorJob))).all()]


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"status": BoxStatus.ACTIVE}, []),
        ({"status": BoxStatus.PENDING}, [JobType.PROVISION]),
        ({"status": BoxStatus.PROVISIONING}, [JobType.PROVISION]),
        ({"status": BoxStatus.UPDATING}, [JobType.UPDATE]),
        ({"status": BoxStatus.UNHEALTHY}, [JobType.PROVISION]),
        ({"status": BoxStatus.UNHEALTHY, "status_reason": health.TELEGRAM}, []),
        ({"status": BoxStatus.SUSPENDED}, [JobType.REACTIVATE]),
        ({"status": BoxStatus.DESTROYING}, [JobType.DESTROY]),
        ({"user_paused_at": now()}, [JobType.SUSPEND]),
        ({"user_paused_at": now(), "status": BoxStatus.SUSPENDED}, []),
        ({"subscription_status": SubscriptionStatus.SUSPENDED}, [JobType.SUSPEND]),
        ({"status": BoxStatus.DESTROYED}, []),
    ],
)
async def test_a_box_that_is_not_where_it_belongs_gets_one_job(fields, asked):
    assert await swept(await a_box(**fields)) == asked


async def test_a_failed_repair_is_tried_again_after_ten_minutes():
    box = await a_box(status=BoxStatus.UNHEALTHY)
    async with session_scope() as session:
        job = OperatorJob(
            customer_id=box.customer_id,
            box_id=box.id,
            job_type=JobType.PROVISION,
            status="failed",
            completed_at=now() - timedelta(minutes=9),
        )
        session.add(job)
    assert await swept(box) == [JobType.PROVISION]
    async with session_scope() as session:
        job.completed_at = now() - timedelta(minutes=11)
        session.add(job)
    assert await swept(box) == [JobType.PROVISION, JobType.PROVISION]


async def test_an_empty_cluster_is_an_incident_and_nothing_is_rebuilt():
    boxes = [await a_box(activated_at=now()) for _ in range(6)]
    assert await swept() == []
    async with session_scope() as session:
        for box in boxes:
            found = await queries.get_any_box(session, box.id)
            assert found.status is BoxStatus.UNHEALTHY
            assert health.LOST_UID not in found.health
        assert await incidents.is_incident(session, "default")  # nobody knows less than the sweep


async def test_an_incident_that_a_person_ended_does_not_begin_anew():
    for _ in range(6):
        await a_box(activated_at=now())
    await swept()
    async with session_scope() as session:
        await incidents.end(session, "default", by="admin:a")
    assert len(await swept()) == 6
    async with session_scope() as session:
        assert not await incidents.is_incident(session, "default")


async def test_a_label_that_somebody_took_off_is_put_back():
    boxes = [await a_box(activated_at=now()) for _ in range(6)]
    cluster = Namespaces(*(box.k8s_namespace for box in boxes))
    cluster.hidden = set(cluster.names)
    assert await sweep(cast(Cluster, cluster), "default") == []
    assert cluster.hidden == set()
    async with session_scope() as session:
        assert not await incidents.is_incident(session, "default")


@pytest.mark.parametrize("status", [BoxStatus.ACTIVE, BoxStatus.SUSPENDED])
async def test_a_namespace_that_lets_any_pod_in_is_closed_again_and_that_is_written_down(status):
    paused_at = now() if status is BoxStatus.SUSPENDED else None
    box = await a_box(activated_at=now(), status=status, user_paused_at=paused_at)
    cluster = Namespaces(box.k8s_namespace)
    cluster.unguarded = {box.k8s_namespace}
    for _ in range(2):
        await sweep(cast(Cluster, cluster), "default")
    assert cluster.unguarded == set()
    async with session_scope() as session:
        (line,) = (await session.exec(select(AuditLog))).all()
    assert (line.action, line.resource_id) == ("box.labels_put_back", str(box.id))
    assert line.diff == {"found": {ENFORCE: "privileged"}}


async def test_a_namespace_that_a_job_works_at_is_left_to_it():
    box = await a_box(status=BoxStatus.UPDATING)
    await swept(box)  # asks for the job
    cluster = Namespaces(box.k8s_namespace)
    cluster.unguarded = {box.k8s_namespace}
    await sweep(cast(Cluster, cluster), "default")
    assert cluster.unguarded == {box.k8s_namespace}


async def test_a_memory_lost_in_an_incident_is_told_when_it_is_over():
    boxes = [await a_box(activated_at=now()) for _ in range(6)]
    cluster = Namespaces(*(box.k8s_namespace for box in boxes))
    async with session_scope() as session:
        await health.mark_fallen(session, {box.k8s_namespace: "no_pod" for box in boxes})
        lost = await queries.get_any_box(session, boxes[0].id, lock=True)
        assert await health.note_loss(session, lost, uid="u1") == []
    assert await sweep(cast(Cluster, cluster), "default") == []
    async with session_scope() as session:
        await incidents.end(session, "default", by="admin:a")
    found = [await sweep(cast(Cluster, cluster), "default") for _ in range(2)]
    assert [[change.kind for change in one] for one in found] == [[ChangeKind.MEMORY_LOST], []]


REMAINS = "Some content has finalizers remaining: example.com/keep in 1 resource instances"


class Ending(Namespaces):
    """One namespace that ends since then; without a time, one that does not end yet."""

    def __init__(self, name, since):
        super().__init__(name)
        self.since = since

    async def list_namespaces(self, selector="managed"):
        assert selector in {"managed", ""}
        state = NamespaceState.TERMINATING if self.since else NamespaceState.ACTIVE
        return [
            NamespaceView(
                name=name,
                uid="u",
                state=state,
                ending_since=self.since,
                labels=self.labels_of(name),
                remains=(REMAINS,),
                finalizers=("kubernetes",),
            )
            for name in self.names
        ]


async def swept_while_ending(box, *, minutes=None):
    """Sweep while the namespace ends for so long; return the alert and what the page says."""
    since = None if minutes is None else now() - timedelta(minutes=minutes)
    await sweep(cast(Cluster, Ending(box.k8s_namespace, since)), "default")
    async with session_scope() as session:
        alert = await jobs_read.find_open_alert(
            session, code="namespace_stuck", subject=str(box.id)
        )
        return alert, await queries.box_status_view(session, box.customer_id)


async def test_a_deletion_that_hangs_is_said_with_what_keeps_it():
    box = await a_box(status=BoxStatus.DESTROYING)
    alert, view = await swept_while_ending(box, minutes=14)
    assert alert is None
    alert, view = await swept_while_ending(box, minutes=16)
    assert alert.detail["remains"] == [REMAINS]
    assert alert.detail["finalizers"] == ["kubernetes"]
    assert REMAINS in alert.detail["sentence"]
    assert "unusually long" in view.sentence


async def test_a_deletion_that_waits_for_its_last_backup_does_not_hang():
    long_ago = now() - timedelta(hours=3)
    box = await a_box(status=BoxStatus.DESTROYING, status_changed_at=long_ago)
    assert (await swept_while_ending(box))[0] is None
    assert (await swept_while_ending(box, minutes=20))[0] is not None
    alert, view = await swept_while_ending(box)
    assert alert is None, "what an earlier release reported is taken back"
    assert "unusually long" not in view.sentence


async def synced(box, at):
    async with session_scope() as session:
        row = await session.get(BillingSync, box.customer_id) or BillingSync(
            customer_id=box.customer_id
        )
        row.synced_at, row.synced_seq = at, row.requested_seq
        session.add(row)


async def test_a_box_that_is_due_goes_only_after_a_look_at_stripe_since_then():
    due = now() - timedelta(minutes=1)
    box = await a_box(delete_after=due, status=BoxStatus.SUSPENDED)
    await synced(box, due - timedelta(seconds=1))  # as a restored database says
    assert await swept(box) == []
    async with session_scope() as session:
        sync = await session.get_one(BillingSync, box.customer_id)
        assert (sync.requested_seq, sync.synced_seq) == (1, 0)  # asked for once, by two sweeps
    await synced(box, due)
    assert await swept(box) == [JobType.DESTROY]


async def test_too_many_deletions_within_an_hour_stop_until_the_alert_is_closed(monkeypatch):
    monkeypatch.setattr(deletions, "MINIMUM", 2)
    boxes = [await a_box(delete_after=now() - timedelta(minutes=1)) for _ in range(5)]
    for box in boxes:
        await synced(box, now())
    assert await swept(*boxes) == [JobType.DESTROY] * 2
    async with session_scope() as session:
        await jobs.resolve_alert(session, code=deletions.ALERT_MANY, subject="default")
    assert await swept(*boxes) == [JobType.DESTROY] * 4
