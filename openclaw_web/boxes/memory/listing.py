"""What a customer sees of backups: those of the assistant, and those of one that was deleted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes.memory.backups import Reason, is_snapshot, is_usable
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.core.clock import business_now


@dataclass(frozen=True, kw_only=True)
class BackupView:
    """A backup as its customer sees it."""

    id: UUID
    reason: str
    made_at: datetime
    size_bytes: int
    expires_at: datetime | None
    is_usable: bool
    is_former: bool = False


async def list_backups(session: AsyncSession, customer_id: UUID, box_id: UUID) -> list[BackupView]:
    """Return a box's backups, the newest first; those that failed or are deleted are not listed."""
    now = await business_now(session)
    found = await _listed(session, customer_id, BoxBackup.box_id == box_id)
    return [_view(one, now) for one in found]


async def list_former(session: AsyncSession, customer_id: UUID) -> list[BackupView]:
    """Return what is kept of a customer's deleted assistants and can still be brought back."""
    now = await business_now(session)
    found = await _listed(session, customer_id, Box.status == BoxStatus.DESTROYED)
    usable = (one for one in found if is_usable(one, now) and not is_snapshot(one))
    return [replace(_view(one, now), is_former=True) for one in usable]


async def _listed(
    session: AsyncSession, customer_id: UUID, which: sa.ColumnElement[bool] | bool
) -> Sequence[BoxBackup]:
    found = await session.exec(
        select(BoxBackup)
        .join(Box, col(Box.id) == col(BoxBackup.box_id))
        .where(
            Box.customer_id == customer_id,
            which,
            col(BoxBackup.finished_at).is_not(None),
            col(BoxBackup.deleted_at).is_(None),
            BoxBackup.reason != Reason.COPY.value,
        )
        .order_by(col(BoxBackup.created_at).desc(), col(BoxBackup.id))
    )
    return found.all()


def _view(backup: BoxBackup, now: datetime) -> BackupView:
    return BackupView(
        id=backup.id,
        reason=backup.reason,
        made_at=backup.created_at or now,
        size_bytes=backup.size_bytes or 0,
        expires_at=backup.expires_at,
        is_usable=is_usable(backup, now),
    )
