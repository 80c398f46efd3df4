import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col

from openclaw_web.core.clock import REAL_NOW
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import leases, queries, service
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("database", "redis")


async def a_box():
    async with session_scope() as session:
        return await make_box(session)


async def request(box, job_type=JobType.UPDATE):
    async with session_scope() as session:
        return await service.request_job(
            session,
            customer_id=box.customer_id,
            box_id=box.id,
            job_type=job_type,
            requested_by="test",
        )


async def claim(owner="a"):
    async with session_scope() as session:
        return await leases.claim_job(session, owner=owner)


async def change(job_id, **values):
    async with session_scope() as session:
        await session.exec(
            sa.update(OperatorJob).where(col(OperatorJob.id) == job_id).values(**values)
        )


async def read(job_id):
    async with session_scope() as session:
        return await queries.any_customers_job(session, job_id)


async def test_of_many_claims_at_once_one_gets_the_job():
    job = await request(await a_box())
    claimed = [one for one in await asyncio.gather(*(claim(f"w{i}") for i in range(6))) if one]
    assert [one.job.id for one in claimed] == [job.id]
    assert claimed[0].fence.attempt == 1


async def test_two_jobs_of_one_box_never_run_together():
    box = await a_box()
    await request(box)
    await request(box, JobType.HEALTH_CHECK)
    claimed = [one for one in await asyncio.gather(*(claim(f"w{i}") for i in range(6))) if one]
    assert len(claimed) == 1


async def test_boxes_do_not_wait_for_each_other():
    await request(await a_box())
    await request(await a_box())
    claimed = [one for one in await asyncio.gather(*(claim(f"w{i}") for i in range(4))) if one]
    assert len({one.job.box_id for one in claimed}) == 2


async def test_the_fence_grows_with_every_claim():
    await request(await a_box())
    first = await claim()
    async with session_scope() as session:
        await leases.release_job(session, first.fence)
    second = await claim()
    assert second.fence.number > first.fence.number
    assert second.fence.attempt == 2
    assert second.job.max_attempts == 6


async def test_a_failed_attempt_waits_longer_each_time_and_then_ends():
    job = await request(await a_box())
    pauses = []
    for _ in range(5):
        await change(job.id, run_after=sa.func.clock_timestamp())
        claimed = await claim()
        async with session_scope() as session:
            ended = await leases.fail_job(session, claimed.fence, code="quota", detail="no room")
            now = await session.scalar(sa.select(REAL_NOW))
        assert ended.run_after is not None
        assert now is not None
        pauses.append((ended.run_after - now).total_seconds())
    for pause, least in zip(pauses, (15, 60, 180, 300), strict=False):
        assert least - 1 < pause <= 1.25 * least
    assert (ended.status, ended.error_code) == (JobStatus.FAILED, "quota")
    assert ended.progress[-1]["text"].endswith("We were told.")


async def test_a_failure_that_cannot_be_mended_is_not_tried_again():
    await request(await a_box())
    claimed = await claim()
    async with session_scope() as session:
        job = await leases.fail_job(
            session, claimed.fence, code="bad_token", detail="no", can_retry=False
        )
    assert job.status is JobStatus.FAILED


async def test_a_retry_that_meets_a_newer_request_is_superseded():
    box = await a_box()
    await request(box)
    claimed = await claim()
    newer = await request(box, JobType.SUSPEND)
    async with session_scope() as session:
        old = await leases.fail_job(session, claimed.fence, code="timeout", detail="late")
    newer = await read(newer.id)
    assert (old.status, old.error_code) == (JobStatus.FAILED, "superseded")
    assert (newer.job_type, newer.payload["actions"]) == (JobType.SUSPEND, ["update", "suspend"])


async def test_the_reaper_takes_a_silent_workers_job_and_its_writes_fail():
    job = await request(await a_box())
    silent = await claim("silent")
    await change(job.id, lease_until=sa.func.clock_timestamp() - timedelta(seconds=1))
    async with session_scope() as first, session_scope() as second:
        (expired,) = await leases.any_customers_expired_jobs(first)
        assert await leases.reap_job(first, expired.id) is not None
        assert await leases.reap_job(second, expired.id) is None
    assert expired.id == job.id
    assert (await claim("other")).fence.attempt == 2
    for act in (leases.heartbeat, leases.hold, leases.finish_job):
        with pytest.raises(leases.LeaseLostError):
            async with session_scope() as session:
                await act(session, silent.fence)


async def test_a_line_of_the_story_proves_that_the_lease_holds():
    job = await request(await a_box())
    claimed = await claim()
    assert not await leases.check_and_tell(claimed.fence, "Making a place.")
    assert not await leases.check_lease(claimed.fence)
    await change(job.id, cancel_requested_at=sa.func.clock_timestamp())
    assert await leases.check_and_tell(claimed.fence, "Closing its network.")
    assert await leases.check_lease(claimed.fence)
    told = [line["text"] for line in (await read(job.id)).progress]
    assert told == ["Making a place.", "Closing its network."]


async def test_nothing_is_told_nor_checked_once_the_lease_is_over_or_another_worker_has_the_job():
    job = await request(await a_box())
    silent = await claim("silent")
    await change(job.id, lease_until=sa.func.clock_timestamp() - timedelta(seconds=1))
    for _ in range(2):
        with pytest.raises(leases.LeaseLostError):
            await leases.check_lease(silent.fence)
        with pytest.raises(leases.LeaseLostError):
            await leases.check_and_tell(silent.fence, "Too late.")
        async with session_scope() as session:
            with pytest.raises(leases.LeaseLostError):
                await leases.add_progress(session, silent.fence, "Too late.")
        async with session_scope() as session:
            await leases.reap_job(session, job.id)
        await claim("other")
    assert [line["text"] for line in (await read(job.id)).progress] == [leases.INTERRUPTED]


async def test_the_reaper_ends_a_job_without_attempts_left():
    job = await request(await a_box())
    await claim()
    await change(
        job.id, lease_until=sa.func.clock_timestamp() - timedelta(seconds=1), max_attempts=1
    )
    async with session_scope() as session:
        await leases.reap_job(session, job.id)
    job = await read(job.id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "lease_expired")


async def test_progress_is_told_in_order_and_without_secrets():
    await request(await a_box())
    claimed = await claim()
    async with session_scope() as session:
        await leases.add_progress(session, claimed.fence, "Making the namespace.")
        await leases.add_progress(
            session, claimed.fence, "Using 123456789:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"
        )
        await leases.finish_job(session, claimed.fence)
    lines = [line["text"] for line in (await read(claimed.job.id)).progress]
    assert lines == ["Making the namespace.", "Using [redacted]", "Done."]
