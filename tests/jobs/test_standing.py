"""What a customer is told about a waiting job, and what an admin may do to a running one."""

from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts.models import AuditLog
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes import stops
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.switches import PlatformSetting
from openclaw_web.jobs import leases, pauses, queries, repairing, service
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.workflows import operations
from openclaw_web.workflows.operations import By
from tests.factories import make_box
from tests.jobs.test_leases import a_box, change, claim, read, request

pytestmark = pytest.mark.usefixtures("database", "redis")
BY = By(admin_id=uuid4(), reason="its worker hangs since an hour")


async def standing(box):
    async with session_scope() as session:
        return await queries.queue_standing(session, box.customer_id, box.id)


async def test_a_waiting_job_knows_how_many_are_before_it():
    first, second = await a_box(), await a_box()
    assert await standing(first) is None
    await request(first)
    await request(second)
    assert [(await standing(box)).position for box in (first, second)] == [1, 2]
    assert (await standing(first)).waiting_because == ""


async def test_a_job_says_why_it_waits():
    box, other = await a_box(), await a_box()
    job = await request(box, JobType.PROVISION)
    await change(job.id, attempt=1, run_after=sa.func.clock_timestamp() + timedelta(minutes=1))
    assert (await standing(box)).waiting_because == "retry"
    async with session_scope() as session:
        session.add(PlatformSetting(key=queries.PROVISIONING_PAUSED, value=True))
    await change(job.id, run_after=sa.func.clock_timestamp())
    assert (await standing(box)).waiting_because == "paused"
    async with session_scope() as session:
        await session.exec(sa.delete(PlatformSetting))
    await change(job.id, run_after=sa.func.clock_timestamp() - timedelta(minutes=1))
    assert (await standing(box)).waiting_because == "no_worker"
    await request(other, JobType.HEALTH_CHECK)
    check = await request(box, JobType.HEALTH_CHECK)
    await change(check.id, run_after=sa.func.clock_timestamp() - timedelta(hours=1))
    assert (await claim()).job.id == check.id
    assert (await standing(box)).waiting_because == "another_job"


async def a_far_box(**fields):
    async with session_scope() as session:
        return await make_box(session, cluster="far", **fields)


async def a_repair(box):
    async with session_scope() as session:
        return await service.request_job(
            session,
            customer_id=box.customer_id,
            box_id=box.id,
            job_type=JobType.PROVISION,
            requested_by=repairing.REQUESTER,
        )


async def test_another_clusters_queue_is_not_ones_own():
    far, here = await a_far_box(), await a_box()
    await request(far)
    job = await request(here)
    assert [(await standing(box)).position for box in (far, here)] == [1, 1]
    await change(job.id, run_after=sa.func.clock_timestamp() - timedelta(minutes=1))
    async with session_scope() as session:
        assert await leases.claim_job(session, owner="b", cluster="far") is not None
    assert (await standing(here)).waiting_because == "no_worker", (
        "who works there helps nobody here"
    )


async def test_a_repair_that_an_incident_holds_says_so_and_is_before_nobody():
    ailing, fresh = await a_box(), await a_box()
    await a_repair(ailing)
    await request(fresh)
    assert [(await standing(box)).position for box in (ailing, fresh)] == [1, 2]
    async with session_scope() as session:
        await service.raise_alert(session, code=repairing.HELD_BY, subject="default")
    assert (await standing(ailing)).waiting_because == "held"
    assert ((await standing(fresh)).position, (await standing(fresh)).waiting_because) == (1, "")


async def test_only_its_own_customer_sees_where_a_job_stands():
    box = await a_box()
    await request(box)
    async with session_scope() as session:
        assert await queries.queue_standing(session, uuid4(), box.id) is None


async def test_a_worker_leaves_the_boxes_of_another_cluster_alone():
    async with session_scope() as session:
        far = await make_box(session, cluster="far")
    await request(far)
    async with session_scope() as session:
        assert await leases.claim_job(session, owner="a", cluster="default") is None
    async with session_scope() as session:
        assert await leases.claim_job(session, owner="b", cluster="far") is not None


async def test_an_admin_takes_a_job_from_its_worker():
    async with session_scope() as session:
        box = await make_box(session, status=BoxStatus.PROVISIONING)
    job = await request(box, JobType.PROVISION)
    stuck = await claim("stuck")
    async with session_scope() as session:
        released = await operations.force_release(session, job.id, by=BY)
    assert (released.status, released.max_attempts) == (JobStatus.QUEUED, 6)
    for act in (leases.heartbeat, leases.hold, leases.finish_job):
        with pytest.raises(leases.LeaseLostError):
            async with session_scope() as session:
                await act(session, stuck.fence)
    async with session_scope() as session:
        line = (await session.exec(select(AuditLog))).one()
        assert (await session.get_one(type(box), box.id)).status is BoxStatus.PENDING
    assert (line.action, line.reason) == ("job.force_release", BY.reason)
    fresh = await claim("other")
    assert fresh.job.id == job.id
    assert fresh.fence.number > stuck.fence.number


async def test_only_a_running_job_can_be_released_and_never_without_a_reason():
    job = await request(await a_box())
    for job_id, error in ((job.id, ValidationError), (uuid4(), NotFoundError)):
        with pytest.raises(error):
            async with session_scope() as session:
                await operations.force_release(session, job_id, by=BY)
    await claim()
    with pytest.raises(ValidationError, match="reason"):
        async with session_scope() as session:
            await operations.force_release(session, job.id, by=By(admin_id=uuid4(), reason=""))
    assert (await read(job.id)).status is JobStatus.RUNNING


async def fail(claimed):
    async with session_scope() as session:
        await leases.fail_job(session, claimed.fence, code="timeout", detail="late")


async def let_it_be_reaped(claimed):
    await change(claimed.job.id, lease_until=sa.func.clock_timestamp() - timedelta(seconds=1))
    async with session_scope() as session:
        await leases.reap_job(session, claimed.job.id)


async def release(claimed):
    async with session_scope() as session:
        await leases.release_job(session, claimed.fence)


@pytest.mark.parametrize("ends", [fail, let_it_be_reaped, release])
async def test_a_cancelled_job_never_runs_again_however_its_attempt_ends(ends):
    job = await request(await a_box())
    claimed = await claim()
    async with session_scope() as session:
        await service.cancel_job(session, job.id, requested_by="test")
    await ends(claimed)
    job = await read(job.id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "cancelled")
    assert await claim() is None


async def test_a_pause_fits_its_cause_and_what_the_vendor_asks_for():
    def least(code, attempt=1, **asked):
        tries = [pauses.pause_after(attempt, code, **asked) for _ in range(50)]
        assert len(set(tries)) > 1
        return min(tries)

    assert 2 <= least("timeout") < 2.5
    assert least("timeout", attempt=9) >= 60
    assert least("quota") >= 15
    assert least("Unschedulable", attempt=2) >= 60
    assert 30 <= least("busy", asked_seconds=30) < 38
    assert 300 <= least("busy", asked_seconds=86_400) < 376


async def test_a_customer_restarts_five_times_an_hour_and_no_more():
    box = await a_box()
    for _ in range(stops.AN_HOUR):
        async with session_scope() as session:
            await boxes.request_restart(session, box, requested_by="customer")
        await claim()
        async with session_scope() as session:
            await session.exec(
                sa.update(OperatorJob)
                .where(col(OperatorJob.box_id) == box.id)
                .values(status=JobStatus.COMPLETE)
            )
    with pytest.raises(ValidationError, match="5 times within the hour"):
        async with session_scope() as session:
            await boxes.request_restart(session, box, requested_by="customer")
    async with session_scope() as session:
        await boxes.request_restart(session, box, requested_by="admin:1")


async def test_restarts_that_come_together_are_one():
    box = await a_box()
    for _ in range(4):
        async with session_scope() as session:
            await boxes.request_restart(session, box, requested_by="customer")
    async with session_scope() as session:
        (job,) = (await session.exec(select(OperatorJob))).all()
    assert job.payload["actions"] == ["restart", "update"]
