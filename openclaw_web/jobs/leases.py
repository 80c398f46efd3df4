"""Running jobs: claim one under a lease, write as its holder only, end it, reap what nobody holds.

Whoever locks a box and its jobs in one transaction locks the box first: two of them never wait for
each other.
Leases and due times are the database's real clock; `created_at` and the like are business time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import REAL_NOW, business_now, real_now
from openclaw_web.core.database import after_commit, at_once
from openclaw_web.core.errors import NotFoundError, OpenClawError, ValidationError
from openclaw_web.core.logs import redact
from openclaw_web.integrations import redis
from openclaw_web.jobs import merging, pauses, queries, repairing, service
from openclaw_web.jobs.models import JobStatus, OperatorJob

LEASE = timedelta(seconds=60)
HEARTBEAT_SECONDS = 15
# A worker that cannot say it lives for so long stops by itself, well before its lease ends.
LONGEST_SILENCE_SECONDS = 45
CLAIM_TRIES = 3
MAX_ERROR_CHARACTERS = 4_000
SUPERSEDED = "superseded"
LEASE_EXPIRED = "lease_expired"
RELEASED_BY_FORCE = "force_released"
# What a job's story says to its customer; who held it and what it said is in the error log.
INTERRUPTED = "Interrupted for a moment; going on."
FAULT_OF_OURS = "something went wrong on our side"
# The statements that each write to a cluster needs are built once.
_HELD = (
    col(OperatorJob.id) == sa.bindparam("held_job"),
    col(OperatorJob.status) == JobStatus.RUNNING,
    col(OperatorJob.lease_owner) == sa.bindparam("held_by"),
    col(OperatorJob.attempt) == sa.bindparam("held_attempt"),
)
_HELD_IN_TIME = (*_HELD, col(OperatorJob.lease_until) > REAL_NOW)
_CHECK = sa.select(col(OperatorJob.cancel_requested_at)).where(*_HELD_IN_TIME)
_HOLD = sa.select(col(OperatorJob.id)).where(*_HELD).with_for_update()
_ADD_LINE = (
    sa.update(OperatorJob)
    .where(*_HELD_IN_TIME)
    .values(
        progress=sa.cast(OperatorJob.progress, postgresql.JSONB).concat(
            sa.bindparam("line", type_=postgresql.JSONB)
        )
    )
    .returning(col(OperatorJob.customer_id), col(OperatorJob.cancel_requested_at))
)


class LeaseLostError(OpenClawError):
    """Somebody else holds this job now, or nobody; stop without another write."""


@dataclass(frozen=True, kw_only=True)
class Fence:
    """Who holds a job; every write names it, so that a worker that slept too long changes nothing.

    `number` grows with every claim (microseconds of the database's clock): it marks what we write
    to the cluster, where a higher one is never overwritten.
    """

    job_id: UUID
    owner: str
    attempt: int
    number: int

    @property
    def holder(self) -> dict[str, Any]:
        """Return what our statements compare with a job's row."""
        return {"held_job": self.job_id, "held_by": self.owner, "held_attempt": self.attempt}


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    job: OperatorJob
    fence: Fence


async def claim_job(
    session: AsyncSession,
    *,
    owner: str,
    cluster: str | None = None,
    most_repairs: int | None = None,
) -> ClaimedJob | None:
    """Take the oldest due job; `None` when nothing may run now.

    `cluster` leaves the boxes of every other cluster to the workers there; without it, any box.
    `most_repairs` is how many repairs this owner does at once; in an incident none starts.
    A unique index tells two workers apart that race for two jobs of one box; the loser looks again.
    """
    statement = _claim_statement(owner, cluster, most_repairs)
    for _ in range(CLAIM_TRIES):
        try:
            async with session.begin_nested():
                return await _claim(session, owner, statement)
        except IntegrityError:
            continue
    return None


async def _claim(
    session: AsyncSession, owner: str, statement: ReturningUpdate[OperatorJob, Any]
) -> ClaimedJob | None:
    found = await session.exec(
        statement,
        params={"now": await business_now(session)},
        execution_options={"populate_existing": True},
    )
    row = found.first()
    if row is None:
        return None
    job, number = row
    service.announce(session, job, rings=False)
    fence = Fence(job_id=job.id, owner=owner, attempt=job.attempt, number=number)
    return ClaimedJob(job=job, fence=fence)


@lru_cache(maxsize=1)
def _claim_statement(
    owner: str, cluster: str | None, most_repairs: int | None
) -> ReturningUpdate[OperatorJob, Any]:
    """Return the statement with which a worker claims: always the same one, so it is built once."""
    running = aliased(OperatorJob)
    due = (
        select(OperatorJob.id)
        .where(
            OperatorJob.status == JobStatus.QUEUED,
            col(OperatorJob.run_after) <= REAL_NOW,
            ~sa.and_(queries.is_setting_up(), queries.is_provisioning_paused()),
            repairing.is_of_cluster(cluster),
            repairing.may_run(owner, most_repairs),
            ~sa.exists().where(
                col(running.box_id) == col(OperatorJob.box_id),
                col(running.status) == JobStatus.RUNNING,
            ),
        )
        .order_by(col(OperatorJob.run_after), col(OperatorJob.created_at))
        .limit(1)
        .with_for_update(skip_locked=True, of=OperatorJob)
    )
    return (
        sa.update(OperatorJob)
        .where(col(OperatorJob.id) == due.scalar_subquery())
        .values(
            status=JobStatus.RUNNING,
            attempt=OperatorJob.attempt + 1,
            started_at=sa.func.coalesce(OperatorJob.started_at, sa.bindparam("now")),
            lease_owner=owner,
            lease_until=REAL_NOW + LEASE,
            cancel_requested_at=None,
            error_code=None,
        )
        .returning(
            OperatorJob,
            sa.cast(sa.func.extract("epoch", REAL_NOW) * 1_000_000, sa.BigInteger),
        )
    )


async def heartbeat(session: AsyncSession, fence: Fence) -> bool:
    """Prolong the lease and say whether somebody asked to stop.

    Raises:
        LeaseLostError: the job is not ours any more.
    """
    row = await _write(session, fence, lease_until=REAL_NOW + LEASE)
    return row.cancel_requested_at is not None


async def check_lease(fence: Fence) -> bool:
    """Say whether somebody asked to stop; done just before each write to the cluster.

    Raises:
        LeaseLostError: the job is not ours any more, or its lease is over.
    """
    found = await at_once(_CHECK, fence.holder)
    if found is None:
        raise _lost(fence)
    return found.cancel_requested_at is not None


async def check_and_tell(fence: Fence, sentence: str) -> bool:
    """Check the lease, and write a line into the job's story, with one statement.

    Raises:
        LeaseLostError: the job is not ours any more, or its lease is over.
    """
    found = await at_once(_ADD_LINE, {**fence.holder, "line": [_line(sentence)]})
    if found is None:
        raise _lost(fence)
    await redis.announce_change(found.customer_id)
    return found.cancel_requested_at is not None


async def hold(session: AsyncSession, fence: Fence) -> None:
    """Keep the job ours until this transaction ends: for writes that must not come too late.

    Raises:
        LeaseLostError: the job is not ours any more.
    """
    connection = await session.connection()
    if (await connection.execute(_HOLD, fence.holder)).first() is None:
        raise _lost(fence)


async def add_progress(session: AsyncSession, fence: Fence, sentence: str) -> bool:
    """Write one line into the job's story and show it to the customer; otherwise as `hold`.

    Says whether somebody asked to stop.

    Raises:
        LeaseLostError: the job is not ours any more, or its lease is over.
    """
    values = {**fence.holder, "line": [_line(sentence)]}
    found = (await (await session.connection()).execute(_ADD_LINE, values)).first()
    if found is None:
        raise _lost(fence)
    after_commit(session, partial(redis.announce_change, found.customer_id))
    return found.cancel_requested_at is not None


async def finish_job(session: AsyncSession, fence: Fence, sentence: str = "Done.") -> None:
    """End a job well.

    Raises:
        LeaseLostError: the job is not ours any more.
    """
    job = await _write(
        session,
        fence,
        status=JobStatus.COMPLETE,
        completed_at=await business_now(session),
        progress=_with_line(sentence),
        error_log=None,
        lease_owner=None,
        lease_until=None,
    )
    # A request may have arrived meanwhile, and no worker could claim it before this commit.
    service.announce(session, job)


async def fail_job(
    session: AsyncSession,
    fence: Fence,
    *,
    code: str,
    detail: str,
    can_retry: bool = True,
    asked_seconds: float = 0.0,
    why: str = FAULT_OF_OURS,
) -> OperatorJob:
    """End an attempt badly: try again after a pause, or end the job when no attempt is left.

    `why` is a clause that the customer reads; `code` and `detail` are for us. `asked_seconds` is
    how long the vendor wants to be left alone at least.

    Raises:
        LeaseLostError: the job is not ours any more.
    """
    job = await _locked(session, fence)
    if job.cancel_requested_at is not None:
        await _end_as_asked(session, job, detail)
        return job
    has_attempts = can_retry and job.attempt < job.max_attempts
    pause = pauses.pause_after(job.attempt, code, asked_seconds=asked_seconds)
    then = f"Trying again in {pause:.0f} s." if has_attempts else "We were told."
    sentence = f"That did not work: {why}. {then}"
    await _end_attempt(session, job, code=code, detail=detail, sentence=sentence)
    if has_attempts:
        await _queue_again(session, job, pause)
    return job


async def release_job(session: AsyncSession, fence: Fence) -> None:
    """Give a job back unfinished, because this worker ends; the attempt is not counted.

    Raises:
        LeaseLostError: the job is not ours any more.
    """
    job = await _locked(session, fence)
    await _hand_back(session, job, code="released", detail="The worker was stopped.")


async def release_by_force(session: AsyncSession, job_id: UUID, *, by: str) -> OperatorJob:
    """Take a running job from its worker, whether that lives or not: its fence ends with this.

    Raises:
        NotFoundError: there is no such job.
        ValidationError: it does not run.
    """
    job = await session.get(OperatorJob, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFoundError("There is no such job.")
    if job.status is not JobStatus.RUNNING:
        raise ValidationError("This job does not run; only a running job can be released.")
    detail = f"Taken from the worker {job.lease_owner} by {by}."
    await _hand_back(session, job, code=RELEASED_BY_FORCE, detail=detail)
    return job


async def _hand_back(session: AsyncSession, job: OperatorJob, *, code: str, detail: str) -> None:
    """Queue a locked job again at once; the attempt is not counted."""
    if job.cancel_requested_at is not None:
        return await _end_as_asked(session, job, detail)
    job.max_attempts += 1
    await _end_attempt(session, job, code=code, detail=detail, sentence=INTERRUPTED)
    return await _queue_again(session, job, 0)


async def any_customers_expired_jobs(session: AsyncSession) -> Sequence[OperatorJob]:
    """Return the jobs whose worker went silent, the longest first."""
    found = await session.exec(
        select(OperatorJob).where(*_expired()).order_by(col(OperatorJob.lease_until))
    )
    return found.all()


async def reap_job(session: AsyncSession, job_id: UUID) -> OperatorJob | None:
    """Take a job back whose lease is over; `None`: it is not, or another reaper is at it."""
    found = await session.exec(
        select(OperatorJob)
        .where(OperatorJob.id == job_id, *_expired())
        .with_for_update(skip_locked=True),
        execution_options={"populate_existing": True},
    )
    job = found.first()
    if job is None:
        return None
    detail = f"The worker {job.lease_owner} went silent; the lease ran out."
    if job.cancel_requested_at is not None:
        await _end_as_asked(session, job, detail)
        return job
    has_attempts = job.attempt < job.max_attempts
    sentence = INTERRUPTED if has_attempts else f"That did not work: {FAULT_OF_OURS}. We were told."
    await _end_attempt(session, job, code=LEASE_EXPIRED, detail=detail, sentence=sentence)
    if has_attempts:
        await _queue_again(session, job, 0)
    return job


async def _end_as_asked(session: AsyncSession, job: OperatorJob, detail: str) -> None:
    """End a job that somebody asked to stop, however its attempt ended: it never runs again."""
    sentence = "Stopped on request."
    await _end_attempt(session, job, code=service.CANCELLED, detail=detail, sentence=sentence)


async def _end_attempt(
    session: AsyncSession, job: OperatorJob, *, code: str, detail: str, sentence: str
) -> None:
    """Put a locked job to failed; `_queue_again` may lift it back into the queue."""
    job.status = JobStatus.FAILED
    job.error_code = code
    job.error_log = redact(detail)[:MAX_ERROR_CHARACTERS]
    job.progress = [*job.progress, _line(sentence)]
    job.completed_at = await business_now(session)
    job.lease_owner = None
    job.lease_until = None
    session.add(job)
    await session.flush()
    service.announce(session, job)


async def _queue_again(session: AsyncSession, job: OperatorJob, pause_seconds: float) -> None:
    """Queue a failed attempt again, unless a newer request waits: that one takes it over."""
    for _ in range(CLAIM_TRIES):
        waiting = await service.find_waiting(session, job.box_id, job.job_type)
        if waiting is not None:
            return await _hand_over(session, job, waiting)
        requeue = (
            sa.update(OperatorJob)
            .where(col(OperatorJob.id) == job.id)
            .values(
                status=JobStatus.QUEUED,
                completed_at=None,
                run_after=REAL_NOW + timedelta(seconds=pause_seconds),
            )
        )
        try:
            async with session.begin_nested():
                await session.exec(requeue)
        except IntegrityError:
            continue  # a request came between our look and our write; it takes this one over
        return await session.refresh(job)
    return None


async def _hand_over(session: AsyncSession, job: OperatorJob, waiting: OperatorJob) -> None:
    waiting.job_type, waiting.payload = merging.merge_requests(
        job.job_type, job.payload, waiting.job_type, waiting.payload
    )
    if job.requested_by != repairing.REQUESTER:
        waiting.requested_by = job.requested_by
    job.error_code = SUPERSEDED
    job.progress = [*job.progress, _line("A newer request took this one over.")]
    session.add_all([job, waiting])
    await session.flush()


async def _locked(session: AsyncSession, fence: Fence) -> OperatorJob:
    found = await session.exec(
        select(OperatorJob).where(*_held(fence)).with_for_update(),
        execution_options={"populate_existing": True},
    )
    job = found.first()
    if job is None:
        raise _lost(fence)
    return job


async def _write(session: AsyncSession, fence: Fence, **values: Any) -> OperatorJob:
    statement = sa.update(OperatorJob).where(*_held(fence)).values(**values).returning(OperatorJob)
    job = await session.scalar(statement, execution_options={"populate_existing": True})
    if job is None:
        raise _lost(fence)
    return job


def _lost(fence: Fence) -> LeaseLostError:
    return LeaseLostError(f"Job {fence.job_id} is not held by {fence.owner} any more.")


def _held(fence: Fence) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(OperatorJob.id) == fence.job_id,
        col(OperatorJob.status) == JobStatus.RUNNING,
        col(OperatorJob.lease_owner) == fence.owner,
        col(OperatorJob.attempt) == fence.attempt,
    )


def _expired() -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(OperatorJob.status) == JobStatus.RUNNING,
        col(OperatorJob.lease_until) < REAL_NOW,
    )


def _with_line(sentence: str) -> sa.ColumnElement[Any]:
    line = sa.cast([_line(sentence)], postgresql.JSONB)
    return sa.cast(OperatorJob.progress, postgresql.JSONB).concat(line)


def _line(sentence: str) -> dict[str, str]:
    return {"at": real_now().isoformat(timespec="milliseconds"), "text": redact(sentence)}
