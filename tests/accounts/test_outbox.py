"""The mail outbox: sent once, tried again, wiped afterwards."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import select

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts import tasks
from openclaw_web.accounts.models import AuthSession, OutboxMail, SignInCode
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.local.ports import free_port

pytestmark = pytest.mark.usefixtures("database", "redis")

EMAIL = "ada@example.com"


async def queue(kind="welcome", **values):
    async with session_scope() as session:
        await accounts.queue_mail(session, kind=kind, recipient=EMAIL, **values)


async def outbox():
    async with session_scope() as session:
        return (await session.exec(select(OutboxMail))).one()


async def change(**values):
    async with session_scope() as session:
        await session.exec(sa.update(OutboxMail).values(**values))


async def test_a_queued_mail_arrives(mailbox):
    await queue(payload={"tier_name": "Pro"})
    assert await tasks.send_due_mail() == []
    (arrived,) = mailbox.mails
    assert arrived["To"] == EMAIL
    assert "Welcome" in arrived["Subject"]
    assert "Pro" in arrived.get_body(("plain",)).get_content()
    assert "https://cloud.example/home" in arrived.get_body(("html",)).get_content()
    assert (await outbox()).status == "sent"


async def test_a_mail_is_sent_once(mailbox):
    await queue()
    await tasks.send_due_mail()
    await tasks.send_due_mail()
    assert len(mailbox.mails) == 1


async def test_a_code_mail_shows_its_code_and_the_outbox_forgets_it(mailbox):
    await queue(kind="code", secret="12345678")  # noqa: S106 - a test's
    await tasks.send_due_mail()
    assert "12345678" in mailbox.mails[0].get_body(("plain",)).get_content()
    assert "12345678" not in mailbox.mails[0]["Subject"]
    assert (await outbox()).secret_ct is None


async def test_a_busy_server_is_tried_again_later(mailbox):
    mailbox.answers = ["451 try later"]
    await queue()
    assert await tasks.send_due_mail() == []
    waiting = await outbox()
    assert (waiting.status, waiting.attempt) == ("pending", 1)
    assert waiting.run_after > real_now()
    await change(run_after=real_now())
    await tasks.send_due_mail()
    assert len(mailbox.mails) == 1


async def test_five_failures_are_given_back_to_the_caller(mailbox):
    mailbox.answers = ["451 try later"] * 5
    await queue()
    for _ in range(4):
        assert await tasks.send_due_mail() == []
        await change(run_after=real_now())
    (failed,) = await tasks.send_due_mail()
    assert (failed.kind, failed.error) == (
        "welcome",
        "The mail server refused the mail with code 451.",
    )
    assert (await outbox()).status == "failed"


async def test_a_refused_mail_is_not_tried_again(mailbox):
    mailbox.answers = ["550 no such mailbox"]
    await queue(kind="code", secret="12345678")  # noqa: S106 - a test's
    assert len(await tasks.send_due_mail()) == 1
    assert (await outbox()).secret_ct is None


async def test_a_server_that_is_away_loses_nothing(use_server):
    use_server(f"smtp://127.0.0.1:{free_port()}")
    await queue()
    assert await tasks.send_due_mail() == []
    assert (await outbox()).status == "pending"


async def test_a_missing_setting_loses_nothing(use_server):
    use_server("")
    await queue()
    assert await tasks.send_due_mail() == []
    assert (await outbox()).status == "pending"


async def test_old_mails_codes_and_sessions_are_forgotten(sign_in, mailbox):
    signed_in = await sign_in(EMAIL)
    await tasks.send_due_mail()
    assert len(mailbox.mails) == 1
    assert await tasks.forget_old_rows() == 0
    long_ago = real_now() - timedelta(days=100)
    async with session_scope() as session:
        for table in (OutboxMail, SignInCode):
            await session.exec(sa.update(table).values(created_at=long_ago))
        await session.exec(sa.update(AuthSession).values(revoked_at=long_ago))
    assert await tasks.forget_old_rows() == 3
    async with session_scope() as session:
        assert await accounts.find_customer(session, signed_in.customer_id) is not None


async def test_old_mails_that_wait_are_kept():
    await queue()
    await change(created_at=real_now() - timedelta(days=100))
    assert await tasks.forget_old_rows() == 0


async def test_a_code_that_expired_is_not_mailed(mailbox):
    await queue(kind="code", secret="12345678")  # noqa: S106 - a test's
    await change(created_at=real_now() - timedelta(minutes=11))
    (failed,) = await tasks.send_due_mail()
    assert "expired" in failed.error
    assert mailbox.mails == []


async def test_a_mail_without_words_fails_by_name(mailbox):
    await queue(kind="birthday")
    (failed,) = await tasks.send_due_mail()
    assert "birthday" in failed.error
    assert mailbox.mails == []


async def test_another_workers_lease_is_respected_until_it_ends(mailbox):
    await queue()
    await change(lease_owner="other", lease_until=real_now() + timedelta(seconds=30))
    await tasks.send_due_mail()
    assert mailbox.mails == []
    await change(lease_until=real_now())
    await tasks.send_due_mail()
    assert len(mailbox.mails) == 1


async def test_what_no_mail_can_be_made_of_fails_once_and_does_not_come_back(mailbox):
    await queue(kind="limit_75", payload={"period_end": "the last day"})
    (failed,) = await tasks.send_due_mail()
    assert failed.kind == "limit_75"
    assert (await outbox()).status == "failed"
    assert await tasks.send_due_mail() == []
    assert mailbox.mails == []
