"""Every look at customers and their sessions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import (
    STAFF_ROLES,
    AuditLog,
    AuthSession,
    Customer,
    CustomerAuth,
    OutboxMail,
    Role,
)
from openclaw_web.core.clock import real_now
from openclaw_web.core.security import token_hash

IDLE = timedelta(days=7)  # a session that nobody uses ends


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who is asking, proved by a session that lives."""

    customer_id: UUID
    email: str
    role: str
    session_id: UUID
    last_seen_at: datetime

    @property
    def is_staff(self) -> bool:
        """Say whether this person may see the admin pages."""
        return self.role in STAFF_ROLES

    @property
    def is_admin(self) -> bool:
        """Say whether this person may also change things there."""
        return self.role == Role.ADMIN


async def find_customer(session: AsyncSession, customer_id: UUID) -> Customer | None:
    """Return a customer who has not been deleted."""
    found = await session.exec(
        select(Customer).where(Customer.id == customer_id, col(Customer.deleted_at).is_(None))
    )
    return found.first()


async def find_customer_by_email(session: AsyncSession, email: str) -> Customer | None:
    """Return the customer with this address, however its letters are cased."""
    found = await session.exec(
        select(Customer).where(
            sa.func.lower(Customer.email) == email.strip().lower(),
            col(Customer.deleted_at).is_(None),
        )
    )
    return found.first()


async def find_auth(session: AsyncSession, customer_id: UUID) -> CustomerAuth | None:
    return await session.get(CustomerAuth, customer_id)


async def find_principal(session: AsyncSession, token: str) -> Principal | None:
    """Return who a session token belongs to, without counting this as being active."""
    now = real_now()
    found = await session.exec(
        select(Customer.id, Customer.email, CustomerAuth.role, AuthSession)
        .join(AuthSession, col(AuthSession.customer_id) == Customer.id)
        .join(CustomerAuth, col(CustomerAuth.customer_id) == Customer.id)
        .where(
            AuthSession.token_hash == token_hash(token),
            col(AuthSession.revoked_at).is_(None),
            col(AuthSession.expires_at) > now,
            col(AuthSession.last_seen_at) > now - IDLE,
            col(Customer.deleted_at).is_(None),
        )
    )
    row = found.first()
    if row is None:
        return None
    customer_id, email, role, opened = row
    return Principal(
        customer_id=customer_id,
        email=email,
        role=role,
        session_id=opened.id,
        last_seen_at=opened.last_seen_at or now,
    )


async def session_is_live(session: AsyncSession, session_id: UUID) -> bool:
    """Say whether a session is neither ended nor expired, and its customer not deleted."""
    now = real_now()
    found = await session.exec(
        select(AuthSession.id)
        .join(Customer, col(Customer.id) == AuthSession.customer_id)
        .where(
            AuthSession.id == session_id,
            col(AuthSession.revoked_at).is_(None),
            col(AuthSession.expires_at) > now,
            col(AuthSession.last_seen_at) > now - IDLE,
            col(Customer.deleted_at).is_(None),
        )
    )
    return found.first() is not None


async def sessions_of_customer(session: AsyncSession, customer_id: UUID) -> Sequence[AuthSession]:
    """Return where the customer is signed in, the last active first."""
    now = real_now()
    found = await session.exec(
        select(AuthSession)
        .where(
            AuthSession.customer_id == customer_id,
            col(AuthSession.revoked_at).is_(None),
            col(AuthSession.expires_at) > now,
            col(AuthSession.last_seen_at) > now - IDLE,
        )
        .order_by(col(AuthSession.last_seen_at).desc())
    )
    return found.all()


async def known_mail_keys(session: AsyncSession, keys: Sequence[str]) -> set[str]:
    """Return those of these dedupe keys whose mail was written already."""
    if not keys:
        return set()
    found = await session.exec(
        select(OutboxMail.dedupe_key).where(col(OutboxMail.dedupe_key).in_(keys))
    )
    return {key for key in found.all() if key}


async def newest_act(
    session: AsyncSession, customer_id: UUID, actions: Collection[str], *, resource_id: str
) -> AuditLog | None:
    """Return the last of these acts on one thing of a customer's, by the audit log."""
    found = await session.exec(
        select(AuditLog)
        .where(
            AuditLog.user_id == customer_id,
            AuditLog.resource_id == resource_id,
            col(AuditLog.action).in_(actions),
        )
        .order_by(col(AuditLog.seq).desc())
        .limit(1)
    )
    return found.first()


async def count_acts(
    session: AsyncSession, customer_id: UUID, action: str, *, since: datetime
) -> int:
    """Count how often a customer did something, by the audit log; `since` is the real clock's."""
    found = await session.exec(
        select(sa.func.count()).where(
            AuditLog.user_id == customer_id,
            AuditLog.action == action,
            col(AuditLog.created_at) > since,
        )
    )
    return found.one()
