"""What a task tells the worker after it changed a box; `workflows/` draws the conclusions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes.models import Box


class ChangeKind(StrEnum):
    LIVE = "live"
    RECOVERED = "recovered"
    UPDATED = "updated"
    REACTIVATED = "reactivated"
    SUSPENDED = "suspended"
    DESTROYED = "destroyed"
    UNHEALTHY = "unhealthy"
    MEMORY_LOST = "memory_lost"
    PLACE_LOST = "place_lost"  # its namespace went, and a backup brings its memory back
    PROVISION_FAILED = "provision_failed"
    UPDATE_FAILED = "update_failed"
    UPGRADE_FAILED = "upgrade_failed"  # an image of ours: nothing of its customer's went back


@dataclass(frozen=True, kw_only=True)
class BoxChange:
    """One thing that happened to a box; `mark` differs whenever the same thing happens again."""

    kind: ChangeKind
    box_id: UUID
    customer_id: UUID
    subscription_id: UUID
    reason: str
    mark: str


# Called in the transaction of the change itself, so that no crash comes between the two.
Conclude = Callable[[AsyncSession, BoxChange], Awaitable[None]]


async def conclude_nothing(_session: AsyncSession, _change: BoxChange) -> None:
    """Draw no conclusions."""


def change_of(box: Box, kind: ChangeKind, *, reason: str = "") -> BoxChange:
    return BoxChange(
        kind=kind,
        box_id=box.id,
        customer_id=box.customer_id,
        subscription_id=box.subscription_id,
        reason=reason or box.status_reason or "",
        mark=box.status_changed_at.isoformat() if box.status_changed_at else "",
    )
