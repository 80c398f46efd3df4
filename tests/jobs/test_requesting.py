import pytest
from sqlmodel import select

from openclaw_web.core.errors import ValidationError
from openclaw_web.jobs import inbox, leases, merging, queries, service
from openclaw_web.jobs.inbox import Received
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("redis")


async def request(session, box, job_type, **options):
    return await service.request_job(
        session,
        customer_id=box.customer_id,
        box_id=box.id,
        job_type=job_type,
        requested_by="test",
        **options,
    )


async def test_a_second_request_joins_the_waiting_job(session):
    box = await make_box(session)
    first = await request(session, box, JobType.UPDATE, payload={"actions": ["restart"]})
    second = await request(session, box, JobType.RESIZE)
    assert first.id == second.id
    assert second.job_type is JobType.RESIZE
    assert second.payload["actions"] == ["restart", "update", "resize"]
    assert len((await session.exec(select(OperatorJob))).all()) == 1


async def test_a_destroy_clears_what_waits_and_nothing_lifts_it(session):
    box = await make_box(session)
    await request(session, box, JobType.UPDATE)
    await request(session, box, JobType.DESTROY)
    job = await request(session, box, JobType.REACTIVATE)
    assert job.job_type is JobType.DESTROY
    assert job.payload["actions"] == ["destroy"]


async def test_a_request_during_a_run_waits_behind_it(session):
    box = await make_box(session)
    first = await request(session, box, JobType.PROVISION)
    assert await leases.claim_job(session, owner="a")
    second = await request(session, box, JobType.SUSPEND)
    assert second.id != first.id
    assert await leases.claim_job(session, owner="b") is None


async def test_health_checks_wait_apart(session):
    box = await make_box(session)
    await request(session, box, JobType.HEALTH_CHECK)
    await request(session, box, JobType.HEALTH_CHECK)
    await request(session, box, JobType.UPDATE)
    jobs = await queries.jobs_of_customer(session, box.customer_id)
    assert sorted(job.job_type for job in jobs) == [JobType.HEALTH_CHECK, JobType.UPDATE]


async def test_secrets_never_reach_a_payload(session):
    box = await make_box(session)
    clear = "123456789:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"
    job = await request(
        session,
        box,
        JobType.UPDATE,
        payload={"telegram_token": "x", "note": f"use {clear}", "more": [{"password": "y"}]},
    )
    assert clear not in str(job.payload)
    assert job.payload["telegram_token"] == "[redacted]"  # noqa: S105 - what must stand there
    assert job.payload["more"][0]["password"] == "[redacted]"  # noqa: S105 - what must stand there


async def test_a_waiting_job_is_cancelled_at_once_a_running_one_is_asked(session):
    box = await make_box(session)
    job = await request(session, box, JobType.UPDATE)
    await service.cancel_job(session, job.id, requested_by="admin")
    assert (job.status, job.error_code) == (JobStatus.FAILED, "cancelled")
    with pytest.raises(ValidationError):
        await service.cancel_job(session, job.id, requested_by="admin")

    await request(session, box, JobType.UPDATE)
    claimed = await leases.claim_job(session, owner="a")
    assert claimed is not None
    await service.cancel_job(session, claimed.job.id, requested_by="admin")
    assert await leases.heartbeat(session, claimed.fence) is True


async def test_a_webhook_event_is_stored_once(session):
    event = Received(
        provider="stripe", event_id="evt_1", event_type="invoice.paid", payload={"amount": 5}
    )
    assert await inbox.keep(session, [event, event]) == {"evt_1"}
    assert await inbox.keep(session, [event]) == set()
    (kept,) = await service.claim_webhook_events(session, owner="a")
    assert kept.payload == {"amount": 5}
    assert await service.claim_webhook_events(session, owner="b") == []


async def test_an_alert_is_open_once_and_can_come_back(session):
    for number in (1, 2):
        await service.raise_alert(session, code="c", subject="s", detail={"seen": number})
    (alert,) = await queries.any_customers_open_alerts(session)
    assert alert.detail == {"seen": 2}
    await service.resolve_alert(session, code="c", subject="s")
    assert list(await queries.any_customers_open_alerts(session)) == []
    await service.raise_alert(session, code="c", subject="s")
    assert len(await queries.any_customers_open_alerts(session)) == 1


def test_a_type_asked_twice_is_one_action():
    first = merging.with_action(JobType.UPDATE, None)
    job_type, payload = merging.merge_requests(JobType.UPDATE, first, JobType.UPDATE, first)
    assert (job_type, payload) == (JobType.UPDATE, {"actions": ["update"]})
