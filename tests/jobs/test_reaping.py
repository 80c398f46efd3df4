"""The worker's own brakes: one bad job holds up no other, and silence ends what it does."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from openclaw_web import worker
from openclaw_web.core.errors import OpenClawError
from openclaw_web.jobs.leases import ClaimedJob, Fence
from openclaw_web.jobs.models import JobType, OperatorJob

pytestmark = pytest.mark.usefixtures("session")


@dataclass
class Job:
    box_id: None = None
    id: UUID = field(default_factory=uuid4)


def a_claim() -> ClaimedJob:
    fence = Fence(job_id=uuid4(), owner="a", attempt=1, number=1)
    job = OperatorJob(id=fence.job_id, job_type=JobType.UPDATE, customer_id=uuid4())
    return ClaimedJob(job=job, fence=fence)


async def work() -> None:
    await asyncio.Event().wait()


async def test_a_job_that_cannot_be_reaped_holds_up_no_other(monkeypatch):
    bad, good = Job(), Job()
    reaped = []

    async def expired(_session):
        return [bad, good]

    async def reap(_session, job_id, _box_id):
        if job_id == bad.id:
            raise ValueError("torn")
        reaped.append(job_id)
        return []

    monkeypatch.setattr(worker.leases, "any_customers_expired_jobs", expired)
    monkeypatch.setattr(worker.failures, "reap", reap)
    with pytest.raises(OpenClawError):
        await worker.reap()
    assert reaped == [good.id]


async def test_a_database_that_hangs_ends_the_work_before_the_lease_does(monkeypatch):
    async def hang(_session, _fence):
        while True:  # a driver that does not let itself be cancelled at once
            try:
                return await asyncio.Event().wait()
            except asyncio.CancelledError:
                if released.is_set():
                    raise

    released = asyncio.Event()
    monkeypatch.setattr(worker.leases, "heartbeat", hang)
    monkeypatch.setattr(worker.leases, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(worker.leases, "LONGEST_SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(worker, "HEARTBEAT_PATIENCE_SECONDS", 0.01)
    before = asyncio.all_tasks()
    doing = asyncio.create_task(work())
    await worker._beat(a_claim(), doing)  # noqa: SLF001 - no way around a whole cluster
    with pytest.raises(asyncio.CancelledError):
        await doing
    released.set()
    stuck = asyncio.all_tasks() - before
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
