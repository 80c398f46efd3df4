"""Passwords: for admins whom somebody made on the command line."""

import asyncio

import pytest
from sqlmodel import select

from openclaw_web.accounts import limits
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import CustomerAuth
from openclaw_web.core import security
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError

pytestmark = pytest.mark.usefixtures("database", "redis")

EMAIL = "root@example.com"
PASSWORD = "correct horse battery staple"  # noqa: S105 - a test's
IP = "198.51.100.7"


@pytest.fixture(autouse=True)
async def admin(database):
    assert database
    async with session_scope() as session:
        return await accounts.create_admin(session, EMAIL, PASSWORD)


async def enter(password=PASSWORD, email=EMAIL, ip=IP):
    async with session_scope() as session:
        return await accounts.sign_in_with_password(
            session, email, password, ip=ip, user_agent="a test"
        )


async def test_an_admin_signs_in_with_a_password(admin):
    signed_in = await enter()
    assert (signed_in.customer_id, signed_in.role) == (admin.id, "admin")


async def test_passwords_are_kept_as_argon2(admin):
    async with session_scope() as session:
        auth = await session.get_one(CustomerAuth, admin.id)
    assert str(auth.password_hash).startswith("$argon2id$")


async def test_a_wrong_password_is_refused():
    assert await enter("wrong") == accounts.Refused("wrong_password")


async def test_an_unknown_address_is_refused_alike(monkeypatch):
    checked = []

    async def password_matches(password, known_hash):
        checked.append(known_hash)
        return await security.password_matches(password, known_hash)

    monkeypatch.setattr(accounts, "password_matches", password_matches)
    assert await enter(email="nobody@example.com") == accounts.Refused("wrong_password")
    assert checked == [None]


async def test_an_account_without_password_cannot_use_one(sign_in):
    await sign_in("ada@example.com")
    assert await enter("", "ada@example.com") == accounts.Refused("wrong_password")


async def test_five_failures_lock_out_that_network_address_only():
    for _ in range(limits.FAILURES_PER_ACCOUNT_AND_IP):
        await enter("wrong")
    assert await enter() == accounts.Refused("too_many")
    assert isinstance(await enter(ip="198.51.100.8"), accounts.SignedIn)


async def test_an_unknown_account_locks_like_a_known_one():
    for _ in range(limits.FAILURES_PER_ACCOUNT_AND_IP):
        await enter("wrong", "nobody@example.com")
    assert await enter("wrong", "nobody@example.com") == accounts.Refused("too_many")


async def test_guesses_at_the_same_time_are_counted_one_by_one():
    answers = await asyncio.gather(*(enter("wrong") for _ in range(9)))
    refused = [answer.code for answer in answers]
    assert refused.count("wrong_password") == limits.FAILURES_PER_ACCOUNT_AND_IP


async def test_a_guess_from_everywhere_is_stopped(monkeypatch):
    monkeypatch.setattr(limits, "FAILURES_PER_ACCOUNT", 3)
    for number in range(3):
        await enter("wrong", ip=f"198.51.100.{number}")
    assert await enter(ip="198.51.100.99") == accounts.Refused("too_many")


async def test_failures_are_counted_until_a_success():
    async def failures():
        async with session_scope() as session:
            return (await session.exec(select(CustomerAuth.failed_logins))).one()

    await enter("wrong")
    assert await failures() == 1
    await enter()
    assert await failures() == 0


@pytest.mark.parametrize("password", ["short", "x" * 257])
async def test_a_password_of_no_use_is_refused(password):
    with pytest.raises(ValidationError):
        async with session_scope() as session:
            await accounts.create_admin(session, EMAIL, password)


async def test_a_new_password_ends_the_old_sessions():
    token = (await enter()).token
    async with session_scope() as session:
        await accounts.create_admin(session, EMAIL, "another correct horse")
    async with session_scope() as session:
        assert await accounts.find_principal(session, token) is None
    assert await enter() == accounts.Refused("wrong_password")
