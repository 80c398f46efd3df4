"""What an operator does by hand, against a database in which people are signed in."""

from dataclasses import replace

import pytest

from openclaw_web.accounts import service as accounts
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.settings import settings
from openclaw_web.local import support


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
