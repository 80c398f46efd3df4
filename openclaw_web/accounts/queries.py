"""Every look at customers, sessions, the audit log and the mail outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import (
    AuditLog,
    AuthSession,
    Customer,
    CustomerAuth,
    CustomerProfile,
    MailStatus,
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
        return self.role in {Role.ADMIN, Role.SUPPORT}

    @property
    def is_admin(self) -> bool:
        """Say whether this person may also change things there."""
        return self.role == Role.ADMIN


@dataclass(frozen=True, kw_only=True)
class CustomerRow:
    """A customer as the admin's list shows them."""

    customer_id: UUID
    email: str
    role: str
    created_at: datetime | None
    last_seen_at: datetime | None


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


async def find_profile(session: AsyncSession, customer_id: UUID) -> CustomerProfile | None:
    return await session.get(CustomerProfile, customer_id)


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


async def audit_of_customer(
    session: AsyncSession, customer_id: UUID, *, limit: int = 50
) -> Sequence[AuditLog]:
    """Return what happened to a customer, the newest first."""
    found = await session.exec(
        select(AuditLog)
        .where(AuditLog.user_id == customer_id)
        .order_by(col(AuditLog.seq).desc())
        .limit(limit)
    )
    return found.all()


async def any_customers_audit(
    session: AsyncSession, *, action: str | None = None, limit: int = 100, before: int | None = None
) -> Sequence[AuditLog]:
    """Return the newest audit rows; `before` is the `seq` of the last row of the page above."""
    wanted = select(AuditLog).order_by(col(AuditLog.seq).desc()).limit(limit)
    if action is not None:
        wanted = wanted.where(AuditLog.action == action)
    if before is not None:
        wanted = wanted.where(col(AuditLog.seq) < before)
    return (await session.exec(wanted)).all()


async def any_customers(
    session: AsyncSession,
    *,
    search: str = "",
    limit: int = 50,
    before: tuple[datetime, UUID] | None = None,
) -> list[CustomerRow]:
    """Return customers, the newest first; `search` is a part of the address or a whole id.

    `before` is the (created_at, customer_id) of the last row of the page above.
    """
    seen = (
        select(sa.func.max(AuthSession.last_seen_at))
        .where(AuthSession.customer_id == Customer.id)
        .scalar_subquery()
    )
    order = sa.tuple_(col(Customer.created_at), col(Customer.id))
    wanted = (
        select(Customer, CustomerAuth.role, seen)
        .join(CustomerAuth, col(CustomerAuth.customer_id) == Customer.id, isouter=True)
        .where(col(Customer.deleted_at).is_(None))
        .order_by(col(Customer.created_at).desc(), col(Customer.id).desc())
        .limit(limit)
    )
    if search:
        is_like = col(Customer.email).icontains(search, autoescape=True)
        wanted = wanted.where(is_like | (sa.cast(Customer.id, sa.Text) == search.lower()))
    if before is not None:
        wanted = wanted.where(order < sa.tuple_(*before))
    return [
        CustomerRow(
            customer_id=customer.id,
            email=customer.email,
            role=role or Role.CUSTOMER,
            created_at=customer.created_at,
            last_seen_at=last_seen_at,
        )
        for customer, role, last_seen_at in await session.exec(wanted)
    ]


async def any_customers_mail_counts(session: AsyncSession) -> dict[str, int]:
    """Return how many mails wait, were sent and failed."""
    found = await session.exec(
        select(OutboxMail.status, sa.func.count()).group_by(col(OutboxMail.status))
    )
    counts: dict[str, int] = dict(found.all())
    return {status: counts.get(status, 0) for status in MailStatus}
