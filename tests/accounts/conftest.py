"""What these tests share: a mail server, and reading the mailed code as its recipient would."""

from email import message_from_bytes, policy

import pytest
from aiosmtpd.controller import Controller
from sqlmodel import col, select

from openclaw_web.accounts import letters
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import OutboxMail
from openclaw_web.core.database import session_scope
from openclaw_web.core.secrets import decrypt
from openclaw_web.core.settings import load
from openclaw_web.integrations import mail
from openclaw_web.local.ports import free_port


async def newest_code(email: str) -> str:
    """Return the code that waits in the outbox for this address."""
    async with session_scope() as session:
        found = await session.exec(
            select(OutboxMail)
            .where(OutboxMail.recipient == email, OutboxMail.kind == "code")
            .order_by(col(OutboxMail.created_at).desc())
        )
        return decrypt(accounts.MAIL_SECRET, found.all()[0].secret_ct or b"")


@pytest.fixture
def mailed_code():
    return newest_code


@pytest.fixture
def sign_in(database, redis):
    """Sign an address in, all the way through its code, and return the outcome."""
    assert database
    assert redis is not None

    async def sign_in(email: str, *, ip: str = "198.51.100.7"):
        async with session_scope() as session:
            await accounts.request_code(session, email, ip=ip)
        code = await newest_code(email)
        async with session_scope() as session:
            return await accounts.confirm_code(session, email, code, ip=ip, user_agent="a test")

    return sign_in


class Mailbox:
    """A mail server's handler that keeps what it gets, and answers as it is told."""

    def __init__(self):
        self.mails = []
        self.answers = []

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - aiosmtpd's name
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return answer


@pytest.fixture
def use_server(monkeypatch, tmp_path):
    def use(url):
        # A folder of its own: the default one may hold a running stack, with settings of its own.
        home = {"OPENCLAW_CLOUD_HOME": str(tmp_path)}
        chosen = load({"SMTP_URL": url, "PUBLIC_URL": "https://cloud.example", **home})
        monkeypatch.setattr(mail, "settings", lambda: chosen)
        monkeypatch.setattr(letters, "settings", lambda: chosen)

    return use


@pytest.fixture
def mailbox(use_server):
    box, port = Mailbox(), free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    use_server(f"smtp://127.0.0.1:{port}")
    yield box
    controller.stop()
