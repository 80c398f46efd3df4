"""What follows when an attempt fails: wait, roll back, or say that it does not work."""

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import health, queries, service
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.sentences import Reason
from openclaw_web.core.clock import business_now
from openclaw_web.jobs import leases
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.leases import ClaimedJob
from openclaw_web.jobs.models import JobStatus, JobType
from openclaw_web.jobs.service import CANCELLED

ROLLBACK = "rollback"
SETTLED = frozenset({CANCELLED, leases.SUPERSEDED})


async def attempt_failed(
    session: AsyncSession,
    claimed: ClaimedJob,
    *,
    code: str,
    detail: str,
    can_retry: bool,
    is_settings_fault: bool = False,
) -> list[BoxChange]:
    """End a failed attempt, and put the box where that leaves it.

    `is_settings_fault` means that trying these settings again is of no use when older ones worked.

    Raises:
        LeaseLostError: the job is not ours any more.
    """
    if claimed.job.box_id is None:
        await leases.fail_job(session, claimed.fence, code=code, detail=detail, can_retry=can_retry)
        return []
    box = await queries.get_any_box(session, claimed.job.box_id, lock=True)
    target = await queries.find_target_revision(session, box.id)
    fallback = await _fallback(session, target) if is_settings_fault else None
    job = await leases.fail_job(
        session,
        claimed.fence,
        code=code,
        detail=detail,
        can_retry=can_retry and fallback is None,
    )
    health.announce(session, box)
    if job.status is JobStatus.QUEUED or job.error_code in SETTLED:
        await _wait_again(session, box, code)
        return []
    return await _give_up(session, box, code, target if fallback else None)


async def reap(session: AsyncSession, job_id: UUID, box_id: UUID | None) -> list[BoxChange]:
    """Take a silent worker's job back and put its box right: it waits again, or is given up."""
    if box_id is None:
        await leases.reap_job(session, job_id)
        return []
    box = await queries.get_any_box(session, box_id, lock=True)
    job = await leases.reap_job(session, job_id)
    if job is None:
        return []
    health.announce(session, box)
    if job.status is JobStatus.QUEUED or job.error_code in SETTLED:
        await _wait_again(session, box, leases.LEASE_EXPIRED)
        return []
    return await _give_up(session, box, leases.LEASE_EXPIRED, None)


async def _fallback(session: AsyncSession, target: BoxRevision | None) -> BoxRevision | None:
    if target is None or target.outcome != RevisionOutcome.PENDING.value:
        return None
    return await queries.find_applied_revision(session, target.box_id, before=target.generation)


async def _wait_again(session: AsyncSession, box: Box, code: str) -> None:
    now = await business_now(session)
    if box.status is BoxStatus.PROVISIONING:
        move(box, BoxStatus.PENDING, now=now, reason=code)
    elif box.status is BoxStatus.PENDING:
        box.status_reason = code
    session.add(box)


async def _give_up(
    session: AsyncSession, box: Box, code: str, faulty: BoxRevision | None
) -> list[BoxChange]:
    now = await business_now(session)
    if faulty is not None:
        return await _roll_back(session, box, code, faulty)
    await jobs.raise_alert(
        session, code=health.ALERT_FAILED, subject=str(box.id), detail={"reason": code}
    )
    if box.status in {BoxStatus.PENDING, BoxStatus.PROVISIONING}:
        move(box, BoxStatus.PROVISIONING, now=now)
        move(box, BoxStatus.UNHEALTHY, now=now, reason=Reason.PROVISION_FAILED)
        session.add(box)
        return [change_of(box, ChangeKind.PROVISION_FAILED, reason=code)]
    if box.status is BoxStatus.UPDATING:
        move(box, BoxStatus.UNHEALTHY, now=now, reason=code)
        session.add(box)
        return [change_of(box, ChangeKind.UNHEALTHY, reason=code)]
    return []


async def _roll_back(
    session: AsyncSession, box: Box, code: str, faulty: BoxRevision
) -> list[BoxChange]:
    """Mark the newest settings as failed and apply those that worked; only newer ones are tried."""
    faulty.outcome = RevisionOutcome.FAILED.value
    faulty.reason = code
    session.add(faulty)
    await service.request_converge(session, box, job_type=JobType.UPDATE, requested_by=ROLLBACK)
    return [change_of(box, ChangeKind.UPDATE_FAILED, reason=code)]
