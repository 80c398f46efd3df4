"""Repairs: jobs that only our own checks asked for; what people wait for comes before them."""

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col

from openclaw_web.jobs.models import Alert, JobStatus, OperatorJob

REQUESTER = "health"
ATTEMPTS = 2  # each may wait for minutes; what still fails then is asked for anew, much later
USUAL_ATTEMPTS = 5
HELD_BY = "many_boxes_unhealthy"  # while this alert is open for a cluster, its repairs wait
# An area below the boxes knows of their table no more than this: which cluster each is in,
# and whether it ever ran.
BOXES = sa.table(
    "boxes",
    sa.column("id", sa.Uuid()),
    sa.column("cluster", sa.Text()),
    sa.column("activated_at", sa.DateTime(timezone=True)),
)


def attempts_of(requested_by: str | None) -> int:
    return ATTEMPTS if requested_by == REQUESTER else USUAL_ATTEMPTS


def may_run(owner: str, most: int | None) -> sa.ColumnElement[bool]:
    """Say that a job is no repair, or one that nothing holds and for which a hand may be used.

    `most` is how many repairs this worker does at once: the other hands are for what people asked.
    """
    is_other = col(OperatorJob.requested_by).is_distinct_from(REQUESTER)
    return sa.or_(is_other, sa.and_(~is_held(), _has_room(owner, most)))


def is_held() -> sa.ColumnElement[bool]:
    """Say that a job is a repair that waits for the end of an incident of its cluster."""
    is_incident = sa.exists().where(
        BOXES.c.id == col(OperatorJob.box_id),
        col(Alert.subject) == BOXES.c.cluster,
        col(Alert.code) == HELD_BY,
        col(Alert.resolved_at).is_(None),
    )
    return sa.and_(col(OperatorJob.requested_by) == REQUESTER, is_incident)


def is_of_cluster(cluster: str | None) -> sa.ColumnElement[bool]:
    """Say that a job's box is in this cluster, or that it has no box."""
    if cluster is None:
        return sa.true()
    elsewhere = sa.exists().where(BOXES.c.id == col(OperatorJob.box_id), BOXES.c.cluster != cluster)
    return ~elsewhere


def _has_room(owner: str, most: int | None) -> sa.ColumnElement[bool]:
    if most is None:
        return sa.true()
    running = aliased(OperatorJob)
    at_work = (
        sa.select(sa.func.count())
        .select_from(running)
        .where(
            col(running.status) == JobStatus.RUNNING,
            col(running.lease_owner) == owner,
            col(running.requested_by) == REQUESTER,
        )
        .scalar_subquery()
    )
    return at_work < most
