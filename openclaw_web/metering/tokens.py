"""Proxy tokens: what one looks like, how it is made, found and ended."""

import base64
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now
from openclaw_web.core.secrets import KEY_ID, fingerprint
from openclaw_web.core.security import bcrypt_hash
from openclaw_web.metering.models import ProxyToken, TokenKind

PREFIX = "ocp"
PURPOSE = "proxy-token"  # what the key is for
SECRET_BYTES = 32  # 43 characters; bcrypt reads 72 at most
LAST_CHARACTERS = 4

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
        .returning(col(ProxyToken.id))
    )
    return len(result.all())
