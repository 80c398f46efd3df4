"""Holds: reasons to suspend a customer that no payment lifts.

Any open one suspends, keeps the proxy closed and freezes the deletion of the box. Whoever places or
releases one asks for a sync afterwards (`service.request_sync`), which draws the conclusions.
"""

from functools import partial
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.billing.models import Hold, HoldKind
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit
from openclaw_web.integrations import redis


async def place(
    session: AsyncSession, *, customer_id: UUID, kind: HoldKind, reason: str, by: str
) -> Hold:
    """Suspend a customer; the second call returns the hold of the first."""
    made = await session.scalar(
        insert(Hold)
        .values(
            id=uuid4(),
            customer_id=customer_id,
            kind=HoldKind(kind).value,
            reason=reason,
            created_by=by,
            created_at=await business_now(session),
        )
        .on_conflict_do_nothing(
            index_elements=["customer_id", "kind"],
            index_where=sa.text("released_at IS NULL"),
        )
        .returning(Hold)
    )
    if made is None:
        found = await session.exec(_open(customer_id, kind))
        return found.one()
    await _audit(session, f"hold.placed.{made.kind}", customer_id, made.id, by=by, reason=reason)
    after_commit(session, partial(redis.announce_access, customer_id))
    return made


async def release(
    session: AsyncSession, *, customer_id: UUID, kind: HoldKind, by: str, reason: str = ""
) -> bool:
    """End a hold; `False`: there is none of this kind."""
    hold_id = await session.scalar(
        sa.update(Hold)
        .where(
            col(Hold.customer_id) == customer_id,
            col(Hold.kind) == HoldKind(kind).value,
            col(Hold.released_at).is_(None),
        )
        .values(released_at=await business_now(session))
        .returning(col(Hold.id))
        .execution_options(synchronize_session="fetch")
    )
    if hold_id is None:
        return False
    await _audit(session, f"hold.released.{kind}", customer_id, hold_id, by=by, reason=reason)
    after_commit(session, partial(redis.announce_access, customer_id))
    return True


def _open(customer_id: UUID, kind: HoldKind):  # noqa: ANN202 - SQLModel's own type of a select
    return select(Hold).where(
        Hold.customer_id == customer_id,
        Hold.kind == HoldKind(kind).value,
        col(Hold.released_at).is_(None),
    )


async def _audit(
    session: AsyncSession, action: str, customer_id: UUID, hold_id: UUID, *, by: str, reason: str
) -> None:
    await accounts.audit(
        session,
        action=action,
        actor_type="admin" if by.startswith("admin:") else "system",
        actor_id=by,
        user_id=customer_id,
        resource_type="hold",
        resource_id=str(hold_id),
        reason=reason or None,
    )
