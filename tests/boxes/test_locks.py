"""Who locks a box and its jobs: the box first, so that two acts never wait for each other."""

import asyncio

import pytest

from openclaw_web.boxes import failures, queries, service
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import leases
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("database", "redis")
LONG_ENOUGH = 0.2  # for the other act to reach its first lock
DEADLOCK_SECONDS = 5  # PostgreSQL finds one after a second


@pytest.fixture
async def box():
    async with session_scope() as session:
        return await make_box(session, status=BoxStatus.ACTIVE)


async def request(session, box, job_type=JobType.UPDATE):
    return await jobs.request_job(
        session,
        customer_id=box.customer_id,
        box_id=box.id,
        job_type=job_type,
        requested_by="test",
    )


async def claimed_job(box):
    async with session_scope() as session:
        await request(session, box)
    async with session_scope() as session:
        return await leases.claim_job(session, owner="worker")


async def test_a_failing_attempt_and_a_pause_at_the_same_time_both_succeed(box):
    claimed = await claimed_job(box)

    async def fail():
        async with session_scope() as session:
            await failures.attempt_failed(
                session, claimed, code="timeout", detail="late", can_retry=True
            )

    async with asyncio.timeout(DEADLOCK_SECONDS):
        async with session_scope() as session:
            locked = await queries.get_any_box(session, box.id, lock=True)
            failing = asyncio.create_task(fail())
            await asyncio.sleep(LONG_ENOUGH)
            await service.pause(session, locked, requested_by="customer")
        await failing


async def test_a_reaped_job_and_a_pause_at_the_same_time_both_succeed(box, monkeypatch):
    monkeypatch.setattr(leases, "LEASE", -leases.LEASE)
    claimed = await claimed_job(box)

    async def reap():
        async with session_scope() as session:
            await failures.reap(session, claimed.job.id, box.id)

    async with asyncio.timeout(DEADLOCK_SECONDS):
        async with session_scope() as session:
            locked = await queries.get_any_box(session, box.id, lock=True)
            reaping = asyncio.create_task(reap())
            await asyncio.sleep(LONG_ENOUGH)
            await service.pause(session, locked, requested_by="customer")
        await reaping


async def test_a_job_can_be_asked_for_while_somebody_changes_its_box(box):
    async with asyncio.timeout(DEADLOCK_SECONDS), session_scope() as changing:
        await queries.get_any_box(changing, box.id, lock=True)
        async with session_scope() as asking:
            assert await request(asking, box)


async def test_a_dismissed_notice_takes_nothing_else_back(box):
    async with session_scope() as session:
        lost = await queries.get_any_box(session, box.id, lock=True)
        lost.health = {queries.MEMORY_LOST_AT: "2026-01-01T00:00:00+00:00"}

    async def dismiss():
        async with session_scope() as session:
            await service.dismiss_memory_notice(session, box.customer_id)

    async with session_scope() as session:
        seen = await queries.get_any_box(session, box.id, lock=True)
        dismissing = asyncio.create_task(dismiss())
        await asyncio.sleep(LONG_ENOUGH)
        seen.health = {**seen.health, "pod": {"is_ready": True}}
    await dismissing
    async with session_scope() as session:
        assert (await queries.get_any_box(session, box.id)).health == {"pod": {"is_ready": True}}
