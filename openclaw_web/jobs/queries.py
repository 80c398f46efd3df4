"""Every look at jobs, webhook events and alerts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.jobs.models import Alert, JobStatus, JobType, OperatorJob, WebhookEvent

LIVE = (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True, kw_only=True)
class QueueDepth:
    """How much waits and runs, and since when the oldest due job waits."""

    queued: int
    running: int
    oldest_due_at: datetime | None


async def jobs_of_customer(
    session: AsyncSession, customer_id: UUID, *, limit: int = 20
) -> Sequence[OperatorJob]:
    """Return the customer's newest jobs first."""
    found = await session.exec(
        select(OperatorJob)
        .where(OperatorJob.customer_id == customer_id)
        .order_by(col(OperatorJob.created_at).desc(), col(OperatorJob.id))
        .limit(limit)
    )
    return found.all()


async def find_job(session: AsyncSession, customer_id: UUID, job_id: UUID) -> OperatorJob | None:
    found = await session.exec(
        select(OperatorJob).where(OperatorJob.id == job_id, OperatorJob.customer_id == customer_id)
    )
    return found.first()


async def find_live_job_of_box(
    session: AsyncSession, customer_id: UUID, box_id: UUID
) -> OperatorJob | None:
    """Return what runs for this box, else what waits for it; health checks aside."""
    found = await session.exec(
        select(OperatorJob)
        .where(
            OperatorJob.box_id == box_id,
            OperatorJob.customer_id == customer_id,
            col(OperatorJob.status).in_(LIVE),
            OperatorJob.job_type != JobType.HEALTH_CHECK,
        )
        .order_by(sa.case((col(OperatorJob.status) == JobStatus.RUNNING, 0), else_=1))
        .limit(1)
    )
    return found.first()


async def has_ended_since(
    session: AsyncSession, customer_id: UUID, box_id: UUID, job_type: JobType, since: datetime
) -> bool:
    """Say whether such a job of this box ended lately; `since` is business time."""
    found = await session.exec(
        select(OperatorJob.id)
        .where(
            OperatorJob.box_id == box_id,
            OperatorJob.customer_id == customer_id,
            OperatorJob.job_type == job_type,
            col(OperatorJob.completed_at) > since,
        )
        .limit(1)
    )
    return found.first() is not None


async def any_customers_busy_boxes(session: AsyncSession, box_ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these boxes have a job that waits or runs; health checks aside."""
    found = await session.exec(
        select(OperatorJob.box_id).where(
            col(OperatorJob.box_id).in_(box_ids),
            col(OperatorJob.status).in_(LIVE),
            OperatorJob.job_type != JobType.HEALTH_CHECK,
        )
    )
    return {box_id for box_id in found.all() if box_id is not None}


async def any_customers_job(session: AsyncSession, job_id: UUID) -> OperatorJob | None:
    return await session.get(OperatorJob, job_id)


async def any_customers_jobs(
    session: AsyncSession,
    *,
    status: JobStatus | None = None,
    limit: int = 50,
    before: datetime | None = None,
) -> Sequence[OperatorJob]:
    """Return jobs, newest first; `before` is the `created_at` of the last one already seen."""
    statement = select(OperatorJob).order_by(
        col(OperatorJob.created_at).desc(), col(OperatorJob.id)
    )
    if status is not None:
        statement = statement.where(OperatorJob.status == status)
    if before is not None:
        statement = statement.where(col(OperatorJob.created_at) < before)
    return (await session.exec(statement.limit(limit))).all()


async def any_customers_open_alerts(session: AsyncSession, *, limit: int = 100) -> Sequence[Alert]:
    """Return what a person should look at, the newest first."""
    found = await session.exec(
        select(Alert)
        .where(col(Alert.resolved_at).is_(None))
        .order_by(col(Alert.last_seen_at).desc())
        .limit(limit)
    )
    return found.all()


async def any_customers_webhook_events(
    session: AsyncSession, *, limit: int = 50, before: datetime | None = None
) -> Sequence[WebhookEvent]:
    statement = select(WebhookEvent).order_by(col(WebhookEvent.created_at).desc())
    if before is not None:
        statement = statement.where(col(WebhookEvent.created_at) < before)
    return (await session.exec(statement.limit(limit))).all()


async def any_customers_queue_depth(session: AsyncSession) -> QueueDepth:
    status = col(OperatorJob.status)
    is_due = sa.and_(
        status == JobStatus.QUEUED, col(OperatorJob.run_after) <= sa.func.clock_timestamp()
    )
    row = (
        await session.exec(
            select(
                sa.func.count().filter(status == JobStatus.QUEUED),
                sa.func.count().filter(status == JobStatus.RUNNING),
                sa.func.min(OperatorJob.run_after).filter(is_due),
            ).where(status.in_(LIVE))
        )
    ).one()
    return QueueDepth(queued=row[0], running=row[1], oldest_due_at=row[2])
