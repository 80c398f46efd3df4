"""Events that the ledger refused: shown to a person, tried again, or set aside with a reason."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.metering import ledger
from openclaw_web.metering.ledger import NO_PERIOD, Event
from openclaw_web.metering.models import Resolution, UsageMonthly, UsageReject
from openclaw_web.metering.queries import UNKNOWN

logger = logging.getLogger(__name__)

LONGEST_REASON = 500


@dataclass(frozen=True)
class RejectView:
    """One refused event. What cannot be read out of its payload is empty or zero."""

    id: UUID
    request_id: str
    customer_id: str
    model: str
    tokens: int
    happened_at: str
    reason: str
    created_at: datetime
    attempt: int
    tried_at: datetime | None


async def any_customers_open_rejects(session: AsyncSession, *, limit: int) -> list[RejectView]:
    """Return what waits for a person, the oldest first."""
    rows = await session.exec(
        select(UsageReject)
        .where(col(UsageReject.resolved_at).is_(None))
        .order_by(col(UsageReject.created_at), col(UsageReject.id))
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    return [_view(row) for row in rows]


async def any_customers_open_count(session: AsyncSession) -> int:
    found = await session.scalar(
        sa.select(sa.func.count())
        .select_from(UsageReject)
        .where(col(UsageReject.resolved_at).is_(None))
    )
    return found or 0


async def retry(
    session: AsyncSession, reject_id: UUID, *, actor_type: str, actor_id: str
) -> Resolution | None:
    """Write a refused event once more; `None` when the ledger refuses it again.

    An event that is in the ledger meanwhile changes nothing there, and counts as written.

    Raises:
        NotFoundError: there is no such refused event.
        ValidationError: it is settled already, or its payload is no event.
    """
    row = await _locked(session, reject_id)
    row.attempt += 1
    row.tried_at = await business_now(session)
    session.add(row)
    settled = await ledger.write(session, [_event(row)])
    if settled.rejected:
        row.error = settled.reasons.get(row.request_id or "", row.error)
        await session.flush()
        return None
    await _resolve(session, row, Resolution.WRITTEN, actor_id=actor_id, actor_type=actor_type)
    return Resolution.WRITTEN


async def set_aside(
    session: AsyncSession, reject_id: UUID, *, reason: str, actor_type: str, actor_id: str
) -> None:
    """Give a refused event up: it is kept, and never counted.

    Raises:
        NotFoundError: there is no such refused event.
        ValidationError: it is settled already, or nobody said why.
    """
    said = " ".join(reason.replace("\x00", "").split())[:LONGEST_REASON]
    if not said:
        raise ValidationError("Say why it is set aside.")
    row = await _locked(session, reject_id)
    await _resolve(
        session, row, Resolution.SET_ASIDE, actor_id=actor_id, actor_type=actor_type, note=said
    )


async def any_customers_with_period_now(session: AsyncSession, *, limit: int) -> list[UUID]:
    """Return the refused events whose period has been opened since, the oldest first."""
    field = col(UsageReject.payload).op("->>")
    statement = (
        sa.select(col(UsageReject.id))
        .join(
            UsageMonthly,
            sa.and_(
                col(UsageMonthly.customer_id) == sa.cast(field("customer_id"), sa.Uuid()),
                col(UsageMonthly.period_start)
                == sa.cast(field("period_start"), sa.TIMESTAMP(timezone=True)),
            ),
        )
        .where(col(UsageReject.resolved_at).is_(None), col(UsageReject.error) == NO_PERIOD)
        .order_by(col(UsageReject.created_at))
        .limit(limit)
    )
    return list((await (await session.connection()).execute(statement)).scalars())


async def _locked(session: AsyncSession, reject_id: UUID) -> UsageReject:
    row = await session.get(UsageReject, reject_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFoundError("There is no such refused event.")
    if row.resolved_at is not None:
        raise ValidationError("This event is settled already.")
    return row


async def _resolve(
    session: AsyncSession,
    row: UsageReject,
    resolution: Resolution,
    *,
    actor_type: str,
    actor_id: str,
    note: str | None = None,
) -> None:
    row.resolved_at = await business_now(session)
    row.resolution = resolution
    row.resolved_by = actor_id
    row.note = note
    session.add(row)
    await session.flush()
    await accounts.audit(
        session,
        action=f"usage.reject_{resolution}",
        actor_type=actor_type,
        actor_id=actor_id,
        resource_type="usage_reject",
        resource_id=str(row.id),
        reason=note,
        diff={"request_id": row.request_id, "customer_id": row.payload.get("customer_id")},
    )


def _event(row: UsageReject) -> Event:
    try:
        return msgspec.convert(row.payload, Event, strict=False)
    except msgspec.ValidationError as error:
        raise ValidationError(f"The event cannot be read: {error}") from error


def _view(row: UsageReject) -> RejectView:
    payload: dict[str, Any] = row.payload
    counts: Sequence[Any] = (payload.get("prompt_tokens"), payload.get("completion_tokens"))
    return RejectView(
        id=row.id,
        request_id=row.request_id or "",
        customer_id=str(payload.get("customer_id", "")),
        model=str(payload.get("model", "")),
        tokens=sum(count for count in counts if isinstance(count, int)),
        happened_at=str(payload.get("timestamp", "")),
        reason=row.error,
        created_at=row.created_at or UNKNOWN,
        attempt=row.attempt,
        tried_at=row.tried_at,
    )
