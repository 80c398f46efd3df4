"""Every look at jobs and alerts."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.jobs.models import Alert, JobStatus, JobType, OperatorJob

LIVE = (JobStatus.QUEUED, JobStatus.RUNNING)


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


async def any_customers_alerts_of(
    session: AsyncSession, code: str, *, limit: int = 100
) -> Sequence[Alert]:
    """Return the open alerts of one kind, the oldest first."""
    found = await session.exec(
        select(Alert)
        .where(Alert.code == code, col(Alert.resolved_at).is_(None))
        .order_by(col(Alert.first_seen_at))
        .limit(limit)
    )
    return found.all()


async def any_customers_open_alerts(session: AsyncSession, *, limit: int = 100) -> Sequence[Alert]:
    """Return what a person should look at, the newest first."""
    found = await session.exec(
        select(Alert)
        .where(col(Alert.resolved_at).is_(None))
        .order_by(col(Alert.last_seen_at).desc())
        .limit(limit)
    )
    return found.all()
