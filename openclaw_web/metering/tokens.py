"""Proxy tokens: what one looks like, how it is made, found and ended."""

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.secrets import KEY_ID, fingerprint
from openclaw_web.core.security import bcrypt_hash
from openclaw_web.integrations import redis
from openclaw_web.metering.models import ProxyToken, TokenKind

PREFIX = "ocp"
PURPOSE = "proxy-token"  # what the key is for
SECRET_BYTES = 32  # 43 characters; bcrypt reads 72 at most
LAST_CHARACTERS = 4
LONGEST_OVERLAP = timedelta(minutes=15)  # two live tokens are two ways in
LONGEST_LABEL = 60  # characters

_SHAPE = re.compile(r"ocp_[a-z2-7]{26}_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class IssuedToken:
    """A new token. The clear text exists only here and where the caller puts it."""

    token_id: UUID
    clear: str = field(repr=False)


def looks_like_token(clear: str) -> bool:
    return _SHAPE.fullmatch(clear) is not None


def token_hmac(clear: str) -> bytes:
    """Return what a token is found by: one index look-up, nothing slow to attack."""
    return fingerprint(PURPOSE, clear)


def spell(token_id: UUID, secret: str) -> str:
    name = base64.b32encode(token_id.bytes).decode().rstrip("=").lower()
    return f"{PREFIX}_{name}_{secret}"


async def issue(
    session: AsyncSession,
    *,
    customer_id: UUID,
    box_id: UUID,
    kind: TokenKind,
    is_unthrottled: bool,
    expires_at: datetime | None,
    label: str | None = None,
) -> IssuedToken:
    token_id, secret = uuid4(), secrets.token_urlsafe(SECRET_BYTES)
    clear = spell(token_id, secret)
    session.add(
        ProxyToken(
            id=token_id,
            customer_id=customer_id,
            box_id=box_id,
            token_hash=bcrypt_hash(secret),
            token_hmac=token_hmac(clear),
            key_id=KEY_ID,
            last4=clear[-LAST_CHARACTERS:],
            label=label,
            kind=kind,
            is_unthrottled=is_unthrottled,
            expires_at=expires_at,
            created_at=await business_now(session),
        )
    )
    await session.flush()
    return IssuedToken(token_id, clear)


async def revoke(session: AsyncSession, condition: sa.ColumnElement[bool]) -> int:
    """Revoke the live tokens that meet a condition; the second call finds none."""
    result = await session.exec(
        sa.update(ProxyToken)
        .where(condition, col(ProxyToken.revoked_at).is_(None))
        .values(revoked_at=await business_now(session))
        .returning(col(ProxyToken.customer_id))
    )
    ended = list(result.scalars())
    if ended:
        after_commit(session, partial(redis.announce_access, *set(ended)))
    return len(ended)


async def limit(
    session: AsyncSession, condition: sa.ColumnElement[bool], *, overlap: timedelta
) -> None:
    """Let the live tokens that meet a condition end after the overlap; none gets more time."""
    end = real_now() + overlap
    result = await session.exec(
        sa.update(ProxyToken)
        .where(condition, col(ProxyToken.revoked_at).is_(None))
        .values(expires_at=sa.func.least(col(ProxyToken.expires_at), end))
        .returning(col(ProxyToken.customer_id))
    )
    if limited := set(result.scalars()):
        after_commit(session, partial(redis.announce_access, *limited))


async def rotate(session: AsyncSession, token_id: UUID, *, overlap: timedelta) -> IssuedToken:
    """Issue a token like another one, which ends after the overlap; both are live meanwhile.

    The second call finds the first one expiring, and never gives it more time than it had left.
    """
    if not timedelta() <= overlap <= LONGEST_OVERLAP:
        raise ValidationError("Two tokens may overlap by fifteen minutes at most.")
    old = await session.get(
        ProxyToken, token_id, with_for_update={"key_share": True}, populate_existing=True
    )
    now = real_now()
    if old is None or old.revoked_at is not None or (old.expires_at and old.expires_at <= now):
        raise NotFoundError("This token has ended already.")
    replacement = await issue(
        session,
        customer_id=old.customer_id,
        box_id=old.box_id,
        kind=TokenKind(old.kind),
        is_unthrottled=old.is_unthrottled,
        expires_at=None,
        label=old.label,
    )
    old.expires_at = min(old.expires_at or now + overlap, now + overlap)
    session.add(old)
    await session.flush()
    after_commit(session, partial(redis.announce_access, old.customer_id))
    return replacement


async def note_uses(session: AsyncSession, uses: Mapping[UUID, datetime]) -> None:
    """Write down when tokens were used last; an older time changes nothing.

    A row that somebody else changes just now is left for the next time: this never waits.
    """
    ids, times = list(uses), list(uses.values())
    used = (
        sa.func.unnest(
            sa.cast(ids, postgresql.ARRAY(sa.Uuid())),
            sa.cast(times, postgresql.ARRAY(sa.TIMESTAMP(timezone=True))),
        )
        .table_valued("id", "at")
        .render_derived()
    )
    known = col(ProxyToken.last_used_at)
    due = (
        select(col(ProxyToken.id).label("id"), used.c.at.label("at"))
        .join(used, used.c.id == col(ProxyToken.id))
        .where(sa.or_(known.is_(None), known < used.c.at))
        .with_for_update(of=ProxyToken, skip_locked=True, key_share=True)
        .cte("due")
    )
    await session.exec(
        sa.update(ProxyToken).where(col(ProxyToken.id) == due.c.id).values(last_used_at=due.c.at)
    )


def checked_label(label: str) -> str:
    """Return a name that a customer gave to a key, as it is kept.

    Raises:
        ValidationError: it is empty, too long, or no text.
    """
    label = " ".join(label.split())
    if not label:
        raise ValidationError("Give the key a name, so that you know it again.")
    if _SHAPE.search(label):
        raise ValidationError("This is a key, not a name. Revoke it if others may have seen it.")
    if len(label) > LONGEST_LABEL:
        raise ValidationError(f"A name may have {LONGEST_LABEL} characters.")
    if not label.isprintable():
        raise ValidationError("This name has characters that cannot be shown.")
    return label
