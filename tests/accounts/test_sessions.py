"""Sessions: how long they last, and how they end."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts import queries
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import (
    AuthSession,
    Customer,
    CustomerAuth,
    CustomerProfile,
    OutboxMail,
)
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError
from openclaw_web.integrations import redis as bells

pytestmark = pytest.mark.usefixtures("database", "redis")

EMAIL = "ada@example.com"


async def who(token):
    async with session_scope() as session:
        return await accounts.find_principal(session, token)


async def change(table, *conditions, **values):
    async with session_scope() as session:
        await session.exec(sa.update(table).where(*conditions).values(**values))


async def last_seen():
    async with session_scope() as session:
        return (await session.exec(select(AuthSession))).one().last_seen_at or real_now()


async def end(token):
    async with session_scope() as session:
        await accounts.end_session(session, token)


async def test_a_token_says_who_is_asking(sign_in):
    signed_in = await sign_in(EMAIL)
    principal = await who(signed_in.token)
    assert (principal.customer_id, principal.email) == (signed_in.customer_id, EMAIL)
    assert not principal.is_staff


async def test_a_token_has_256_random_bits(sign_in):
    assert len((await sign_in(EMAIL)).token) == 43


async def test_a_made_up_token_is_nobody():
    assert await who("made-up") is None


async def test_a_session_that_was_ended_is_nobodys(sign_in):
    token = (await sign_in(EMAIL)).token
    await end(token)
    await end(token)
    assert await who(token) is None


async def test_a_session_ends_after_a_week_without_use(sign_in):
    token = (await sign_in(EMAIL)).token
    await change(AuthSession, last_seen_at=real_now() - timedelta(days=7))
    assert await who(token) is None


async def test_being_active_keeps_a_session(sign_in):
    token = (await sign_in(EMAIL)).token
    long_ago = real_now() - timedelta(days=6)
    await change(AuthSession, last_seen_at=long_ago)
    await who(token)
    assert real_now() - await last_seen() < timedelta(minutes=1)


async def test_being_active_is_written_once_a_minute(sign_in):
    token = (await sign_in(EMAIL)).token
    just_now = real_now() - timedelta(seconds=30)
    await change(AuthSession, last_seen_at=just_now)
    await who(token)
    assert await last_seen() == just_now


async def test_looking_is_not_being_active(sign_in):
    token = (await sign_in(EMAIL)).token
    long_ago = real_now() - timedelta(days=6)
    await change(AuthSession, last_seen_at=long_ago)
    async with session_scope() as session:
        assert await queries.find_principal(session, token) is not None
    assert await last_seen() == long_ago


async def test_a_session_ends_after_thirty_days_however_active(sign_in):
    token = (await sign_in(EMAIL)).token
    async with session_scope() as session:
        opened = (await session.exec(select(AuthSession))).one()
    assert opened.created_at is not None
    assert opened.expires_at - opened.created_at == timedelta(days=30)
    await change(AuthSession, expires_at=real_now())
    assert await who(token) is None


async def test_a_deleted_customer_is_signed_out(sign_in):
    signed_in = await sign_in(EMAIL)
    await change(Customer, deleted_at=real_now())
    assert await who(signed_in.token) is None


async def test_a_role_counts_from_the_next_look(sign_in):
    signed_in = await sign_in(EMAIL)
    await change(CustomerAuth, role="support")
    principal = await who(signed_in.token)
    assert (principal.is_staff, principal.is_admin) == (True, False)


async def test_all_other_sessions_can_be_ended(sign_in):
    phone, laptop = await sign_in(EMAIL), await sign_in(EMAIL)
    stranger = await sign_in("eve@example.com")
    here = await who(laptop.token)
    async with session_scope() as session:
        ended = await accounts.revoke_all(
            session, laptop.customer_id, except_session_id=here.session_id
        )
    assert ended == 1
    assert await who(phone.token) is None
    assert await who(laptop.token) is not None
    assert await who(stranger.token) is not None


async def test_one_session_can_be_ended_by_its_customer_only(sign_in):
    phone, stranger = await sign_in(EMAIL), await sign_in("eve@example.com")
    of_phone = (await who(phone.token)).session_id
    with pytest.raises(NotFoundError):
        async with session_scope() as session:
            await accounts.revoke_session(session, stranger.customer_id, of_phone)
    assert await who(phone.token) is not None
    async with session_scope() as session:
        await accounts.revoke_session(session, phone.customer_id, of_phone)
    assert await who(phone.token) is None


async def test_a_customer_sees_where_they_are_signed_in(sign_in):
    first, _second = await sign_in(EMAIL), await sign_in(EMAIL)
    await sign_in("eve@example.com")
    await end(first.token)
    async with session_scope() as session:
        found = await queries.sessions_of_customer(session, first.customer_id)
    assert [one.user_agent for one in found] == ["a test"]


async def test_ending_a_session_is_announced(sign_in, redis):
    signed_in = await sign_in(EMAIL)
    async with redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(bells.CHANGES)
        await heard.get_message(timeout=1.0)
        await end(signed_in.token)
        message = await heard.get_message(timeout=5.0)
        while message is None:
            message = await heard.get_message(timeout=5.0)
    assert message["data"] == str(signed_in.customer_id)


async def test_a_mail_to_a_customer_needs_no_address(sign_in):
    signed_in = await sign_in(EMAIL)
    async with session_scope() as session:
        for _ in range(2):
            await accounts.queue_mail(
                session, kind="welcome", customer_id=signed_in.customer_id, dedupe_key="once"
            )
    async with session_scope() as session:
        found = await session.exec(select(OutboxMail.kind, OutboxMail.recipient))
    assert sorted(found.all()) == [("code", EMAIL), ("welcome", EMAIL)]


async def test_a_mail_to_nobody_is_refused(session):
    with pytest.raises(NotFoundError):
        await accounts.queue_mail(session, kind="welcome")


async def test_profiles_and_credentials_come_with_the_account(sign_in):
    signed_in = await sign_in(EMAIL)
    async with session_scope() as session:
        profile = await session.get(CustomerProfile, signed_in.customer_id)
        assert profile is not None
        assert profile.locale == "en"
        customers = await session.exec(select(Customer).where(col(Customer.email) == EMAIL))
        assert customers.one().id == signed_in.customer_id
