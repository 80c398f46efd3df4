"""Due jobs that nobody does are told by cluster, with the cause; what waits on purpose is not."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import PlatformSetting
from openclaw_web.jobs import leases, queries, repairing, service, stuck
from openclaw_web.jobs.models import JobType
from tests.jobs.test_leases import a_box, change, claim, request
from tests.jobs.test_standing import a_far_box, a_repair

pytestmark = pytest.mark.usefixtures("database", "redis")


async def late(job):
    await change(job.id, run_after=sa.func.clock_timestamp() - timedelta(minutes=31))
    return job


async def causes():
    """Look at the queue, and return the cause that is told for each cluster."""
    async with session_scope() as session:
        count = await stuck.watch_queue(session)
        found = await queries.any_customers_alerts_of(session, stuck.ALERT)
    assert count == sum(alert.detail["jobs"] for alert in found)
    return {alert.subject: alert.detail["cause"] for alert in found}


async def test_one_alert_stays_open_while_due_jobs_wait_too_long():
    await late(await request(await a_box()))
    assert await causes() == await causes() == {"default": "no_worker"}
    async with session_scope() as session:
        (alert,) = await queries.any_customers_open_alerts(session)
    assert alert.detail["sentence"].startswith("1 job waits since ")
    assert alert.detail["sentence"].endswith(": no worker takes jobs of this cluster.")
    await claim()
    assert await causes() == {}


async def test_the_cause_is_that_of_the_jobs_own_cluster():
    await late(await request(await a_box()))
    await late(await request(await a_far_box()))
    await request(await a_far_box())
    async with session_scope() as session:
        assert await leases.claim_job(session, owner="b", cluster="far") is not None
    await late(await request(await a_far_box()))
    assert await causes() == {"default": "no_worker", "far": "busy"}
    async with session_scope() as session:
        await service.raise_alert(session, code=queries.WATCH_SILENT, subject="far")
    assert await causes() == {"default": "no_worker", "far": "cluster_silent"}


async def test_set_ups_that_an_admin_stopped_are_not_stuck():
    await late(await request(await a_box(), JobType.PROVISION))
    assert await causes() == {"default": "no_worker"}
    async with session_scope() as session:
        session.add(PlatformSetting(key=queries.PROVISIONING_PAUSED, value=True))
    assert await causes() == {}


async def test_repairs_that_an_incident_holds_are_not_stuck():
    await late(await a_repair(await a_box()))
    async with session_scope() as session:
        await service.raise_alert(session, code=repairing.HELD_BY, subject="default")
    assert await causes() == {}


async def test_a_job_behind_another_one_of_its_box_is_not_stuck():
    box = await a_box()
    await request(box)
    assert await claim() is not None
    await late(await request(box))
    assert await causes() == {}
