"""Bringing everything that is encrypted at rest under the newest key of ENCRYPTION_KEYS.

Each batch is a transaction of its own, and a row says under which key it is: ended anywhere, the
next run goes on with what is left. An old key may be taken out of the setting once nothing is.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from openclaw_web.accounts.models import OutboxMail
from openclaw_web.accounts.service import MAIL_SECRET
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import backups
from openclaw_web.boxes.models import BoxBackup, BoxSecret
from openclaw_web.core import secrets
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.onboarding import service as onboarding
from openclaw_web.onboarding.models import OnboardingSecret

BATCH = 200


class UnreadableError(OpenClawError):
    """A row is sealed with a key that we do not have."""


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


async def rotate_keys() -> dict[str, int]:
    """Encrypt every secret anew that is not under the newest key; return how many of each table.

    Raises:
        UnreadableError: a row's key is not among ours; the rows before it are done.
    """
    done = {}
    for sealed in SEALED:
        done[sealed.table.__tablename__] = 0
        while count := await _rotate_batch(sealed):
            done[sealed.table.__tablename__] += count
    return done


async def _rotate_batch(sealed: Sealed) -> int:
    newest = secrets.key_id()
    content = getattr(sealed.table, sealed.column)
    statement = (
        sa.select(sealed.table)
        .where(content.is_not(None), sealed.table.key_id.is_distinct_from(newest))
        .limit(BATCH)
        .with_for_update()
    )
    async with session_scope() as session:
        rows = (await session.exec(statement)).scalars().all()
        for row in rows:
            setattr(row, sealed.column, _sealed_anew(sealed, row))
            row.key_id = newest
            session.add(row)
    return len(rows)


def _sealed_anew(sealed: Sealed, row: Any) -> bytes:
    try:
        clear = secrets.decrypt_bytes(sealed.purpose, getattr(row, sealed.column))
    except InvalidTag as error:
        raise UnreadableError(
            f"A row of {sealed.table.__tablename__} is under the key {row.key_id}, which is not in"
            " ENCRYPTION_KEYS; put it back and run this again."
        ) from error
    return secrets.encrypt_bytes(sealed.purpose, clear)
