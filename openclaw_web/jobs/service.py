"""Asking the operator for something, the webhook inbox, and alerts; `jobs/leases.py` runs jobs."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import REAL_NOW, business_now
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.logs import redact
from openclaw_web.integrations import redis
from openclaw_web.jobs import inbox, merging, repairing
from openclaw_web.jobs.models import (
    Alert,
    JobStatus,
    JobType,
    OperatorJob,
    WebhookEvent,
    WebhookOutcome,
)

BELL = "jobs"
WEBHOOK_BELL = inbox.BELL
TIMER_BELL, SWEEP_BELL = "timers", "sweep"
# Loops of the worker that turn at once when their bell rings: whoever moves the clock does that.
RUNG_LOOPS = frozenset({TIMER_BELL, SWEEP_BELL})
WEBHOOK_LEASE = timedelta(seconds=60)
WEBHOOK_BACK_OFF_SECONDS = (2, 5, 15, 60, 300, 900)
WEBHOOK_MAX_ATTEMPTS = 20  # with the back-off above: about four hours
REQUEST_TRIES = (
    3  # a claim or another request can come between our look and our write, hardly twice
)
CANCELLED = "cancelled"
_RESOLVE = (
    sa.update(Alert)
    .where(
        col(Alert.code) == sa.func.any(sa.bindparam("codes", type_=ARRAY(sa.Text))),
        col(Alert.subject) == sa.bindparam("of"),
        col(Alert.resolved_at).is_(None),
    )
    .values(resolved_at=sa.bindparam("now"))
)


class JobConflictError(ValidationError):
    """The queue kept changing while a request was written; asking again helps."""


async def request_job(
    session: AsyncSession,
    *,
    customer_id: UUID,
    box_id: UUID | None,
    job_type: JobType,
    requested_by: str,
    payload: dict[str, Any] | None = None,
    correlation_id: UUID | None = None,
    delay: timedelta = timedelta(),
) -> OperatorJob:
    """Queue a job; a box's waiting job takes the new request in, so that one waits at most.

    `delay` lets it wait for more of its kind; a job that waits already never waits longer by it.

    Raises:
        JobConflictError: the queue of this box changed three times meanwhile.
    """
    wanted = OperatorJob(
        customer_id=customer_id,
        box_id=box_id,
        job_type=job_type,
        payload=merging.with_action(job_type, payload),
        requested_by=requested_by,
        max_attempts=repairing.attempts_of(requested_by),
        correlation_id=correlation_id,
        created_at=await business_now(session),
    )
    for _ in range(REQUEST_TRIES):
        job = await _merge(session, wanted, delay) or await _insert(session, wanted, delay)
        if job is not None:
            announce(session, job)
            return job
    raise JobConflictError("This box is very busy; try again in a moment.")


async def cancel_job(session: AsyncSession, job_id: UUID, *, requested_by: str) -> OperatorJob:
    """End a waiting job at once; ask a running one to stop at its next step.

    Raises:
        NotFoundError: there is no such job.
        ValidationError: it has ended already.
    """
    job = await session.get(OperatorJob, job_id, with_for_update=True)
    if job is None:
        raise NotFoundError("There is no such job.")
    if job.status is JobStatus.QUEUED:
        job.status = JobStatus.FAILED
        job.error_code = CANCELLED
        job.error_log = f"Cancelled by {requested_by} before it started."
        job.completed_at = await business_now(session)
    elif job.status is JobStatus.RUNNING:
        job.cancel_requested_at = job.cancel_requested_at or await business_now(session)
    else:
        raise ValidationError("This job has ended already.")
    session.add(job)
    await session.flush()
    announce(session, job, rings=False)
    return job


async def interrupt_running(session: AsyncSession, box_id: UUID) -> None:
    """Ask what runs for this box to stop at its next step: something stronger waits behind it."""
    await session.exec(
        sa.update(OperatorJob)
        .where(
            col(OperatorJob.box_id) == box_id,
            col(OperatorJob.status) == JobStatus.RUNNING,
            col(OperatorJob.cancel_requested_at).is_(None),
        )
        .values(cancel_requested_at=await business_now(session))
        .execution_options(synchronize_session=False)
    )


def announce(session: AsyncSession, job: OperatorJob, *, rings: bool = True) -> None:
    """After the commit: wake a worker, and tell the customer's pages."""
    if rings:
        after_commit(session, partial(redis.ring, BELL, str(job.id)))
    after_commit(session, partial(redis.announce_change, job.customer_id))


def answer_of(bell: str) -> str:
    """Return the bell on which a worker says that it has done what it was asked for."""
    return f"{bell}-done"


async def claim_webhook_events(
    session: AsyncSession,
    *,
    owner: str,
    limit: int = 50,
    only: Collection[str] | None = None,
    but: Collection[str] = (),
) -> list[WebhookEvent]:
    """Take due events for a minute, the oldest first; no other worker sees them meanwhile.

    It counts as a try: take no more than can be tried within that minute. `only` and `but` are
    types of events.
    """
    event_type = col(WebhookEvent.event_type)
    due = (
        select(WebhookEvent.id)
        .where(
            ~col(WebhookEvent.processed),
            event_type.not_in(but) if only is None else event_type.in_(only),
            col(WebhookEvent.run_after) <= REAL_NOW,
            sa.or_(
                col(WebhookEvent.lease_until).is_(None), col(WebhookEvent.lease_until) < REAL_NOW
            ),
        )
        .order_by(col(WebhookEvent.created_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = (
        sa.update(WebhookEvent)
        .where(col(WebhookEvent.id).in_(due))
        .values(
            lease_owner=owner,
            lease_until=REAL_NOW + WEBHOOK_LEASE,
            attempt=WebhookEvent.attempt + 1,
        )
        .returning(WebhookEvent)
    )
    claimed = await session.exec(statement, execution_options={"populate_existing": True})
    return sorted(claimed.scalars(), key=lambda event: (event.created_at, event.event_id))


async def reopen_webhook_event(session: AsyncSession, event_id: str, *, owner: str) -> WebhookEvent:
    """Take a stored event once more, whatever became of it, as if it had come for the first time.

    Raises:
        NotFoundError: no such event came, or it was forgotten.
    """
    statement = (
        sa.update(WebhookEvent)
        .where(col(WebhookEvent.event_id) == event_id)
        .values(
            processed=False,
            processed_at=None,
            outcome=None,
            error_message=None,
            attempt=1,
            lease_owner=owner,
            lease_until=REAL_NOW + WEBHOOK_LEASE,
        )
        .returning(WebhookEvent)
    )
    found = await session.exec(statement, execution_options={"populate_existing": True})
    event = found.scalar_one_or_none()
    if event is None:
        raise NotFoundError(f"No event {event_id} is stored here.")
    return event


async def finish_webhook_event(
    session: AsyncSession,
    event: WebhookEvent,
    *,
    outcome: WebhookOutcome,
    error: str | None = None,
) -> None:
    """Say what became of an event; it is never looked at again."""
    await session.exec(
        sa.update(WebhookEvent)
        .where(col(WebhookEvent.id) == event.id)
        .values(
            processed=True,
            processed_at=await business_now(session),
            outcome=outcome.value,
            error_message=redact(error) if error else None,
            lease_owner=None,
            lease_until=None,
        )
    )


async def retry_webhook_event(session: AsyncSession, event: WebhookEvent, *, error: str) -> bool:
    """Try an event again later, with growing pauses; `False` means that this was its last try."""
    if event.attempt >= WEBHOOK_MAX_ATTEMPTS:
        await finish_webhook_event(session, event, outcome=WebhookOutcome.FAILED, error=error)
        await raise_alert(
            session, code="webhook_failed", subject=event.event_id, detail={"error": error}
        )
        return False
    step = min(event.attempt, len(WEBHOOK_BACK_OFF_SECONDS)) - 1
    await session.exec(
        sa.update(WebhookEvent)
        .where(col(WebhookEvent.id) == event.id)
        .values(
            run_after=REAL_NOW + timedelta(seconds=WEBHOOK_BACK_OFF_SECONDS[max(step, 0)]),
            error_message=redact(error),
            lease_owner=None,
            lease_until=None,
        )
    )
    return True


async def raise_alert(
    session: AsyncSession, *, code: str, subject: str, detail: dict[str, Any] | None = None
) -> None:
    """Open an alert for a person, or touch the open one of the same code and subject."""
    now = await business_now(session)
    statement = insert(Alert).values(
        code=code,
        subject=subject,
        detail=merging.without_secrets(detail or {}),
        first_seen_at=now,
        last_seen_at=now,
    )
    await session.exec(
        statement.on_conflict_do_update(
            index_elements=["code", "subject"],
            index_where=sa.text("resolved_at IS NULL"),
            set_={"detail": statement.excluded.detail, "last_seen_at": now},
        )
    )


async def resolve_alert(session: AsyncSession, *, code: str, subject: str) -> None:
    """Close an alert; without an open one nothing happens."""
    await resolve_alerts(session, codes=[code], subject=subject)


async def resolve_alerts(session: AsyncSession, *, codes: Sequence[str], subject: str) -> None:
    """Close all that is open of these codes about a subject."""
    connection = await session.connection()
    values = {"codes": list(codes), "of": subject, "now": await business_now(session)}
    await connection.execute(_RESOLVE, values)


async def _merge(
    session: AsyncSession, wanted: OperatorJob, delay: timedelta
) -> OperatorJob | None:
    waiting = await find_waiting(session, wanted.box_id, wanted.job_type)
    if waiting is None:
        return None
    waiting.job_type, waiting.payload = merging.merge_requests(
        waiting.job_type, waiting.payload, wanted.job_type, wanted.payload
    )
    if wanted.requested_by != repairing.REQUESTER:
        waiting.requested_by = wanted.requested_by  # a repair makes nobody's request one
    waiting.correlation_id = waiting.correlation_id or wanted.correlation_id
    # Somebody wants it now, whatever pause a failure had earned, and with a full set of attempts.
    soon = sa.func.least(col(OperatorJob.run_after), REAL_NOW + delay)
    waiting.run_after = soon  # ty: ignore[invalid-assignment] - SQLAlchemy takes an expression
    waiting.max_attempts = waiting.attempt + repairing.attempts_of(waiting.requested_by)
    session.add(waiting)
    await session.flush()
    await session.refresh(waiting)
    return waiting


async def find_waiting(
    session: AsyncSession, box_id: UUID | None, job_type: JobType
) -> OperatorJob | None:
    """Return and lock the job that already waits for this box; health checks wait apart."""
    if box_id is None:
        return None
    is_check = col(OperatorJob.job_type) == JobType.HEALTH_CHECK
    statement = (
        select(OperatorJob)
        .where(
            OperatorJob.box_id == box_id,
            OperatorJob.status == JobStatus.QUEUED,
            is_check if job_type is JobType.HEALTH_CHECK else ~is_check,
        )
        .limit(1)
        .with_for_update()
    )
    found = await session.exec(statement, execution_options={"populate_existing": True})
    return found.first()


async def _insert(
    session: AsyncSession, wanted: OperatorJob, delay: timedelta
) -> OperatorJob | None:
    statement = (
        insert(OperatorJob)
        .values(
            id=wanted.id,
            customer_id=wanted.customer_id,
            box_id=wanted.box_id,
            job_type=wanted.job_type,
            payload=wanted.payload,
            requested_by=wanted.requested_by,
            max_attempts=wanted.max_attempts,
            correlation_id=wanted.correlation_id or wanted.id,
            created_at=wanted.created_at,
            run_after=REAL_NOW + delay,
        )
        .on_conflict_do_nothing()
        .returning(OperatorJob)
    )
    return await session.scalar(statement)
