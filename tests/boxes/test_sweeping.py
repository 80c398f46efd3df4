from datetime import timedelta
from typing import cast

import pytest
from sqlmodel import select

from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.watching import sweep
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView
from openclaw_web.jobs.models import Alert, JobType, OperatorJob
from tests.factories import make_box, make_subscription, now

pytestmark = pytest.mark.usefixtures("database", "redis")


class Namespaces:
    """As much of a cluster as the sweep looks at."""

    def __init__(self, *names):
        self.names = set(names)

    async def list_namespaces(self):
        return [
            NamespaceView(
                name=name,
                uid=f"uid-{name}",
                state=NamespaceState.ACTIVE,
                labels={"openclaw.cloud/box": "x"},
            )
            for name in self.names
        ]


async def a_box(*, subscription_status=SubscriptionStatus.ACTIVE, **fields):
    async with session_scope() as session:
        subscription = await make_subscription(session, status=subscription_status)
        return await make_box(session, subscription=subscription, **fields)


async def swept(*boxes, others=()):
    """Sweep twice, and return the jobs that this asked for: the second time must add none."""
    cluster = cast(Cluster, Namespaces(*(box.k8s_namespace for box in boxes), *others))
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
        ({"status": BoxStatus.SUSPENDED}, [JobType.REACTIVATE]),
        ({"status": BoxStatus.DESTROYING}, [JobType.DESTROY]),
        ({"user_paused_at": now()}, [JobType.SUSPEND]),
        ({"user_paused_at": now(), "status": BoxStatus.SUSPENDED}, []),
        ({"delete_after": now() - timedelta(seconds=1)}, [JobType.DESTROY]),
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


async def test_a_namespace_without_a_box_is_reported_and_left_alone():
    box = await a_box()
    cluster_names = ("customer-nobody",)
    assert await swept(box, others=cluster_names) == []
    async with session_scope() as session:
        alert = (await session.exec(select(Alert))).one()
    assert (alert.code, alert.detail["namespaces"]) == ("orphan_namespace", ["customer-nobody"])


async def test_an_empty_cluster_is_an_incident_and_nothing_is_rebuilt():
    for _ in range(6):
        await a_box(activated_at=now())
    assert await swept() == []


async def test_a_deletion_that_hangs_is_said():
    box = await a_box(status=BoxStatus.DESTROYING)
    async with session_scope() as session:
        box.status_changed_at = now() - timedelta(minutes=16)
        session.add(box)
    await swept(box)
    async with session_scope() as session:
        assert "namespace_stuck" in {one.code for one in (await session.exec(select(Alert))).all()}
