"""Repairs come after what people wait for: they use half of the hands, and wait in an incident."""

import pytest

from openclaw_web.core.database import session_scope
from openclaw_web.jobs import leases, repairing
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("database", "redis")


async def ask(requested_by, box=None):
    async with session_scope() as session:
        box = box or await make_box(session)
        return await jobs.request_job(
            session,
            customer_id=box.customer_id,
            box_id=box.id,
            job_type=JobType.PROVISION,
            requested_by=requested_by,
        )


async def take():
    async with session_scope() as session:
        found = await leases.claim_job(session, owner="a", cluster="default", most_repairs=1)
        return found.job if found else None


async def test_repairs_leave_hands_for_those_who_wait():
    for _ in range(3):
        await ask(repairing.REQUESTER)
    fresh = await ask("provisioning")
    first, second, third = await take(), await take(), await take()
    assert first is not None
    assert second is not None
    assert (first.requested_by, first.max_attempts) == (repairing.REQUESTER, repairing.ATTEMPTS)
    assert (second.id, second.max_attempts) == (fresh.id, repairing.USUAL_ATTEMPTS)
    assert third is None


async def test_no_repair_starts_in_an_incident_of_its_cluster():
    await ask(repairing.REQUESTER)
    async with session_scope() as session:
        await jobs.raise_alert(session, code=repairing.HELD_BY, subject="default")
    assert await take() is None
    async with session_scope() as session:
        await jobs.resolve_alert(session, code=repairing.HELD_BY, subject="default")
    assert await take() is not None


async def test_a_repair_makes_nobodys_request_one():
    async with session_scope() as session:
        box = await make_box(session)
    await ask("customer", box)
    merged = await ask(repairing.REQUESTER, box)
    assert (merged.requested_by, merged.max_attempts) == ("customer", repairing.USUAL_ATTEMPTS)
