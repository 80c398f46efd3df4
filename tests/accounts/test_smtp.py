"""The mail adapter against a real SMTP server."""

import socket

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from openclaw_web.core.errors import SettingsError, VendorError
from openclaw_web.integrations import mail
from openclaw_web.local.ports import free_port
from tests.accounts.conftest import Mailbox

EMAIL = "ada@example.com"


async def test_user_and_password_are_shown_to_the_server(use_server):
    seen = []

    def check(_server, _session, _envelope, _mechanism, data):
        seen.append((data.login, data.password))
        return AuthResult(success=True)

    box, port = Mailbox(), free_port()
    controller = Controller(
        box, hostname="127.0.0.1", port=port, authenticator=check, auth_require_tls=False
    )
    controller.start()
    try:
        use_server(f"smtp://us%40er:pa%3Ass@127.0.0.1:{port}")
        await mail.send(message())
    finally:
        controller.stop()
    assert seen == [(b"us@er", b"pa:ss")]


async def test_a_wrong_password_for_the_server_can_be_mended(use_server):
    def check(_server, _session, _envelope, _mechanism, _data):
        return AuthResult(success=False, handled=False)

    port = free_port()
    controller = Controller(
        Mailbox(), hostname="127.0.0.1", port=port, authenticator=check, auth_require_tls=False
    )
    controller.start()
    try:
        use_server(f"smtp://user:wrong@127.0.0.1:{port}")
        with pytest.raises(VendorError) as error:
            await mail.send(message())
    finally:
        controller.stop()
    assert error.value.can_retry
    assert "wrong" not in str(error.value)


async def test_a_server_that_says_nothing_does_not_hold_us(use_server, monkeypatch):
    monkeypatch.setattr(mail, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_server(f"smtp://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(VendorError) as error:
            await mail.send(message())
    assert error.value.can_retry


@pytest.mark.parametrize("url", ["", "http://mail.example", "smtp://"])
async def test_an_address_that_is_no_mail_server_is_named(use_server, url):
    use_server(url)
    with pytest.raises(SettingsError, match="SMTP_URL"):
        await mail.send(message())


def message():
    return mail.MailMessage(
        recipient=EMAIL, subject="Hi", text="Hi", html="<p>Hi</p>", message_id="<1@test>"
    )
