"""What an admin decides about what assistants remember: bring a backup back, or give up a last one.

Each act has a reason and a line in the audit log.
"""

from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.boxes import queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import backups, listing
from openclaw_web.boxes.memory.listing import BackupView
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs.models import JobType
from openclaw_web.workflows.operations import SHORTEST_REASON, By


async def list_backups(session: AsyncSession, customer_id: UUID) -> list[BackupView]:
    """Return all that can be brought back for a customer: the box's own, then the former ones'."""
    box = await queries.find_box_of_customer(session, customer_id)
    own = await listing.list_backups(session, customer_id, box.id) if box else []
    former = await listing.list_former(session, customer_id)
    known = {one.id for one in own}
    return [*own, *(one for one in former if one.id not in known)]


async def bring_back(session: AsyncSession, customer_id: UUID, backup_id: UUID, *, by: By) -> None:
    """Put a backup of any of a customer's boxes into the one they have now.

    Also where another one is to come back into a new volume and cannot, as long as no job tries it.

    Raises:
        NotFoundError: there is no box, or no such backup of this customer.
        ValidationError: it cannot be used, or no reason was given.
    """
    _require(by)
    box = await queries.find_box_of_customer(session, customer_id, lock=True)
    if box is None:
        raise NotFoundError("This customer has no assistant.")
    await backups.request_restore(session, box, backup_id, requested_by=by.name, may_replace=True)
    diff = {"backup": str(backup_id)}
    await _audit(session, "box.memory_brought_back", box, by=by, diff=diff)


async def give_up_last_backup(session: AsyncSession, alert_id: UUID, *, by: By) -> None:
    """Let a box be deleted whose last backup fails for good; what it remembers is lost then.

    Raises:
        NotFoundError: there is no such open alert.
        ValidationError: it is about something else, or no reason was given.
    """
    _require(by)
    alert = await jobs.any_customers_alert(session, alert_id)
    if alert is None or alert.resolved_at is not None:
        raise NotFoundError("This alert is closed already.")
    if alert.code != backups.ALERT_FINAL:
        raise ValidationError("Only a last backup that fails can be given up.")
    box = await queries.get_any_box(session, UUID(alert.subject), lock=True)
    if box.status is not BoxStatus.DESTROYING:
        raise ValidationError("This assistant is not being deleted.")
    at = (await business_now(session)).isoformat()
    box.health = {**box.health, backups.GIVEN_UP: {"by": by.name, "at": at}}
    session.add(box)
    await session.flush()
    await boxes.request_converge(session, box, job_type=JobType.DESTROY, requested_by=by.name)
    await _audit(session, "box.last_backup_given_up", box, by=by)


def _require(by: By) -> None:
    if len(by.reason.strip()) < SHORTEST_REASON:
        raise ValidationError("Say why: an admin's act needs a reason.")


async def _audit(
    session: AsyncSession,
    action: str,
    box: Box,
    *,
    by: By,
    diff: dict[str, Any] | None = None,
) -> None:
    await accounts.audit(
        session,
        action=action,
        actor_type="admin",
        actor_id=by.actor_id,
        user_id=box.customer_id,
        resource_type="box",
        resource_id=str(box.id),
        reason=by.reason.strip(),
        diff=diff,
    )
