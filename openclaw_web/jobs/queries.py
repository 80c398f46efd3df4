"""Every look at jobs and alerts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import REAL_NOW
from openclaw_web.core.switches import PlatformSetting
from openclaw_web.jobs import repairing
from openclaw_web.jobs.models import Alert, JobStatus, JobType, OperatorJob

LIVE = (JobStatus.QUEUED, JobStatus.RUNNING)
PROVISIONING_PAUSED = "provisioning_paused"  # the switch of this name
WATCH_SILENT = "watch_silent"  # the alert of a cluster of which nothing is heard
SETS_NOTHING_UP = (JobType.SUSPEND, JobType.DESTROY, JobType.HEALTH_CHECK)
TAKEN_WITHIN = timedelta(seconds=15)


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


async def any_job_ended_since(session: AsyncSession, box_id: UUID, since: datetime) -> bool:
    """Say whether any job of this box ended since then, in business time."""
    found = await session.exec(
        select(OperatorJob.id)
        .where(OperatorJob.box_id == box_id, col(OperatorJob.completed_at) >= since)
        .limit(1)
    )
    return found.first() is not None


async def any_customers_last_jobs(
    session: AsyncSession, box_ids: Collection[UUID], requested_by: str, *, since: datetime
) -> dict[UUID, OperatorJob]:
    """Return the last job since then that was asked for by this name, for each of these boxes."""
    found = await session.exec(
        select(OperatorJob)
        .where(
            col(OperatorJob.box_id).in_(box_ids),
            OperatorJob.requested_by == requested_by,
            col(OperatorJob.created_at) > since,
        )
        .order_by(col(OperatorJob.created_at))
    )
    return {job.box_id: job for job in found.all() if job.box_id is not None}


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


async def find_open_alert(session: AsyncSession, *, code: str, subject: str) -> Alert | None:
    found = await session.exec(
        select(Alert).where(
            Alert.code == code, Alert.subject == subject, col(Alert.resolved_at).is_(None)
        )
    )
    return found.first()


async def alert_resolved_at(session: AsyncSession, *, code: str, subject: str) -> datetime | None:
    """Return when such an alert was closed last."""
    found = await session.exec(
        select(sa.func.max(Alert.resolved_at)).where(Alert.code == code, Alert.subject == subject)
    )
    return found.one()


async def any_customers_count_asked(
    session: AsyncSession, job_type: JobType, *, by: str, since: datetime
) -> int:
    """Count the jobs of a kind that somebody asked for since then, in business time."""
    found = await session.exec(
        select(sa.func.count())
        .select_from(OperatorJob)
        .where(
            OperatorJob.job_type == job_type,
            OperatorJob.requested_by == by,
            col(OperatorJob.created_at) > since,
        )
    )
    return found.one()


async def any_customers_alert(session: AsyncSession, alert_id: UUID) -> Alert | None:
    return await session.get(Alert, alert_id, with_for_update=True)


async def any_customers_open_alerts(session: AsyncSession, *, limit: int = 100) -> Sequence[Alert]:
    """Return what a person should look at, the newest first."""
    found = await session.exec(
        select(Alert)
        .where(col(Alert.resolved_at).is_(None))
        .order_by(col(Alert.last_seen_at).desc())
        .limit(limit)
    )
    return found.all()


@dataclass(frozen=True, kw_only=True)
class QueueStanding:
    """Where a box's waiting job stands; `due_at` is the real clock's.

    `position` counts who is before it in its cluster and itself: 1 is next; who is held on purpose
    is before nobody. `waiting_because` is "" (its turn comes), "retry" (a pause after a failure),
    "paused" (nothing new is set up for now), "held" (a repair, in an incident), "another_job" (one
    of this box runs still) or "no_worker" (nobody takes jobs of this cluster).
    """

    position: int
    waiting_because: str
    due_at: datetime


async def queue_standing(
    session: AsyncSession, customer_id: UUID, box_id: UUID
) -> QueueStanding | None:
    """Return where the box's waiting job stands; `None` when none waits; health checks aside."""
    found = await session.exec(
        select(OperatorJob).where(
            OperatorJob.box_id == box_id,
            OperatorJob.customer_id == customer_id,
            OperatorJob.status == JobStatus.QUEUED,
            OperatorJob.job_type != JobType.HEALTH_CHECK,
        )
    )
    job = found.first()
    if job is None or job.run_after is None:
        return None
    boxes = repairing.BOXES
    cluster = await session.scalar(sa.select(boxes.c.cluster).where(boxes.c.id == box_id))
    before = sa.and_(
        col(OperatorJob.status) == JobStatus.QUEUED,
        repairing.is_of_cluster(cluster),
        ~is_held_on_purpose(),
        sa.tuple_(col(OperatorJob.run_after), col(OperatorJob.created_at))
        < (job.run_after, job.created_at),
    )
    ahead = await session.scalar(select(sa.func.count()).select_from(OperatorJob).where(before))
    return QueueStanding(
        position=1 + (ahead or 0),
        waiting_because=await _why_it_waits(session, job, cluster),
        due_at=job.run_after,
    )


async def _why_it_waits(session: AsyncSession, job: OperatorJob, cluster: str | None) -> str:
    runs = col(OperatorJob.status) == JobStatus.RUNNING
    is_it = col(OperatorJob.id) == job.id
    due_at = sa.literal(job.run_after)
    is_late = due_at < REAL_NOW - TAKEN_WITHIN
    why = sa.case(
        (sa.exists().where(runs, col(OperatorJob.box_id) == job.box_id), "another_job"),
        # One that was never tried waits for its customer's next change.
        (sa.and_(due_at > REAL_NOW, sa.literal(job.attempt > 0)), "retry"),
        (sa.and_(sa.exists().where(is_it, is_setting_up()), is_provisioning_paused()), "paused"),
        (sa.exists().where(is_it, repairing.is_held()), "held"),
        (sa.and_(is_late, ~somebody_works(cluster)), "no_worker"),
        else_="",
    )
    return str(await session.scalar(sa.select(why)))


def somebody_works(cluster: str | None) -> sa.ColumnElement[bool]:
    """Say that a worker is at a job of this cluster.

    A worker looks every two seconds, and one that is busy shows it by its leases.
    """
    return sa.exists().where(
        col(OperatorJob.status) == JobStatus.RUNNING,
        col(OperatorJob.lease_until) > REAL_NOW,
        repairing.is_of_cluster(cluster),
    )


async def count_actions(
    session: AsyncSession,
    customer_id: UUID,
    box_id: UUID,
    actions: Collection[str],
    since: datetime,
) -> int:
    """Count the box's jobs that were asked for one of these since then, in business time.

    Requests that one job took together count once.
    """
    listed = col(OperatorJob.payload)["actions"]
    asked = sa.or_(*(listed.contains([action]) for action in actions))
    found = await session.scalar(
        select(sa.func.count())
        .select_from(OperatorJob)
        .where(
            OperatorJob.box_id == box_id,
            OperatorJob.customer_id == customer_id,
            asked,
            col(OperatorJob.created_at) > since,
        )
    )
    return found or 0


def is_held_on_purpose() -> sa.ColumnElement[bool]:
    """Say that a job waits until an admin, or the end of an incident, lets it go."""
    return sa.or_(sa.and_(is_setting_up(), is_provisioning_paused()), repairing.is_held())


def is_setting_up() -> sa.ColumnElement[bool]:
    """Say that a job is for a box that never ran, whatever it was asked for last."""
    is_new = sa.exists().where(
        repairing.BOXES.c.id == col(OperatorJob.box_id), repairing.BOXES.c.activated_at.is_(None)
    )
    return sa.and_(is_new, col(OperatorJob.job_type).not_in(SETS_NOTHING_UP))


def is_provisioning_paused() -> sa.ColumnElement[bool]:
    """Say that an admin lets nothing new be set up for now; everything else goes on."""
    return sa.exists().where(
        col(PlatformSetting.key) == PROVISIONING_PAUSED,
        sa.cast(col(PlatformSetting.value), sa.Text) == "true",
    )
