"""A drill: could every backup be restored today? Each is read to its end, nothing is changed.

Snapshots lie in the cluster, where they are read only by bringing one back.
"""

from dataclasses import dataclass, field
from uuid import UUID

from sqlmodel import col, select

from openclaw_web.boxes.memory import backups, carrying
from openclaw_web.boxes.models import BoxBackup
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError


@dataclass(kw_only=True)
class Drill:
    """How many backups came back whole, and what is wrong with the others."""

    whole: int = 0
    broken: dict[UUID, str] = field(default_factory=dict)


async def verify_all() -> Drill:
    """Open every usable backup and compare it with what its row says."""
    found = Drill()
    async with session_scope() as session:
        now = await business_now(session)
        rows = await session.exec(
            select(BoxBackup)
            .where(col(BoxBackup.finished_at).is_not(None), col(BoxBackup.deleted_at).is_(None))
            .order_by(col(BoxBackup.created_at))
        )
        usable = [
            one
            for one in rows.all()
            if backups.is_usable(one, now) and not backups.is_snapshot(one)
        ]
    for backup in usable:
        try:
            await carrying.verify(backup)
        except OpenClawError as error:
            found.broken[backup.id] = str(error)
        else:
            found.whole += 1
    return found
