"""An admin closes an alert: what is wrong still opens it again by itself."""

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.jobs import queries, service
from openclaw_web.workflows.operations import SHORTEST_REASON, By


async def resolve_alert(session: AsyncSession, alert_id: UUID, *, by: By) -> None:
    """Close an open alert, with a reason.

    Raises:
        NotFoundError: there is no such alert, or it is closed already.
        ValidationError: no reason was given.
    """
    alert = await queries.any_customers_alert(session, alert_id)
    if alert is None or alert.resolved_at is not None:
        raise NotFoundError("This alert is closed already.")
    if len(by.reason.strip()) < SHORTEST_REASON:
        raise ValidationError("Say why: an admin's act needs a reason.")
    await service.resolve_alert(session, code=alert.code, subject=alert.subject)
    await accounts.audit(
        session,
        action="alert.resolve",
        actor_type="admin",
        actor_id=str(by.admin_id),
        resource_type="alert",
        resource_id=str(alert.id),
        reason=by.reason.strip(),
        diff={"code": alert.code},
    )
