"""An admin's click becomes a job, together with the line that says who clicked and why."""

from uuid import uuid4

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog
from openclaw_web.boxes.service import RESTART_MARK
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.jobs import leases, service
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.workflows import operations
from openclaw_web.workflows.operations import By
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("redis")
BY = By(admin_id=uuid4(), reason="the customer asked on the phone")


async def test_a_restart_is_a_job_and_a_line_in_the_audit(session):
    box = await make_box(session)
    job = await operations.restart_box(session, box.id, by=BY)
    line = (await session.exec(select(AuditLog))).one()
    assert (job.job_type, job.requested_by) == (JobType.UPDATE, f"admin:{BY.admin_id}")
    assert (line.action, line.resource_id, line.reason) == ("box.restart", str(job.id), BY.reason)
    assert line.actor_id == str(BY.admin_id)
    assert RESTART_MARK in box.health


async def test_a_rotation_and_an_upgrade_are_one_job_with_two_lines_in_the_audit(session):
    box = await make_box(session)
    first = await operations.rotate_token(session, box.id, by=BY)
    job = await operations.upgrade_box(session, box.id, "openclaw/openclaw:2026.10.1", by=BY)
    assert job.id == first.id
    assert set(job.payload["actions"]) == {"restart", "rotate", "upgrade", "update"}
    lines = (await session.exec(select(AuditLog))).all()
    assert {line.action for line in lines} == {"box.rotate", "box.upgrade"}


async def test_a_failed_job_is_tried_again_as_a_new_one(session):
    box = await make_box(session)
    old = await service.request_job(
        session,
        customer_id=box.customer_id,
        box_id=box.id,
        job_type=JobType.RESIZE,
        requested_by="sync",
    )
    with pytest.raises(ValidationError):
        await operations.retry_job(session, old.id, by=BY)
    claimed = await leases.claim_job(session, owner="a")
    assert claimed is not None
    await leases.fail_job(session, claimed.fence, code="quota", detail="full", can_retry=False)
    job = await operations.retry_job(session, old.id, by=BY)
    assert (job.id != old.id, job.job_type, job.status) == (True, JobType.RESIZE, JobStatus.QUEUED)
    assert job.correlation_id == old.correlation_id


async def test_a_waiting_job_is_cancelled_with_a_reason(session):
    box = await make_box(session)
    job = await operations.converge_box(session, box.id, by=BY)
    cancelled = await operations.cancel_job(session, job.id, by=BY)
    assert (cancelled.status, cancelled.error_code) == (JobStatus.FAILED, "cancelled")
    actions = [line.action for line in (await session.exec(select(AuditLog))).all()]
    assert actions == ["box.converge", "job.cancel"]


async def test_an_act_without_a_reason_is_refused(session):
    box = await make_box(session)
    with pytest.raises(ValidationError, match="reason"):
        await operations.check_box(session, box.id, by=By(admin_id=uuid4(), reason=" "))


async def test_what_does_not_exist_cannot_be_acted_upon(session):
    with pytest.raises(NotFoundError):
        await operations.restart_box(session, uuid4(), by=BY)
    with pytest.raises(NotFoundError):
        await operations.retry_job(session, uuid4(), by=BY)
    assert list((await session.exec(select(OperatorJob))).all()) == []
