"""Proxy tokens: shown once, found at once, ended for good."""

from sqlmodel import col, select

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
