"""Jobs that are due and nobody does, by cluster: one alert for each, which says why.

What waits on purpose is not stuck: a pause of set-ups, an incident, a job behind another one of its
box, such as a keeper's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import REAL_NOW
from openclaw_web.jobs import queries, repairing, service
from openclaw_web.jobs.models import JobStatus, OperatorJob

ALERT = "queue_stuck"  # its subject is the cluster
WAITS_TOO_LONG = timedelta(minutes=30)
NO_CLUSTER = "no cluster"  # of a job without a box
CAUSES = {
    "no_worker": "no worker takes jobs of this cluster",
    "cluster_silent": "nothing is heard of the cluster",
    "busy": "its workers are busy with others all the time",
}


@dataclass(frozen=True, kw_only=True)
class Stuck:
    cluster: str
    jobs: int
    oldest_due_at: datetime


async def watch_queue(session: AsyncSession) -> int:
    """Keep an alert open for each cluster whose due jobs wait for half an hour; count these."""
    found = {one.cluster: one for one in await _stuck(session)}
    for alert in await queries.any_customers_alerts_of(session, ALERT):
        if alert.subject not in found:
            await service.resolve_alert(session, code=ALERT, subject=alert.subject)
    for one in found.values():
        cause = await _cause(session, one.cluster)
        waits = "1 job waits" if one.jobs == 1 else f"{one.jobs} jobs wait"
        detail = {
            "sentence": f"{waits} since {one.oldest_due_at:%d %B, %H:%M} UTC: {CAUSES[cause]}.",
            "cause": cause,
            "jobs": one.jobs,
            "oldest_due_at": one.oldest_due_at.isoformat(),
        }
        await service.raise_alert(session, code=ALERT, subject=one.cluster, detail=detail)
    return sum(one.jobs for one in found.values())


async def _stuck(session: AsyncSession) -> list[Stuck]:
    running = aliased(OperatorJob)
    is_behind = sa.exists().where(
        col(running.box_id) == col(OperatorJob.box_id), col(running.status) == JobStatus.RUNNING
    )
    boxes = repairing.BOXES.alias()  # what else is asked of it is asked apart
    cluster = sa.func.coalesce(boxes.c.cluster, NO_CLUSTER)
    found = await (await session.connection()).execute(
        sa.select(cluster, sa.func.count(), sa.func.min(col(OperatorJob.run_after)))
        .select_from(OperatorJob)
        .outerjoin(boxes, boxes.c.id == col(OperatorJob.box_id))
        .where(
            col(OperatorJob.status) == JobStatus.QUEUED,
            col(OperatorJob.run_after) < REAL_NOW - WAITS_TOO_LONG,
            ~queries.is_held_on_purpose(),
            ~is_behind,
        )
        .group_by(cluster)
    )
    return [Stuck(cluster=name, jobs=count, oldest_due_at=at) for name, count, at in found if at]


async def _cause(session: AsyncSession, cluster: str) -> str:
    silent = await queries.find_open_alert(session, code=queries.WATCH_SILENT, subject=cluster)
    if silent is not None:
        return "cluster_silent"
    return (
        "busy" if await session.scalar(sa.select(queries.somebody_works(cluster))) else "no_worker"
    )
