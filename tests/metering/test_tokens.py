"""Proxy tokens: shown once, found at once, ended for good."""

import asyncio
from datetime import timedelta

import pytest
from sqlmodel import col, select

from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.logs import redact
from openclaw_web.core.security import _TOKEN_HASHES
from openclaw_web.metering import queries, tokens
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import ProxyToken, TokenKind
from tests.factories import make_box


async def issue(session, **fields):
    box = await make_box(session)
    return box, await metering.issue_token(
        session, customer_id=box.customer_id, box_id=box.id, **fields
    )


async def test_a_token_is_found_by_its_fingerprint_and_never_stored_in_clear(session):
    _, issued = await issue(session)
    row = await queries.any_customers_token(session, tokens.token_hmac(issued.clear))
    assert row is not None
    assert row.id == issued.token_id
    assert issued.clear.endswith(row.last4)
    assert issued.clear not in row.model_dump_json(exclude={"token_hmac"})
    assert tokens.looks_like_token(issued.clear)


async def test_the_documented_hash_is_bcrypt_of_the_secret(session):
    _, issued = await issue(session)
    row = await session.get(ProxyToken, issued.token_id)
    secret = issued.clear.split("_", 2)[2]
    assert row.token_hash.startswith("$2")
    assert _TOKEN_HASHES.verify(secret, row.token_hash)


async def test_the_log_never_shows_a_token(session):
    _, issued = await issue(session)
    assert issued.clear not in redact(f"a call with {issued.clear} failed")
    assert issued.clear not in repr(issued)


async def test_revoking_twice_keeps_the_first_time(session):
    _, issued = await issue(session)
    await metering.revoke_token(session, issued.token_id)
    row = await session.get(ProxyToken, issued.token_id)
    await session.refresh(row)
    first = row.revoked_at
    await metering.revoke_token(session, issued.token_id)
    await session.refresh(row)
    assert first is not None
    assert row.revoked_at == first


async def test_all_tokens_of_a_box_end_together(session):
    box, _ = await issue(session)
    await metering.issue_token(
        session, customer_id=box.customer_id, box_id=box.id, kind=TokenKind.API
    )
    other, kept = await issue(session)
    assert await metering.revoke_tokens_of_box(session, box.id) == 2
    live = await session.exec(select(ProxyToken).where(col(ProxyToken.revoked_at).is_(None)))
    assert [(token.id, token.box_id) for token in live] == [(kept.token_id, other.id)]


async def test_suspending_a_box_ends_its_own_tokens_and_no_keys(session):
    box, own = await issue(session)
    key = await metering.issue_token(
        session, customer_id=box.customer_id, box_id=box.id, kind=TokenKind.API
    )
    assert await metering.revoke_tokens_of_box(session, box.id, kind=TokenKind.BOX) == 1
    live = await session.exec(select(ProxyToken.id).where(col(ProxyToken.revoked_at).is_(None)))
    assert list(live) == [key.token_id]
    assert own.token_id != key.token_id


async def test_a_rotated_token_overlaps_with_its_replacement(session):
    _, issued = await issue(session, kind=TokenKind.API, is_unthrottled=True)
    replacement = await metering.rotate_token(session, issued.token_id)
    old = await session.get_one(ProxyToken, issued.token_id)
    new = await session.get_one(ProxyToken, replacement.token_id)
    assert tokens.LONGEST_OVERLAP - timedelta(minutes=5) < old.expires_at - real_now()
    assert old.expires_at - real_now() <= tokens.LONGEST_OVERLAP
    assert (new.kind, new.is_unthrottled, new.box_id) == (old.kind, True, old.box_id)
    assert (new.expires_at, old.revoked_at) == (None, None)


async def test_rotating_again_gives_the_old_token_no_more_time(session):
    _, issued = await issue(session)
    await metering.rotate_token(session, issued.token_id, overlap=timedelta(minutes=1))
    old = await session.get_one(ProxyToken, issued.token_id)
    ends = old.expires_at
    await metering.rotate_token(session, issued.token_id, overlap=timedelta(minutes=15))
    assert old.expires_at == ends


@pytest.mark.parametrize("minutes", [-1, 16, 60])
async def test_two_tokens_overlap_by_fifteen_minutes_at_most(session, minutes):
    _, issued = await issue(session)
    with pytest.raises(ValidationError):
        await metering.rotate_token(session, issued.token_id, overlap=timedelta(minutes=minutes))


async def test_what_has_ended_is_not_rotated(session):
    _, revoked = await issue(session)
    await metering.revoke_token(session, revoked.token_id)
    _, expired = await issue(session, expires_at=real_now() - timedelta(seconds=1))
    for ended in (revoked, expired):
        with pytest.raises(NotFoundError):
            await metering.rotate_token(session, ended.token_id)


async def test_an_expired_key_is_not_listed(session):
    box, _ = await issue(session, kind=TokenKind.BOX)
    for expires_at in (None, real_now() + timedelta(hours=1), real_now() - timedelta(hours=1)):
        await metering.issue_token(
            session,
            customer_id=box.customer_id,
            box_id=box.id,
            kind=TokenKind.API,
            expires_at=expires_at,
        )
    keys = await queries.api_keys_of_customer(session, box.customer_id)
    assert len(keys) == 2


async def test_two_tabs_make_no_eleventh_key(database):
    assert database
    async with session_scope() as session:
        box = await make_box(session)

    async def create(number):
        async with session_scope() as session:
            await metering.create_api_key(
                session, customer_id=box.customer_id, box_id=box.id, label=f"Key {number}"
            )

    made = await asyncio.gather(*map(create, range(12)), return_exceptions=True)
    refused = [one for one in made if one is not None]
    assert len(refused) == 2
    assert all(isinstance(one, ValidationError) for one in refused)
