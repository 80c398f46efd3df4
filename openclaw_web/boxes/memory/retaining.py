"""How long backups are kept, and what is left of one that is not: a row without a key.

The key goes first, in the transaction that decides; from then on the object is noise. It is deleted
from the store afterwards, as often as that takes.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.boxes.memory import backups, carrying
from openclaw_web.boxes.memory.backups import Reason
from openclaw_web.boxes.models import Box, BoxBackup
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings
from openclaw_web.jobs import service as jobs

logger = logging.getLogger(__name__)

# The newest of each.
KEPT = {
    Reason.SUSPEND.value: 7,
    Reason.MANUAL.value: 3,
    Reason.BEFORE_RESTORE.value: 1,
    Reason.BEFORE_UPGRADE.value: 2,
    Reason.CLONE.value: 1,
}
ALERT_DELETE = "backup_not_deleted"
FINAL_FOR = timedelta(days=30)
UNFINISHED_FOR = timedelta(days=1)
AT_ONCE = 100


async def retain() -> int:
    """Forget what is kept no longer, then delete it from the store; returns how many objects.

    An object that cannot be deleted keeps no other one; what is forgotten stays forgotten.
    """
    async with session_scope() as session:
        await forget_expired(session)
    removed, left = 0, ""
    for backup_id, location in await _left_in_store():
        try:
            await carrying.store().remove(location)
        except VendorError as error:
            left = str(error)
            continue
        async with session_scope() as session:
            backup = await session.get_one(BoxBackup, backup_id, with_for_update=True)
            backup.location = ""
            session.add(backup)
        removed += 1
    await _tell_left(left)
    return removed


async def forget_expired(session: AsyncSession) -> int:
    """Forget the keys of backups that are over, of those too many, and of deleted customers."""
    now = await business_now(session)
    forgotten = (
        select(Box.id)
        .join(Customer, col(Customer.id) == col(Box.customer_id))
        .where(col(Customer.deleted_at).is_not(None))
    )
    over = sa.or_(
        col(BoxBackup.expires_at) <= now,
        col(BoxBackup.box_id).in_(forgotten),
        sa.and_(
            col(BoxBackup.id).in_(_too_many(now)),
            sa.cast(col(BoxBackup.id), sa.Text).not_in(_marked()),
        ),
        sa.and_(
            sa.or_(
                col(BoxBackup.finished_at).is_(None), col(BoxBackup.reason) == Reason.COPY.value
            ),
            col(BoxBackup.created_at) < now - UNFINISHED_FOR,
            # Whoever follows these looks once more before one is forgotten, and with that deleted.
            ~col(BoxBackup.location).startswith(backups.SNAPSHOT),
        ),
    )
    return await _forget(session, now, over)


async def shred(session: AsyncSession, box_id: UUID) -> int:
    """Forget the keys of all backups of a box at once: its customer wants to be forgotten."""
    now = await business_now(session)
    return await _forget(session, now, col(BoxBackup.box_id) == box_id)


async def forget_snapshots(session: AsyncSession, box_id: UUID) -> int:
    """Forget what ended with a box's namespace."""
    now = await business_now(session)
    which = sa.and_(
        col(BoxBackup.box_id) == box_id, col(BoxBackup.location).startswith(backups.SNAPSHOT)
    )
    return await _forget(session, now, which)


async def keep_after_end(session: AsyncSession, box: Box) -> None:
    """Give what is left of a destroyed box its time; of a customer who is forgotten, none."""
    if await backups.is_forgotten(session, box):
        await shred(session, box.id)
        return
    await forget_snapshots(session, box.id)
    until = await business_now(session) + FINAL_FOR
    await session.exec(
        sa.update(BoxBackup)
        .where(col(BoxBackup.box_id) == box.id, col(BoxBackup.deleted_at).is_(None))
        .values(expires_at=sa.func.least(sa.func.coalesce(BoxBackup.expires_at, until), until))
        .execution_options(synchronize_session=False)
    )


async def _tell_left(error: str) -> None:
    async with session_scope() as session:
        if not error:
            await jobs.resolve_alert(session, code=ALERT_DELETE, subject="store")
            return
        await jobs.raise_alert(session, code=ALERT_DELETE, subject="store", detail={"error": error})


def _marked() -> sa.Select[tuple[str]]:
    """Return the ids, as text, of backups that shall come back before their box starts."""
    backup = col(Box.health)[backups.RESTORE]["backup"].astext
    return sa.select(backup).where(backup.is_not(None))


def _too_many(now: datetime) -> sa.Select[tuple[UUID]]:
    """Return the ids of backups that have enough newer ones of their kind beside them.

    Those on schedule are kept by their age.
    """
    place = (
        sa.func.row_number()
        .over(
            partition_by=(col(BoxBackup.box_id), col(BoxBackup.reason)),
            order_by=(col(BoxBackup.created_at).desc(), col(BoxBackup.id).desc()),
        )
        .label("place")
    )
    ranked = (
        sa.select(col(BoxBackup.id), col(BoxBackup.reason), col(BoxBackup.created_at), place)
        .where(
            col(BoxBackup.finished_at).is_not(None),
            col(BoxBackup.deleted_at).is_(None),
            col(BoxBackup.error).is_(None),
        )
        .subquery()
    )
    long_ago = now - timedelta(days=settings().box_snapshot_days)
    is_old = sa.and_(
        ranked.c.reason == Reason.SCHEDULED.value,
        ranked.c.place > 1,  # the newest one is kept however old it is
        ranked.c.created_at < long_ago,
    )
    is_beyond = sa.or_(
        is_old,
        *(
            sa.and_(ranked.c.reason == reason, ranked.c.place > count)
            for reason, count in KEPT.items()
        ),
    )
    return sa.select(ranked.c.id).where(is_beyond)


async def _forget(session: AsyncSession, now: datetime, which: sa.ColumnElement[bool]) -> int:
    result = await session.exec(
        sa.update(BoxBackup)
        .where(col(BoxBackup.deleted_at).is_(None), which)
        .values(deleted_at=now, key_ct=None, key_id=None)
        .execution_options(synchronize_session=False)
    )
    return result.rowcount


async def _left_in_store() -> Sequence[tuple[UUID, str]]:
    async with session_scope() as session:
        found = await session.exec(
            select(BoxBackup.id, BoxBackup.location)
            .where(
                col(BoxBackup.deleted_at).is_not(None),
                BoxBackup.location != "",
                ~col(BoxBackup.location).startswith(backups.SNAPSHOT),
            )
            .order_by(sa.func.random())  # those that cannot be deleted must not hide the others
            .limit(AT_ONCE)
        )
        return found.all()
