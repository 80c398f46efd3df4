"""Mail out: one SMTP server, named by SMTP_URL, spoken to with aiosmtplib."""

import asyncio
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from ssl import SSLError
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosmtplib

from openclaw_web.core.errors import SettingsError, VendorError
from openclaw_web.core.settings import settings

TIMEOUT_SECONDS = 30.0  # for the whole conversation
DEFAULT_PORTS = {"smtp": 25, "smtps": 465}
PERMANENT = range(500, 600)  # RFC 5321: trying the same again does not help
AUTHENTICATION_CODES = range(530, 540)  # ours to mend, so the mail may still go out later


@dataclass(frozen=True, kw_only=True)
class MailMessage:
    """One mail to one person; the id keeps a mail that is sent twice recognisable."""

    recipient: str
    subject: str
    text: str
    html: str
    message_id: str


async def send(message: MailMessage) -> None:
    """Hand a mail to the SMTP server.

    smtps:// speaks TLS from the start; smtp:// switches to TLS when the server offers it.

    Raises:
        SettingsError: SMTP_URL is missing or no SMTP address.
        VendorError: the server refused the mail or could not be reached; `can_retry` says which.
    """
    server = _server(settings().smtp_url)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await aiosmtplib.send(_mime(message), **server)
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refused(min(refused.code for refused in error.recipients)) from error
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(error.code) from error
    except (aiosmtplib.SMTPException, SSLError, OSError) as error:
        raise VendorError(
            "The mail server cannot be reached.", can_retry=True, code=type(error).__name__
        ) from error


def _refused(code: int) -> VendorError:
    is_final = code in PERMANENT and code not in AUTHENTICATION_CODES
    return VendorError(
        f"The mail server refused the mail with code {code}.",
        can_retry=not is_final,
        code=str(code),
    )


def _server(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise SettingsError(
            "SMTP_URL must look like smtp://user:password@host:587 or smtps://host."
        )
    is_tls = parts.scheme == "smtps"
    return {
        "hostname": parts.hostname,
        "port": parts.port or DEFAULT_PORTS[parts.scheme],
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "use_tls": is_tls,
        "start_tls": False if is_tls else None,
    }


def _mime(message: MailMessage) -> EmailMessage:
    mime = EmailMessage()
    mime["From"] = settings().mail_from
    mime["To"] = message.recipient
    mime["Subject"] = message.subject
    mime["Date"] = formatdate(usegmt=True)
    mime["Message-ID"] = message.message_id
    mime["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    mime.set_content(message.text)
    mime.add_alternative(message.html, subtype="html")
    return mime
