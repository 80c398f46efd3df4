"""What follows when an attempt fails: wait, roll back, or say that it does not work."""

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import health, queries, reloading, revisions, service, upgrading
from openclaw_web.boxes.changes import BoxChange, ChangeKind, change_of
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.revisions import TRYING
from openclaw_web.boxes.sentences import PULL_TROUBLES, Reason, failure
from openclaw_web.core.clock import business_now
from openclaw_web.jobs import leases
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.leases import ClaimedJob
from openclaw_web.jobs.models import JobStatus, OperatorJob
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
    tried: int | None = None,
    asked_seconds: float = 0.0,
) -> list[BoxChange]:
    """End a failed attempt, and put the box where that leaves it.

    `is_settings_fault` means that trying these settings again is of no use when older ones worked.
    `tried` is the generation that the attempt was about, where the error names it; else the box's
    row says it. `asked_seconds` is how long the vendor wants to be left alone at least.

    Raises:
        LeaseLostError: the job is not ours any more.
    """
    if claimed.job.box_id is None:
        await leases.fail_job(session, claimed.fence, code=code, detail=detail, can_retry=can_retry)
        return []
    box = await queries.get_any_box(session, claimed.job.box_id, lock=True)
    faulty = await _tried(session, box, tried) if is_settings_fault else None
    fallback = await _fallback(session, faulty, code)
    job = await leases.fail_job(
        session,
        claimed.fence,
        code=code,
        detail=detail,
        can_retry=can_retry and fallback is None,
        asked_seconds=asked_seconds,
        why=failure(code),
    )
    health.announce(session, box)
    if job.status is JobStatus.QUEUED or job.error_code in SETTLED:
        await _wait_again(session, box, code)
        return []
    return await _give_up(session, box, code, faulty if fallback else None)


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


async def force_release(session: AsyncSession, job: OperatorJob, *, by: str) -> OperatorJob:
    """Take a running job from its worker at once; its box waits for the next one.

    Raises:
        ValidationError: the job does not run.
    """
    if job.box_id is None:
        return await leases.release_by_force(session, job.id, by=by)
    box = await queries.get_any_box(session, job.box_id, lock=True)
    released = await leases.release_by_force(session, job.id, by=by)
    health.announce(session, box)
    await _wait_again(session, box, leases.RELEASED_BY_FORCE)
    return released


async def _tried(session: AsyncSession, box: Box, named: int | None) -> BoxRevision | None:
    """Return the settings that this attempt was about: newer ones may have come meanwhile."""
    generation = box.health.get(TRYING) if named is None else named
    return None if generation is None else await session.get(BoxRevision, (box.id, generation))


async def _fallback(
    session: AsyncSession, faulty: BoxRevision | None, code: str
) -> BoxRevision | None:
    """Return the settings that could do better, if there are any."""
    if faulty is None or faulty.outcome != RevisionOutcome.PENDING.value:
        return None
    found = await revisions.find_fallback(session, faulty)
    if found is None:
        return None
    has_same_image = faulty.spec.get(reloading.IMAGE) == found.spec.get(reloading.IMAGE)
    return None if code in PULL_TROUBLES and has_same_image else found


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
    good = await queries.find_applied_revision(session, box.id, before=faulty.generation)
    await revisions.give_up(session, faulty, reason=code)
    if good is not None:
        await upgrading.take_back(session, box, faulty, good, reason=code)
    # A new pod, although its template may be the old one: what runs now is what did not work.
    await service.request_restart(session, box, requested_by=ROLLBACK)
    if faulty.generation < box.generation:
        return []  # its customer has changed the settings since: those come next
    is_ours = good is not None and revisions.differ_in_image_only(faulty, good)
    kind = ChangeKind.UPGRADE_FAILED if is_ours else ChangeKind.UPDATE_FAILED
    return [change_of(box, kind, reason=code)]
