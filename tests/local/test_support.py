"""What an operator does by hand, against a database in which people are signed in."""

from dataclasses import replace

import pytest

from openclaw_web.accounts import service as accounts
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.settings import settings
from openclaw_web.local import support
from openclaw_web.metering import queries, tokens
from openclaw_web.metering.models import TokenKind
from tests.factories import make_box, make_customer, make_subscription


@pytest.fixture
def chosen(database, valkey_server):
    return replace(settings(), database_url=database, redis_url=valkey_server.url)


async def sign_in(password):
    async with session_scope() as session:
        return await accounts.sign_in_with_password(
            session, "boss@box.test", password, ip=None, user_agent=None
        )


async def in_a_shell_of_its_own(chosen):
    await close_database()
    password = await support.create_admin(chosen, "boss@box.test")
    open_database(chosen.database_url)
    return password


async def test_an_admin_who_is_signed_in_gets_a_new_password_and_is_signed_out(chosen):
    first = await in_a_shell_of_its_own(chosen)
    signed_in = await sign_in(first)
    second = await in_a_shell_of_its_own(chosen)
    async with session_scope() as session:
        assert await accounts.find_principal(session, signed_in.token) is None
    assert await sign_in(first) == accounts.Refused("wrong_password")
    assert (await sign_in(second)).token


@pytest.mark.parametrize("kind", list(TokenKind))
async def test_an_operators_token_is_of_the_kind_that_was_asked_for(chosen, kind):
    async with session_scope() as session:
        owner = await make_customer(session, email="ada@box.test")
        await make_box(session, subscription=await make_subscription(session, customer=owner))
    await close_database()
    clear = await support.issue_token(chosen, "ada@box.test", kind=kind, is_unthrottled=True)
    open_database(chosen.database_url)
    async with session_scope() as session:
        row = await queries.any_customers_token(session, tokens.token_hmac(clear))
        keys = await queries.api_keys_of_customer(session, owner.id)
    assert row is not None
    assert (row.kind, row.is_unthrottled) == (kind, True)
    assert [key.label for key in keys] == ["Made by our support"] * (kind is TokenKind.API)
