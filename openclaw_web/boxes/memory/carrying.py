"""A backup's bytes on their way: sealed as they come in, opened as they go out, never stored clear.

It runs where boxes may call (the token proxy's internal listener), and takes each address once.
"""

import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import queries
from openclaw_web.boxes.memory import addresses, backups
from openclaw_web.boxes.memory.addresses import AddressError, Allowed, Way
from openclaw_web.boxes.models import BoxBackup
from openclaw_web.core import secrets
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.sealing import DamagedError, Opener, Sealer
from openclaw_web.core.settings import settings
from openclaw_web.integrations.storage import MissingError, Store

logger = logging.getLogger(__name__)

PROOFS = 5  # older backups that are looked for before a missing one is called gone
USED = "This address was used already, or its backup is over."


class TooLargeError(OpenClawError):
    """More came than a volume of this box holds."""


class CutOffError(OpenClawError):
    """The sender went away before it had sent all."""


class LockedError(OpenClawError):
    """Its key was encrypted with one that is not set here."""

    def __init__(self) -> None:
        super().__init__("No key in SECRET_KEY or ENCRYPTION_KEYS opens this backup.")


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A backup on its way back: how long it is, its SHA-256 in hex, and its bytes."""

    size_bytes: int
    sha256: str
    pieces: AsyncGenerator[bytes]


@cache
def store() -> Store:
    """Return this deployment's backup store."""
    return Store(settings().backup_place)


async def take_in(backup_id: UUID, token: str, pieces: AsyncIterator[bytes]) -> int:
    """Seal and store what a keeper sends; returns how many bytes that were.

    Nothing is usable before the last byte is stored: a sender that is cut off leaves a backup that
    failed, and the next try makes another one.

    Raises:
        AddressError: the address is not for this, used, or over.
        TooLargeError, CutOffError: not all of it came, or too much.
        VendorError: the store does not work.
    """
    allowed = addresses.check_token(token, backup_id, Way.SAVE)
    backup = await _take_address(backup_id)
    try:
        return await _store(backup, allowed, pieces)
    except BaseException as error:  # also when the server cancels us: the row must not look alive
        await _note_failure(backup_id, error)
        raise


async def give_out(backup_id: UUID, token: str) -> Outgoing:
    """Open a backup for the keeper that brings it back.

    Raises:
        AddressError: the address is not for this, used, or over.
        LockedError: its key is lost.
    """
    allowed = addresses.check_token(token, backup_id, Way.RESTORE)
    async with session_scope() as session:
        backup = await _take_ticket(session, backup_id, allowed)
        key = _key_of(backup)
    return Outgoing(
        size_bytes=backup.size_bytes or 0,
        sha256=(backup.sha256 or b"").hex(),
        pieces=_watched(backup, key),
    )


async def _watched(backup: BoxBackup, key: bytes) -> AsyncGenerator[bytes]:
    """Note it when a backup is of no use, so that it is not tried again."""
    try:
        async with aclosing(opened(backup, key)) as pieces:
            async for piece in pieces:
                yield piece
    except OpenClawError as error:
        await note_trouble(backup, error)
        await _give_ticket_back(backup)
        raise


async def note_trouble(backup: BoxBackup, error: OpenClawError) -> None:
    """Write on its row that a backup is of no use, when that is certain.

    A store that does not answer may come back, and one that is not there (a folder that is not
    mounted) has no objects at all: one that is missing is gone only where one lies that was stored
    before.
    """
    is_gone = isinstance(error, MissingError) and await _has_older(backup)
    if not isinstance(error, DamagedError) and not is_gone:
        return
    async with session_scope() as session:
        kept = await session.get_one(BoxBackup, backup.id, with_for_update=True)
        kept.error = str(error)
        session.add(kept)


async def _has_older(backup: BoxBackup) -> bool:
    """Say whether one that was stored before, of whichever box, is in the store.

    What it remembers may be older than that: a copy takes over the date of what it was made of.
    """
    async with session_scope() as session:
        found = await session.exec(
            select(BoxBackup.location)
            .where(
                col(BoxBackup.finished_at) < backup.finished_at,
                col(BoxBackup.deleted_at).is_(None),
                col(BoxBackup.error).is_(None),
                col(BoxBackup.key_ct).is_not(None),
            )
            .order_by(col(BoxBackup.finished_at).desc())
            .limit(PROOFS)
        )
        locations = found.all()
    for one in locations:
        if await store().exists(one):
            return True
    return False


async def _give_ticket_back(backup: BoxBackup) -> None:
    """Note that a keeper has not had the whole archive, so that it has moved nothing."""
    async with session_scope() as session:
        box = await queries.get_any_box(session, backup.box_id, lock=True)
        marked = box.health.get(backups.RESTORE) or {}
        if marked.get("backup") == str(backup.id):
            box.health = {**box.health, backups.RESTORE: {**marked, "is_taken": False}}
            session.add(box)


async def opened(backup: BoxBackup, key: bytes) -> AsyncGenerator[bytes]:
    """Yield a stored backup in clear, piece by piece.

    Raises:
        DamagedError: it is not what was stored.
        VendorError: the store does not work.
    """
    opener = Opener(key, backup.id.bytes)
    async with aclosing(store().read(backup.location)) as sealed:
        async for piece in sealed:
            if clear := opener.update(piece):
                yield clear
    if clear := opener.finish():
        yield clear


async def copy(source: BoxBackup, target_id: UUID) -> None:
    """Store a backup once more, under another row's key.

    Raises:
        DamagedError: it is not what was stored.
        LockedError: its key is lost.
        VendorError: the store does not work.
    """
    target = await _take_address(target_id)
    allowed = Allowed(ticket="", most_bytes=source.size_bytes or 0)
    try:
        async with aclosing(opened(source, _key_of(source))) as pieces:
            await _store(target, allowed, pieces)
    except BaseException as error:
        await _note_failure(target_id, error)
        raise
    async with session_scope() as session:
        stored = await session.get_one(BoxBackup, target_id)
    if stored.sha256 != source.sha256:
        raise DamagedError


async def verify(backup: BoxBackup) -> None:
    """Read a backup to its end and compare it with what its row says; for a drill.

    Raises:
        DamagedError: it could not be restored.
        VendorError: the store does not work.
    """
    digest, size = hashlib.sha256(), 0
    async with aclosing(opened(backup, _key_of(backup))) as pieces:
        async for piece in pieces:
            digest.update(piece)
            size += len(piece)
    if size != backup.size_bytes or digest.digest() != backup.sha256:
        raise DamagedError


def _key_of(backup: BoxBackup) -> bytes:
    if backup.key_ct is None:
        raise AddressError(USED)
    try:
        return secrets.decrypt_bytes(backups.KEY_PURPOSE, backup.key_ct)
    except InvalidTag as error:
        raise LockedError from error


async def _store(backup: BoxBackup, allowed: Allowed, pieces: AsyncIterator[bytes]) -> int:
    sealer = Sealer(_key_of(backup), backup.id.bytes)
    digest, size = hashlib.sha256(), 0
    writing = await store().create(backup.location)
    try:
        async for piece in _limited(pieces, allowed.most_bytes):
            size += len(piece)
            digest.update(piece)
            if sealed := sealer.update(piece):
                await writing.write(sealed)  # the sender waits until it is written
        await writing.write(sealer.finish())
        await writing.finish()
    except BaseException:
        await writing.abort()
        raise
    async with session_scope() as session:
        done = await _change(
            session,
            backup.id,
            finished_at=await business_now(session),
            size_bytes=size,
            sha256=digest.digest(),
        )
    if done is None:
        raise AddressError(USED)
    return size


async def _limited(pieces: AsyncIterator[bytes], most_bytes: int) -> AsyncGenerator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > most_bytes:
            raise TooLargeError("This is more than the volume of this box holds.")
        yield piece


async def _take_address(backup_id: UUID) -> BoxBackup:
    """Take the only use of a backup's address, in one statement.

    Raises:
        AddressError: somebody had it already, or the backup was given up.
    """
    async with session_scope() as session:
        place = sa.cast(col(BoxBackup.box_id), sa.Text) + f"/{backup_id}.sealed"
        backup = await _change(session, backup_id, has_begun=False, location=place)
    if backup is None:
        raise AddressError(USED)
    return backup


async def _change(
    session: AsyncSession, backup_id: UUID, *, has_begun: bool = True, **values: Any
) -> BoxBackup | None:
    """Change the row of a backup that is under way; nothing when it is not (any more)."""
    columns = {getattr(BoxBackup, name): value for name, value in values.items()}
    statement = (
        sa.update(BoxBackup)
        .where(
            col(BoxBackup.id) == backup_id,
            col(BoxBackup.finished_at).is_(None),
            col(BoxBackup.error).is_(None),
            col(BoxBackup.deleted_at).is_(None),
            col(BoxBackup.location) != "" if has_begun else col(BoxBackup.location) == "",
        )
        .values(columns)
        .returning(BoxBackup)
    )
    return await session.scalar(statement, execution_options={"populate_existing": True})


async def _take_ticket(session: AsyncSession, backup_id: UUID, allowed: Allowed) -> BoxBackup:
    backup = await session.get(BoxBackup, backup_id)
    if backup is None or not backups.is_usable(backup, await business_now(session)):
        raise AddressError(USED)
    box = await queries.get_any_box(session, backup.box_id, lock=True)
    marked = box.health.get(backups.RESTORE) or {}
    is_ours = marked.get("backup") == str(backup_id) and marked.get("ticket") == allowed.ticket
    if not is_ours or marked.get("is_taken"):
        raise AddressError(USED)
    box.health = {**box.health, backups.RESTORE: {**marked, "is_taken": True}}
    session.add(box)
    return backup


async def _note_failure(backup_id: UUID, error: BaseException) -> None:
    sentence = str(error) if isinstance(error, OpenClawError) else type(error).__name__
    logger.warning("A backup could not be taken in: %s", sentence)
    async with session_scope() as session:
        await _change(session, backup_id, error=sentence[:500])
