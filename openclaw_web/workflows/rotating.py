"""Bringing everything that is encrypted at rest under the newest key of ENCRYPTION_KEYS.

Each batch is a transaction of its own, and a row says under which key it is: ended anywhere, the
next run goes on with what is left. A row that no key opens keeps no other one from its new key; it
is named. An old key may be taken out of the setting once nothing is under it.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from openclaw_web.accounts.models import OutboxMail
from openclaw_web.accounts.service import MAIL_SECRET
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import backups
from openclaw_web.boxes.models import BoxBackup, BoxSecret
from openclaw_web.core import secrets
from openclaw_web.core.database import session_scope
from openclaw_web.onboarding import service as onboarding
from openclaw_web.onboarding.models import OnboardingSecret

BATCH = 200


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """One column of secrets, what they are for, and the column that names their key."""

    table: Any
    column: str
    purpose: str


SEALED = (
    Sealed(table=BoxSecret, column="telegram_token_ct", purpose=boxes.BOT_TOKEN_PURPOSE),
    Sealed(
        table=OnboardingSecret, column="telegram_token_ct", purpose=onboarding.BOT_TOKEN_PURPOSE
    ),
    Sealed(table=BoxBackup, column="key_ct", purpose=backups.KEY_PURPOSE),
    Sealed(table=OutboxMail, column="secret_ct", purpose=MAIL_SECRET),
)


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A row that no key of ours opens: its key is not in the setting, or it is damaged."""

    table: str
    row_id: UUID
    key_id: str | None

    def __str__(self) -> str:
        name = f"{self.table} {self.row_id}"
        if self.key_id in secrets.key_ids():
            return f"{name}: our {self.key_id} is not the key it is under, or the row is damaged."
        return f"{name}: its key {self.key_id} is not in ENCRYPTION_KEYS; put it back."


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """How many rows of each table are under the newest key now, and which could not be read."""

    done: dict[str, int] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)


async def rotate_keys() -> Rotated:
    """Encrypt every secret anew that is not under the newest key; what cannot be read stays."""
    found = Rotated()
    for sealed in SEALED:
        count, unreadable = await _rotate_table(sealed)
        found.done[sealed.table.__tablename__] = count
        found.unreadable.extend(unreadable)
    return found


async def _rotate_table(sealed: Sealed) -> tuple[int, list[Unreadable]]:
    """Walk through a table until a walk finds nothing to do: others may write behind us."""
    total = 0
    while True:
        count, unreadable = await _walk(sealed)
        total += count
        if not count:
            return total, unreadable


async def _walk(sealed: Sealed) -> tuple[int, list[Unreadable]]:
    count, unreadable, after = 0, [], UUID(int=0)
    while batch := await _rotate_batch(sealed, after):
        bad = [one for one in batch.values() if one is not None]
        count += len(batch) - len(bad)
        unreadable += bad
        after = max(batch)
    return count, unreadable


async def _rotate_batch(sealed: Sealed, after: UUID) -> dict[UUID, Unreadable | None]:
    """Encrypt the next rows anew; return their ids, each with what is wrong with it."""
    newest = secrets.key_id()
    content = getattr(sealed.table, sealed.column)
    (row_id,) = sa.inspect(sealed.table).primary_key
    statement = (
        sa.select(sealed.table)
        .where(content.is_not(None), sealed.table.key_id.is_distinct_from(newest), row_id > after)
        .order_by(row_id)
        .limit(BATCH)
        .with_for_update()
    )
    async with session_scope() as session:
        rows = (await session.exec(statement)).scalars().all()
        return {getattr(row, row_id.name): _seal_anew(sealed, row, row_id.name) for row in rows}


def _seal_anew(sealed: Sealed, row: Any, id_name: str) -> Unreadable | None:
    try:
        clear = secrets.decrypt_bytes(sealed.purpose, getattr(row, sealed.column))
    except (InvalidTag, ValueError):  # a wrong key; too short to be anything of ours
        return Unreadable(
            table=sealed.table.__tablename__, row_id=getattr(row, id_name), key_id=row.key_id
        )
    setattr(row, sealed.column, secrets.encrypt_bytes(sealed.purpose, clear))
    row.key_id = secrets.key_id()
    return None
