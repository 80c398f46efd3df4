"""What an admin does with an alert: close it, or decide what no worker may decide."""

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.boxes import drift_brake, incidents, same_cluster
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.jobs import queries, service
from openclaw_web.jobs.models import Alert
from openclaw_web.workflows import operations
from openclaw_web.workflows.operations import SHORTEST_REASON, By

# What an alert asks a person to decide; its subject is the cluster.
ANSWERS = {
    incidents.ALERT: ("The incident is over", operations.end_incident),
    drift_brake.ALERT_MANY: ("Mend them all", operations.allow_drift_repairs),
    drift_brake.ALERT_TOKENS: ("Mend them all", operations.allow_drift_repairs),
    same_cluster.ALERT: ("It is the right cluster", operations.accept_cluster),
}


def answer_to(alert: Alert) -> str:
    """Return the words for what an admin may decide about an alert; '' when there is nothing."""
    return ANSWERS[alert.code][0] if alert.code in ANSWERS else ""


async def answer_alert(session: AsyncSession, alert_id: UUID, *, by: By) -> None:
    """Decide what the alert asks for.

    Raises:
        NotFoundError: there is no such alert, it is closed already, or it asks for nothing.
        ValidationError: no reason was given.
    """
    alert = await _open_alert(session, alert_id)
    if alert.code not in ANSWERS:
        raise NotFoundError("This alert asks for nothing that could be decided here.")
    _, act = ANSWERS[alert.code]
    await act(session, alert.subject, by=by)


async def resolve_alert(session: AsyncSession, alert_id: UUID, *, by: By) -> None:
    """Close an open alert, with a reason: what is wrong still opens it again by itself.

    Raises:
        NotFoundError: there is no such alert, or it is closed already.
        ValidationError: no reason was given.
    """
    alert = await _open_alert(session, alert_id)
    if len(by.reason.strip()) < SHORTEST_REASON:
        raise ValidationError("Say why: an admin's act needs a reason.")
    await service.resolve_alert(session, code=alert.code, subject=alert.subject)
    await accounts.audit(
        session,
        action="alert.resolve",
        actor_type="admin",
        actor_id=by.actor_id,
        resource_type="alert",
        resource_id=str(alert.id),
        reason=by.reason.strip(),
        diff={"code": alert.code},
    )


async def _open_alert(session: AsyncSession, alert_id: UUID) -> Alert:
    alert = await queries.any_customers_alert(session, alert_id)
    if alert is None or alert.resolved_at is not None:
        raise NotFoundError("This alert is closed already.")
    return alert
