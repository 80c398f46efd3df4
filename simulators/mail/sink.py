"""The SMTP side: takes whatever is sent and reads it apart."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP, Envelope, Session

from simulators import LOOPBACK
from simulators.mail.store import Mail, Store

LARGEST_MAIL_BYTES = 10_000_000


class Sink:
    """aiosmtpd calls this for each mail."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        content = envelope.content or b""
        raw = content if isinstance(content, bytes) else content.encode()
        self._store.add(read_mail(raw, envelope.mail_from or "", list(envelope.rcpt_tos)))
        return "250 Message accepted for delivery"


@contextlib.asynccontextmanager
async def listening(store: Store, port: int) -> AsyncGenerator[None]:
    """Take mails on the port for as long as the context lasts."""

    def session() -> SMTP:
        return SMTP(
            Sink(store),
            hostname="localhost",
            data_size_limit=LARGEST_MAIL_BYTES,
            enable_SMTPUTF8=True,
        )

    server = await asyncio.get_running_loop().create_server(session, LOOPBACK, port)
    try:
        yield
    finally:
        server.close()


def read_mail(raw: bytes, sender: str, recipients: list[str]) -> Mail:
    """Return the mail's readable parts; a broken one is shown as far as it can be read."""
    message = message_from_bytes(raw, policy=policy.default)
    return Mail(
        sender=str(message["from"] or sender),
        recipients=recipients,
        subject=str(message["subject"] or ""),
        text=_part(message, "plain"),
        html=_part(message, "html"),
        received_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except (LookupError, UnicodeError):  # a charset nobody knows
        payload = part.get_payload(decode=True)
        return payload.decode(errors="replace") if isinstance(payload, bytes) else ""
