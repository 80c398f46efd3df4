"""An admin's act on a job or a box, and the line that says who did it and why: one transaction."""

from dataclasses import dataclass
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.boxes import drift_brake, failures, incidents, same_cluster, upgrading
from openclaw_web.boxes import queries as box_queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.desired import Why
from openclaw_web.boxes.models import Box
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.jobs import queries as job_queries
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob

SHORTEST_REASON = 3
SHELL = "shell"


@dataclass(frozen=True, kw_only=True)
class By:
    """Who acts, and why: both are written down. Without an id it is whoever has our shell."""

    admin_id: UUID | None = None
    reason: str

    @property
    def actor_id(self) -> str:
        return str(self.admin_id or SHELL)

    @property
    def name(self) -> str:
        return f"admin:{self.actor_id}"


async def retry_job(session: AsyncSession, job_id: UUID, *, by: By) -> OperatorJob:
    """Ask for a failed job's work once more, as a new job.

    Raises:
        NotFoundError: there is no such job.
        ValidationError: it has not failed, or no reason was given.
    """
    old = await _get_job(session, job_id)
    if old.status is not JobStatus.FAILED:
        raise ValidationError("Only a failed job can be tried again.")
    job = await jobs.request_job(
        session,
        customer_id=old.customer_id,
        box_id=old.box_id,
        job_type=old.job_type,
        requested_by=by.name,
        payload=old.payload,
        correlation_id=old.correlation_id,
    )
    await _audit(session, "job.retry", by, customer_id=old.customer_id, job=job)
    return job


async def cancel_job(session: AsyncSession, job_id: UUID, *, by: By) -> OperatorJob:
    """End a waiting job, or ask a running one to stop at its next step.

    Raises:
        NotFoundError: there is no such job.
        ValidationError: it has ended already, or no reason was given.
    """
    job = await jobs.cancel_job(session, job_id, requested_by=by.name)
    await _audit(session, "job.cancel", by, customer_id=job.customer_id, job=job)
    return job


async def force_release(session: AsyncSession, job_id: UUID, *, by: By) -> OperatorJob:
    """Take a running job from a silent or stuck worker: whatever that still writes is refused.

    Raises:
        NotFoundError: there is no such job.
        ValidationError: it does not run, or no reason was given.
    """
    job = await failures.force_release(session, await _get_job(session, job_id), by=by.name)
    await _audit(session, "job.force_release", by, customer_id=job.customer_id, job=job)
    return job


async def restart_box(session: AsyncSession, box_id: UUID, *, by: By) -> OperatorJob:
    """Give a box a new pod with the same settings.

    Raises:
        NotFoundError: there is no such box.
        ValidationError: no reason was given.
    """
    box = await _get_box(session, box_id)
    job = await boxes.request_restart(session, box, requested_by=by.name)
    await _audit(session, "box.restart", by, customer_id=box.customer_id, job=job)
    return job


async def rotate_token(session: AsyncSession, box_id: UUID, *, by: By) -> OperatorJob:
    """Give a box a new proxy token, and with it a new pod; the old one ends by fifteen minutes.

    Raises:
        NotFoundError: there is no such box.
        ValidationError: no reason was given.
    """
    box = await _get_box(session, box_id)
    job = await boxes.request_rotation(session, box, requested_by=by.name)
    await _audit(session, "box.rotate", by, customer_id=box.customer_id, job=job)
    return job


async def upgrade_box(session: AsyncSession, box_id: UUID, image: str, *, by: By) -> OperatorJob:
    """Give a box another image of OpenClaw, which is taken back when it does not become ready.

    Raises:
        NotFoundError: there is no such box.
        ValidationError: that is no image, or no reason was given.
    """
    box = await _get_box(session, box_id)
    job = await upgrading.request_upgrade(session, box, image, requested_by=by.name)
    await _audit(session, "box.upgrade", by, customer_id=box.customer_id, job=job)
    return job


async def check_box(session: AsyncSession, box_id: UUID, *, by: By) -> OperatorJob:
    """Have the operator look at a box now."""
    return await _request(session, box_id, JobType.HEALTH_CHECK, "box.check", by)


async def converge_box(session: AsyncSession, box_id: UUID, *, by: By) -> OperatorJob:
    """Have the operator bring a box where it belongs now: apply everything again."""
    return await _request(session, box_id, JobType.PROVISION, "box.converge", by)


async def destroy_box(session: AsyncSession, box_id: UUID, *, by: By) -> OperatorJob:
    """Delete a box now that would be kept for a while, because its plan has ended.

    Raises:
        NotFoundError: there is no such box.
        ValidationError: it is paid for, or a hold keeps it, or no reason was given.
    """
    box = await _get_box(session, box_id)
    _, why = await box_queries.desired_of(session, box)
    if why is Why.HOLD:
        raise ValidationError("A hold keeps this assistant; it is not deleted while that lasts.")
    subscription = await box_queries.get_subscription(session, box)
    if subscription.status is not SubscriptionStatus.CANCELLED:
        raise ValidationError("Its plan goes on: end it first, with `admin refund --ends-now`.")
    return await _request(session, box_id, JobType.DESTROY, "box.destroy", by)


async def allow_drift_repairs(session: AsyncSession, cluster: str, *, by: By) -> None:
    """Let the loops mend drift of many boxes of a cluster, a hundred at a time, for half a day.

    Raises:
        NotFoundError: no box lives in a cluster of this name.
        ValidationError: no reason was given.
    """
    await _require_cluster(session, cluster)
    until = await drift_brake.allow(session, cluster, by=by.name)
    await _audit_cluster(session, "drift.allowed", by, cluster, {"until": until.isoformat()})


async def end_incident(session: AsyncSession, cluster: str, *, by: By) -> None:
    """Call an incident over: what is still unhealthy is repaired, and its customers are told.

    For an hour no new one begins in this cluster.

    Raises:
        NotFoundError: no box lives in a cluster of this name.
        ValidationError: no reason was given.
    """
    await _require_cluster(session, cluster)
    until = await incidents.end(session, cluster, by=by.name)
    await _audit_cluster(session, "incident.ended", by, cluster, {"until": until.isoformat()})


async def accept_cluster(session: AsyncSession, cluster: str, *, by: By) -> None:
    """Let the other cluster that a worker has found bear this name.

    Raises:
        NotFoundError: no worker has found another one.
        ValidationError: no reason was given.
    """
    if not await same_cluster.accept_another(session, cluster, by=by.name):
        raise NotFoundError(f"No worker has found another cluster as {cluster}.")
    await _audit_cluster(session, "cluster.accepted", by, cluster, {})


def delete_orphan(namespace: str) -> None:
    """Refuse to delete a namespace without a box: its volume may be a paying customer's memory.

    Raises:
        ValidationError: always; the sentence says what to do instead.
    """
    raise ValidationError(
        f"Namespaces without a box are not deleted from here. Back up the volume of {namespace},"
        f" make sure that no customer misses it, then: kubectl delete namespace {namespace}"
    )


async def _request(
    session: AsyncSession, box_id: UUID, job_type: JobType, action: str, by: By
) -> OperatorJob:
    box = await _get_box(session, box_id)
    job = await boxes.request_converge(session, box, job_type=job_type, requested_by=by.name)
    await _audit(session, action, by, customer_id=box.customer_id, job=job)
    return job


async def _require_cluster(session: AsyncSession, cluster: str) -> None:
    if not await box_queries.is_cluster_used(session, cluster):
        raise NotFoundError(f"No assistant lives in a cluster called {cluster}.")


async def _get_box(session: AsyncSession, box_id: UUID) -> Box:
    box = await box_queries.find_any_box(session, box_id)
    if box is None:
        raise NotFoundError("There is no such box.")
    return box


async def _get_job(session: AsyncSession, job_id: UUID) -> OperatorJob:
    job = await job_queries.any_customers_job(session, job_id)
    if job is None:
        raise NotFoundError("There is no such job.")
    return job


async def _audit_cluster(
    session: AsyncSession, action: str, by: By, subject: str, diff: dict[str, str]
) -> None:
    if len(by.reason.strip()) < SHORTEST_REASON:
        raise ValidationError("Say why: an admin's act needs a reason.")
    await accounts.audit(
        session,
        action=action,
        actor_type="admin",
        actor_id=by.actor_id,
        resource_type="cluster",
        resource_id=subject,
        reason=by.reason.strip(),
        diff=diff,
    )


async def _audit(
    session: AsyncSession, action: str, by: By, *, customer_id: UUID, job: OperatorJob
) -> None:
    if len(by.reason.strip()) < SHORTEST_REASON:
        raise ValidationError("Say why: an admin's act needs a reason.")
    await accounts.audit(
        session,
        action=action,
        actor_type="admin",
        actor_id=by.actor_id,
        user_id=customer_id,
        resource_type="job",
        resource_id=str(job.id),
        reason=by.reason.strip(),
        diff={"job_type": job.job_type.value, "status": job.status.value},
    )
