"""A box's backups: asking for one, listing them, and who may carry which bytes, once.

A backup is a row and an object in the store. Its row is made before its first byte, with a key of
its own; without that key the object is noise, so a backup is deleted by forgetting its key.
"""

import secrets as random
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.boxes import queries, service, stops
from openclaw_web.boxes.memory.addresses import Ticket, Way, make_token
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.core import sealing, secrets
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.settings import settings
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.jobs.service import CANCELLED

KEY_PURPOSE = "box-backup"
BACKUP, RESTORE_ACTION = stops.BACKUP, stops.RESTORE
RESTORE = "restore"  # in `health`: which backup shall come back before the box starts again
SNAPSHOT = "snapshot:"  # how the place of a snapshot begins; its name follows
ALERT_FINAL = "final_backup_failed"
GIVEN_UP = "last_backup_given_up"  # in `health`: an admin lets it be deleted without one
GONE = frozenset({BoxStatus.DESTROYING, BoxStatus.DESTROYED})


class Reason(StrEnum):
    """Why a backup was made; each has a retention of its own."""

    SUSPEND = "suspend"
    MANUAL = "manual"
    FINAL = "final"
    BEFORE_RESTORE = "before_restore"
    BEFORE_UPGRADE = "before_upgrade"
    SCHEDULED = "scheduled"
    CLONE = "clone"
    COPY = queries.COPY  # on its way to be one of these: not to be used before it is whole


def are_on() -> bool:
    """Say whether backups are set up here; production does not start without them."""
    return bool(settings().keeper_image)


async def request_backup(
    session: AsyncSession, box: Box, *, reason: str = Reason.MANUAL, requested_by: str
) -> OperatorJob:
    """Ask for a backup; the assistant is away for a minute, for running files cannot be copied.

    Raises:
        ValidationError: there is nothing to save, or nowhere to save it.
    """
    box = await _alive(session, box)
    if not queries.has_memory(box):
        raise ValidationError("This assistant has not run yet; there is nothing to save.")
    return await service.request_converge(
        session,
        box,
        job_type=JobType.UPDATE,
        requested_by=requested_by,
        payload={"actions": [BACKUP], "backup_reason": Reason(reason).value},
    )


async def request_restore(
    session: AsyncSession,
    box: Box,
    backup_id: UUID,
    *,
    requested_by: str,
    may_replace: bool = False,
) -> OperatorJob:
    """Ask for a backup to come back; what the assistant remembers now goes.

    It may be one of another box of the same customer: then a copy of it becomes this box's own.

    A box that is suspended takes it in when it starts again; until then another one can be chosen.
    `may_replace`: also in place of what a lost volume waits for, as long as no job is at work.

    Raises:
        NotFoundError: the box has no such backup.
        ValidationError: the box is deleted, backups are not set up, or one is on its way back.
    """
    box = await _alive(session, box)
    was_lost = bool(box.health.get(RESTORE, {}).get("or_older"))
    is_at_work = await _is_at_work(session, box) if was_lost else await _is_under_way(session, box)
    if is_at_work or (was_lost and not may_replace):
        raise ValidationError("A backup is being brought back already; wait until that is done.")
    backup = await session.get(BoxBackup, backup_id)
    now = await business_now(session)
    if (
        backup is None
        or not is_usable(backup, now)
        or not await is_of_same_customer(session, box, backup)
    ):
        raise NotFoundError("There is no such backup any more.")
    if backup.box_id != box.id and is_snapshot(backup):
        raise ValidationError("A snapshot can only go back into the assistant it was made of.")
    mark = mark_restore(box, backup, or_older=was_lost)
    session.add(box)
    await session.flush()
    return await service.request_converge(
        session,
        box,
        job_type=JobType.UPDATE,
        requested_by=requested_by,
        payload={"actions": [RESTORE_ACTION], "backup_id": str(backup_id), RESTORE: mark},
    )


def mark_restore(box: Box, backup: BoxBackup, *, or_older: bool = False) -> str:
    """Note that this backup comes back before the box starts again, and return its mark.

    `or_older`: should it turn out to be damaged, the next older one will do.
    """
    marked = {
        "backup": str(backup.id),
        "mark": random.token_hex(8),
        "or_older": or_older,
        "was_taken": _was_taken(box.health.get(RESTORE) or {}),
    }
    box.health = {**box.health, RESTORE: marked}
    return marked["mark"]


def mark_instead(box: Box, before: BoxBackup, instead: BoxBackup) -> None:
    """Let another backup come back in place of this one, if it is still this one's turn."""
    marked = box.health.get(RESTORE) or {}
    if marked.get("backup") == str(before.id):
        box.health = {**box.health, RESTORE: {**marked, "backup": str(instead.id)}}


async def is_of_same_customer(session: AsyncSession, box: Box, backup: BoxBackup) -> bool:
    owner = await session.scalar(select(Box.customer_id).where(Box.id == backup.box_id))
    return owner == box.customer_id


async def drop_cancelled_restore(session: AsyncSession, box: Box) -> None:
    """Forget a wish whose job was cancelled: weeks later it would replace what was learnt since.

    What a keeper has begun to move in is finished instead, for nothing else is whole.
    """
    marked = box.health.get(RESTORE)
    if not marked or marked.get("or_older") or _was_taken(marked):
        return
    jobs = await _jobs_of(session, box, marked["mark"])
    has_ended = bool(jobs) and all(one.status is JobStatus.FAILED for one in jobs)
    if has_ended and any(one.error_code == CANCELLED for one in jobs):
        drop_restore(box, marked["mark"])
        session.add(box)


def drop_restore(box: Box, mark: str) -> None:
    """Forget this wish, and no other that came meanwhile."""
    if box.health.get(RESTORE, {}).get("mark") == mark:
        box.health = {key: one for key, one in box.health.items() if key != RESTORE}


def memory_from(box: Box) -> datetime | None:
    """Return from when the memory is that a restore brought back; nothing without a restore."""
    return queries.memory_from(box)


async def newest_usable(
    session: AsyncSession, box_id: UUID, *, after: BoxBackup | None = None
) -> BoxBackup | None:
    """Return the newest backup that can be restored; what a restore replaced comes last.

    `after`: whose turn is after this one's, which need not be usable any more.
    """
    now = await business_now(session)
    usable = [one for one in await _of_box(session, box_id) if is_usable(one, now)]
    left = [one for one in usable if after is None or _turn(one) > _turn(after)]
    return min(left, key=_turn, default=None)


def _turn(backup: BoxBackup) -> tuple[bool, float, int]:
    at = backup.created_at.timestamp() if backup.created_at else 0.0
    return backup.reason == Reason.BEFORE_RESTORE, -at, -backup.id.int


async def find_since(session: AsyncSession, box_id: UUID, since: datetime) -> BoxBackup | None:
    """Return a usable backup that was begun then or later: the pod was away since.

    One that was made while it ran is none of these.
    """
    now = await business_now(session)
    found = await _of_box(session, box_id)
    asleep = [one for one in found if one.reason not in {Reason.SCHEDULED, Reason.CLONE}]
    return next(
        (one for one in asleep if is_usable(one, now) and (one.created_at or since) >= since), None
    )


async def find_before_upgrade(
    session: AsyncSession, box_id: UUID, since: datetime
) -> BoxBackup | None:
    """Return the usable backup that was made for an upgrade which was asked for then."""
    now = await business_now(session)
    found = [one for one in await _of_box(session, box_id) if one.reason == Reason.BEFORE_UPGRADE]
    return next(
        (one for one in found if is_usable(one, now) and (one.created_at or since) >= since), None
    )


async def find_final(session: AsyncSession, box_id: UUID) -> BoxBackup | None:
    now = await business_now(session)
    found = await _of_box(session, box_id)
    return next((one for one in found if one.reason == Reason.FINAL and is_usable(one, now)), None)


def is_usable(backup: BoxBackup, now: datetime) -> bool:
    return (
        backup.finished_at is not None
        and backup.deleted_at is None
        and backup.error is None
        and backup.reason != Reason.COPY
        and (backup.key_ct is not None or is_snapshot(backup))
        and (backup.expires_at is None or backup.expires_at > now)
    )


def is_snapshot(backup: BoxBackup) -> bool:
    """Say whether it lies in the cluster, beside the volume, and not in the store."""
    return backup.location.startswith(SNAPSHOT)


async def find_marked(session: AsyncSession, box: Box) -> BoxBackup | None:
    """Return the backup that shall come back before the box starts."""
    marked = box.health.get(RESTORE)
    return await session.get(BoxBackup, UUID(marked["backup"])) if marked else None


async def is_forgotten(session: AsyncSession, box: Box) -> bool:
    """Say whether its customer asked to be deleted: then nothing is kept, also no last backup."""
    customer = await session.get(Customer, box.customer_id)
    return customer is None or customer.deleted_at is not None


async def begin_save(session: AsyncSession, box: Box, reason: Reason, *, most: int) -> Ticket:
    """Make the row of a backup, its key, and the address to which it may be sent once."""
    backup = BoxBackup(
        id=uuid4(),
        box_id=box.id,
        reason=reason.value,
        location="",
        key_ct=secrets.encrypt_bytes(KEY_PURPOSE, sealing.new_key()),
        key_id=secrets.key_id(),
        created_at=await business_now(session),
    )
    session.add(backup)
    await session.flush()
    return Ticket(
        backup_id=backup.id, way=Way.SAVE, token=make_token(backup.id, Way.SAVE, "", most)
    )


async def begin_restore(session: AsyncSession, box: Box) -> Ticket | None:
    """Return a fresh address for the marked backup; the one of an earlier try ends with this.

    `None`: there is nothing to restore, or the marked backup is of no use any more.
    """
    marked = box.health.get(RESTORE)
    if not marked:
        return None
    backup = await session.get(BoxBackup, UUID(marked["backup"]))
    if backup is None or not is_usable(backup, await business_now(session)):
        return None
    ticket = random.token_hex(8)
    fresh = {**marked, "ticket": ticket, "is_taken": False, "was_taken": _was_taken(marked)}
    box.health = {**box.health, RESTORE: fresh}
    session.add(box)
    token = make_token(backup.id, Way.RESTORE, ticket, 0)
    return Ticket(backup_id=backup.id, way=Way.RESTORE, token=token, mark=marked["mark"])


async def _is_under_way(session: AsyncSession, box: Box) -> bool:
    jobs = await _jobs_of(session, box, box.health.get(RESTORE, {}).get("mark", ""))
    return any(one.status in {JobStatus.QUEUED, JobStatus.RUNNING} for one in jobs)


async def _is_at_work(session: AsyncSession, box: Box) -> bool:
    found = await session.exec(
        select(OperatorJob.id).where(
            OperatorJob.box_id == box.id, OperatorJob.status == JobStatus.RUNNING
        )
    )
    return found.first() is not None


async def _jobs_of(session: AsyncSession, box: Box, mark: str) -> Sequence[OperatorJob]:
    """Return every job that was to bring this back: a newer request may have taken it over."""
    found = await session.exec(
        select(OperatorJob).where(
            OperatorJob.box_id == box.id, col(OperatorJob.payload)[RESTORE].astext == mark
        )
    )
    return found.all()


def _was_taken(marked: Mapping[str, Any]) -> bool:
    """Say whether a keeper had the archive and may have been ended while it moved files."""
    return bool(marked.get("was_taken") or marked.get("is_taken"))


async def _of_box(session: AsyncSession, box_id: UUID) -> Sequence[BoxBackup]:
    found = await session.exec(
        select(BoxBackup)
        .where(BoxBackup.box_id == box_id, col(BoxBackup.deleted_at).is_(None))
        .order_by(col(BoxBackup.created_at).desc(), sa.desc(col(BoxBackup.id)))
    )
    return found.all()


async def _alive(session: AsyncSession, box: Box) -> Box:
    if not are_on():
        raise ValidationError("Backups are not set up here: KEEPER_IMAGE is not set.")
    box = await queries.get_any_box(session, box.id, lock=True)
    if box.status in GONE:
        raise ValidationError("This assistant is deleted.")
    return box
