"""Signing in with a mailed code."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts import limits
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import (
    AuditLog,
    Customer,
    CustomerAuth,
    CustomerProfile,
    OutboxMail,
    SignInCode,
)
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope

pytestmark = pytest.mark.usefixtures("database", "redis")

EMAIL = "ada@example.com"
IP = "198.51.100.7"


async def request(email=EMAIL, ip=IP):
    async with session_scope() as session:
        await accounts.request_code(session, email, ip=ip)


async def confirm(code, email=EMAIL, ip=IP):
    async with session_scope() as session:
        return await accounts.confirm_code(session, email, code, ip=ip, user_agent="a test")


async def rows(table):
    async with session_scope() as session:
        return (await session.exec(select(table))).all()


async def change(table, **values):
    async with session_scope() as session:
        await session.exec(sa.update(table).values(**values))


def another(code):
    return f"{(int(code) + 1) % 10**8:08d}"


async def test_the_first_code_makes_the_account(mailed_code):
    await request()
    signed_in = await confirm(await mailed_code(EMAIL))

    assert isinstance(signed_in, accounts.SignedIn)
    (customer,), (auth,), (profile,) = (
        await rows(Customer),
        await rows(CustomerAuth),
        await rows(CustomerProfile),
    )
    assert (customer.id, customer.email) == (signed_in.customer_id, EMAIL)
    assert auth.email_verified_at is not None
    assert (auth.role, profile.locale) == ("customer", "en")


async def test_asking_for_a_code_makes_no_account():
    await request()
    assert await rows(Customer) == []


async def test_the_second_sign_in_finds_the_same_account(sign_in):
    first, second = await sign_in(EMAIL), await sign_in(EMAIL)
    assert first.customer_id == second.customer_id
    assert first.token != second.token


async def test_the_case_of_the_letters_does_not_matter(mailed_code):
    await request("Ada@Example.COM")
    assert isinstance(await confirm(await mailed_code(EMAIL)), accounts.SignedIn)


async def test_a_code_may_be_typed_with_spaces(mailed_code):
    await request()
    code = await mailed_code(EMAIL)
    assert isinstance(await confirm(f" {code[:4]} {code[4:]} "), accounts.SignedIn)


async def test_neither_the_code_nor_the_token_is_in_the_database_in_clear(mailed_code, session):
    await request()
    code = await mailed_code(EMAIL)
    signed_in = await confirm(code)
    for table in ("sign_in_codes", "email_outbox", "auth_sessions", "audit_logs"):
        found = await session.exec(sa.text(f"SELECT {table}::text FROM {table}"))  # noqa: S608 - our own names
        text = "\n".join(found.scalars())
        assert text
        assert code not in text
        assert signed_in.token not in text


async def test_the_audit_log_names_nobody_by_address(mailed_code, session):
    await request()
    await confirm("00000000")
    await confirm(await mailed_code(EMAIL))
    found = await session.exec(sa.text("SELECT audit_logs::text FROM audit_logs"))
    assert EMAIL not in "\n".join(found.scalars())


async def test_a_code_works_once(mailed_code):
    await request()
    code = await mailed_code(EMAIL)
    await confirm(code)
    assert await confirm(code) == accounts.Refused("expired_code")


async def test_a_newer_code_voids_the_older(mailed_code):
    await request()
    older = await mailed_code(EMAIL)
    await request()
    assert await confirm(older) == accounts.Refused("wrong_code")
    assert isinstance(await confirm(await mailed_code(EMAIL)), accounts.SignedIn)


async def test_a_code_ends_after_ten_minutes(mailed_code):
    await request()
    await change(SignInCode, expires_at=real_now())
    assert await confirm(await mailed_code(EMAIL)) == accounts.Refused("expired_code")


async def test_a_code_lives_for_ten_minutes():
    before = real_now()
    await request()
    (row,) = await rows(SignInCode)
    assert timedelta(minutes=10) <= row.expires_at - before < timedelta(minutes=10, seconds=30)


async def test_five_wrong_tries_end_a_code(mailed_code):
    await request()
    code = await mailed_code(EMAIL)
    for _ in range(5):
        assert await confirm(another(code)) == accounts.Refused("wrong_code")
    assert await confirm(code) == accounts.Refused("expired_code")


async def test_somebody_elses_code_does_not_work(mailed_code):
    await request()
    await request("eve@example.com")
    code = await mailed_code("eve@example.com")
    if code != await mailed_code(EMAIL):
        assert await confirm(code) == accounts.Refused("wrong_code")


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "a b@example.com", "ada@example.com\nBcc: x@y.z"]
)
async def test_what_is_no_address_is_refused(email):
    with pytest.raises(accounts.SignInError) as error:
        await request(email)
    assert error.value.code == "bad_email"


async def test_a_sixth_code_for_an_address_has_to_wait():
    for number in range(limits.CODES_PER_ADDRESS):
        await request(ip=f"198.51.100.{number}")
    with pytest.raises(accounts.SignInError) as error:
        await request(ip="198.51.100.99")
    assert error.value.code == "too_many"


async def test_an_address_may_ask_again_after_fifteen_minutes():
    for number in range(limits.CODES_PER_ADDRESS):
        await request(ip=f"198.51.100.{number}")
    await change(SignInCode, created_at=real_now() - limits.WINDOW)
    await request()


async def test_a_twenty_first_code_from_one_network_address_has_to_wait():
    for number in range(limits.CODES_PER_IP):
        await request(f"somebody{number}@example.com")
    with pytest.raises(accounts.SignInError) as error:
        await request("one.more@example.com")
    assert error.value.code == "too_many"
    await request("one.more@example.com", ip="198.51.100.8")


async def test_one_household_counts_as_one_ipv6_address():
    for number in range(limits.CODES_PER_IP):
        await request(f"somebody{number}@example.com", ip=f"2001:db8:1:1::{number:x}")
    with pytest.raises(accounts.SignInError):
        await request("one.more@example.com", ip="2001:db8:1:1:ffff::1")
    await request("one.more@example.com", ip="2001:db8:1:2::1")


async def test_guessing_from_one_network_address_is_stopped(mailed_code):
    for number in range(limits.FAILURES_PER_IP):
        email = f"somebody{number // 4}@example.com"
        if number % 4 == 0:
            await request(email, ip="203.0.113.1")
        await confirm(another(await mailed_code(email)), email)
    await request()
    code = await mailed_code(EMAIL)
    assert await confirm(code) == accounts.Refused("too_many")
    assert isinstance(await confirm(code, ip="203.0.113.9"), accounts.SignedIn)


async def test_a_known_and_an_unknown_address_are_answered_alike(sign_in):
    await sign_in(EMAIL)
    await request(EMAIL)
    await request("nobody@example.com")
    mails = [row for row in await rows(OutboxMail) if row.status == "pending"]
    assert {(mail.kind, mail.customer_id) for mail in mails} == {("code", None)}
    assert await confirm("00000000", EMAIL) == await confirm("00000000", "nobody@example.com")


async def test_confirming_drops_a_password_that_somebody_else_set_before(mailed_code):
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, EMAIL)
        auth = await session.get_one(CustomerAuth, customer.id)
        auth.password_hash = "planted"  # noqa: S105 - no password
    await request()
    await confirm(await mailed_code(EMAIL))
    (auth,) = await rows(CustomerAuth)
    assert auth.password_hash is None


async def test_sign_ins_are_written_down(sign_in):
    signed_in = await sign_in(EMAIL)
    (row,) = [one for one in await rows(AuditLog) if one.user_id == signed_in.customer_id]
    assert (row.action, row.reason, str(row.ip_address)) == ("sign_in", "code", IP)


async def test_an_account_that_is_being_deleted_is_not_revived(sign_in):
    await sign_in(EMAIL)
    await change(Customer, deleted_at=real_now())
    assert await sign_in(EMAIL) == accounts.Refused("bad_email")


async def test_limits_hold_without_redis(redis):
    await redis.aclose()
    for number in range(limits.CODES_PER_ADDRESS):
        await request(ip=f"198.51.100.{number}")
    with pytest.raises(accounts.SignInError):
        await request()
    async with session_scope() as session:
        sent = await session.exec(
            select(sa.func.count()).where(col(AuditLog.action) == limits.CODE_SENT)
        )
        assert sent.one() == limits.CODES_PER_ADDRESS
