"""Sending what waits in the mail outbox, and forgetting what is over; safe to run twice at once."""

import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlmodel import col, select

from openclaw_web.accounts import layout, mails
from openclaw_web.accounts.models import AuthSession, MailStatus, OutboxMail, SignInCode
from openclaw_web.accounts.service import CODE_LIFE, MAIL_SECRET
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import SettingsError, VendorError
from openclaw_web.core.secrets import decrypt
from openclaw_web.integrations import mail

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)  # twice what one SMTP conversation may take
BACK_OFF_SECONDS = (5, 30, 120, 600)
ATTEMPTS = len(BACK_OFF_SECONDS) + 1
MAIL_DOMAIN = "openclaw-cloud"
CODES_KEPT = timedelta(days=1)  # far longer than the limits count
SESSIONS_KEPT = timedelta(days=30)
MAILS_KEPT = timedelta(days=90)
_DUE = (
    select(OutboxMail.id)
    .where(
        OutboxMail.status == MailStatus.PENDING,
        col(OutboxMail.run_after) <= sa.bindparam("now"),
        col(OutboxMail.lease_until).is_(None) | (col(OutboxMail.lease_until) < sa.bindparam("now")),
    )
    .order_by(col(OutboxMail.run_after))
    .limit(1)
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    sa.update(OutboxMail)
    .where(col(OutboxMail.id) == _DUE.scalar_subquery())
    .values(
        attempt=OutboxMail.attempt + 1,
        lease_owner=sa.bindparam("by"),
        lease_until=sa.bindparam("until"),
    )
    .returning(OutboxMail)
)


@dataclass(frozen=True, kw_only=True)
class FailedMail:
    """A mail that will not be tried again; the caller raises the alert."""

    mail_id: UUID
    kind: str
    customer_id: UUID | None
    error: str


async def send_due_mail() -> list[FailedMail]:
    """Send everything that is due, and return what failed for good.

    A crash between sending and noting it sends a mail twice, under the same Message-ID.
    """
    return [failed async for one in _claimed() if (failed := await _send(one))]


async def forget_old_rows() -> int:
    """Delete codes, sessions and mails that are long over, and return how many; run it daily."""
    now = real_now()
    over = (
        sa.delete(SignInCode).where(col(SignInCode.created_at) < now - CODES_KEPT),
        sa.delete(AuthSession).where(
            sa.func.least(col(AuthSession.revoked_at), col(AuthSession.expires_at))
            < now - SESSIONS_KEPT
        ),
        sa.delete(OutboxMail).where(
            col(OutboxMail.status) != MailStatus.PENDING,
            col(OutboxMail.created_at) < now - MAILS_KEPT,
        ),
    )
    async with session_scope() as session:
        return sum([(await session.exec(statement)).rowcount for statement in over])


async def _claimed() -> AsyncIterator[OutboxMail]:
    """Yield due mails until there are none, each leased to us and with its attempt counted."""
    owner = secrets.token_hex(8)
    while (row := await _claim(owner)) is not None:
        yield row


async def _claim(owner: str) -> OutboxMail | None:
    now = real_now()
    values = {"now": now, "by": owner, "until": now + LEASE}
    async with session_scope() as session:
        return (await session.exec(_CLAIM, params=values)).scalar_one_or_none()


async def _send(row: OutboxMail) -> FailedMail | None:
    try:
        await mail.send(_message(row))
    except VendorError as error:
        return await _note_failure(row, error, can_retry=error.can_retry)
    except SettingsError as error:
        return await _note_failure(row, error, can_retry=True)
    except (mails.UnknownMailError, ValueError) as error:  # no words, or no mail can be made of it
        return await _note_failure(row, error, can_retry=False)
    await _note(row, status=MailStatus.SENT, sent_at=real_now(), secret_ct=None, error=None)
    return None


def _message(row: OutboxMail) -> mail.MailMessage:
    """Write the mail.

    Raises:
        UnknownMailError: there are no words for its kind, or its secret cannot be read or is stale.
    """
    if (
        row.kind == mails.MailKind.CODE
        and row.created_at
        and row.created_at + CODE_LIFE < real_now()
    ):
        raise mails.UnknownMailError("The code expired before it could be mailed.")
    try:
        secret = decrypt(MAIL_SECRET, row.secret_ct) if row.secret_ct else None
    except InvalidTag as error:
        raise mails.UnknownMailError("Another server key sealed this mail's secret.") from error
    letter = mails.write(row.kind, row.payload, secret=secret)
    return mail.MailMessage(
        recipient=row.recipient or "",
        subject=letter.subject,
        text=layout.as_text(letter),
        html=layout.as_html(letter),
        message_id=f"<{row.id}@{MAIL_DOMAIN}>",
    )


async def _note_failure(row: OutboxMail, error: Exception, *, can_retry: bool) -> FailedMail | None:
    logger.warning("Mail %s (%s), attempt %d: %s", row.id, row.kind, row.attempt, error)
    if can_retry and row.attempt < ATTEMPTS:
        pause = timedelta(seconds=BACK_OFF_SECONDS[row.attempt - 1])
        await _note(row, run_after=real_now() + pause, error=str(error))
        return None
    await _note(row, status=MailStatus.FAILED, secret_ct=None, error=str(error))
    return FailedMail(mail_id=row.id, kind=row.kind, customer_id=row.customer_id, error=str(error))


async def _note(row: OutboxMail, **values: object) -> None:
    """Write the outcome, unless another worker has taken the mail over since."""
    async with session_scope() as session:
        await session.exec(
            sa.update(OutboxMail)
            .where(col(OutboxMail.id) == row.id, col(OutboxMail.lease_owner) == row.lease_owner)
            .values(lease_owner=None, lease_until=None, **values)
        )
