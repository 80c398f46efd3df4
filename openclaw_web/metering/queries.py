"""What was used: the current period, by day and model, request by request."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import REAL_NOW, business_now
from openclaw_web.core.errors import NotFoundError
from openclaw_web.metering.models import (
    ProxyToken,
    TokenKind,
    UsageDaily,
    UsageEvent,
    UsageEventMeta,
    UsageMonthly,
)

ONE_DAY = timedelta(days=1)
UNKNOWN = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class CurrentUsage:
    """The period that runs now. Tokens are prompt plus completion; `percent` has one decimal."""

    used: int
    limit: int
    period_start: datetime
    period_end: datetime
    percent: float
    is_provisional: bool = False

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)


@dataclass(frozen=True)
class DayUsage:
    day: date
    model: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class EventView:
    """One request as its customer sees it; times in milliseconds."""

    id: int
    timestamp: datetime
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    total_tokens: int
    request_id: str | None
    status_code: int | None
    latency_ms: int | None
    ttfb_ms: int | None
    streamed: bool
    estimated: bool
    outcome: str


@dataclass(frozen=True)
class ApiKeyView:
    """A live key of a customer's own programs. It ends at `expires_at` once it was replaced."""

    id: UUID
    label: str
    last4: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


async def find_period(
    session: AsyncSession, customer_id: UUID, now: datetime
) -> UsageMonthly | None:
    """Return the period that holds `now` (business time)."""
    rows = await session.exec(
        select(UsageMonthly)
        .where(
            col(UsageMonthly.customer_id) == customer_id,
            col(UsageMonthly.period_start) <= now,
            col(UsageMonthly.period_end) > now,
        )
        .order_by(col(UsageMonthly.period_start).desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return rows.one_or_none()


async def is_only_period(
    session: AsyncSession,
    customer_id: UUID,
    *,
    period_start: datetime,
    period_end: datetime,
    tokens_limit: int,
    is_provisional: bool,
) -> bool:
    """Say whether exactly this period is open already, and no other runs into it."""
    rows = await session.exec(
        select(
            UsageMonthly.period_start,
            UsageMonthly.period_end,
            UsageMonthly.tokens_limit,
            UsageMonthly.is_provisional,
        ).where(
            col(UsageMonthly.customer_id) == customer_id,
            col(UsageMonthly.period_end) > period_start,
            col(UsageMonthly.period_start) < period_end,
        )
    )
    return rows.all() == [(period_start, period_end, tokens_limit, is_provisional)]


async def tokens_used(session: AsyncSession, customer_id: UUID, period_start: datetime) -> int:
    """Return the total of a period, 0 when there is none."""
    rows = await session.exec(
        select(UsageMonthly.tokens_used).where(
            col(UsageMonthly.customer_id) == customer_id,
            col(UsageMonthly.period_start) == period_start,
        )
    )
    return rows.one_or_none() or 0


async def current_usage(session: AsyncSession, customer_id: UUID) -> CurrentUsage | None:
    """Return the documented dashboard numbers at business time, or `None` between periods."""
    period = await find_period(session, customer_id, await business_now(session))
    if period is None:
        return None
    return CurrentUsage(
        used=period.tokens_used,
        limit=period.tokens_limit,
        period_start=period.period_start,
        period_end=period.period_end,
        percent=_percent(period.tokens_used, period.tokens_limit),
        is_provisional=period.is_provisional,
    )


async def daily_usage(session: AsyncSession, customer_id: UUID, *, days: int) -> list[DayUsage]:
    """Return the last `days` days of business time (UTC, today included) by model, oldest first."""
    today = (await business_now(session)).date()
    day, model = col(UsageDaily.day), col(UsageDaily.model)
    connection = await session.connection()
    rows = await connection.execute(
        sa.select(
            day,
            model,
            sa.func.sum(col(UsageDaily.requests)),
            sa.func.sum(col(UsageDaily.prompt_tokens)),
            sa.func.sum(col(UsageDaily.cached_tokens)),
            sa.func.sum(col(UsageDaily.completion_tokens)),
        )
        .where(col(UsageDaily.customer_id) == customer_id, day > today - timedelta(days=days))
        .group_by(day, model)
        .order_by(day, model)
    )
    return [DayUsage(row[0], row[1], *map(int, row[2:])) for row in rows]


async def recent_events(
    session: AsyncSession, customer_id: UUID, *, limit: int, before_id: int | None = None
) -> list[EventView]:
    """Return the newest requests first; `before_id` is the last id of the page before.

    Ordered by time, because (customer_id, timestamp) is indexed: by id alone, PostgreSQL would read
    everybody's events until it has found enough of this customer's.
    """
    moment, number = col(UsageEvent.timestamp), col(UsageEvent.id)
    statement = _events(customer_id).order_by(moment.desc(), number.desc()).limit(limit)
    if before_id is not None:
        last = (
            select(UsageEvent.timestamp, UsageEvent.id)
            .where(number == before_id, col(UsageEvent.customer_id) == customer_id)
            .subquery()
        )
        statement = statement.join(last, sa.tuple_(moment, number) < sa.tuple_(*last.c))
    return [_event_view(event, meta) for event, meta in await session.exec(statement)]


async def events_between(
    session: AsyncSession,
    customer_id: UUID,
    start: datetime,
    end: datetime,
    *,
    limit: int,
    after: EventView | None = None,
    of_period: bool = False,
) -> list[EventView]:
    """Return the requests of a span, the oldest first; `after` is the last one of the page before.

    Each page is found by its place in the index, so the last of many costs what the first does.
    `of_period`: those that count in the period of this start, also if they came late.
    """
    moment, number = col(UsageEvent.timestamp), col(UsageEvent.id)
    first = start
    if of_period:
        start, end = start - ONE_DAY, end + ONE_DAY
    statement = (
        _events(customer_id)
        .where(moment >= start, moment < end)
        .order_by(moment, number)
        .limit(limit)
    )
    if of_period:
        statement = statement.where(col(UsageEventMeta.period_start) == first)
    if after is not None:
        statement = statement.where(sa.tuple_(moment, number) > (after.timestamp, after.id))
    return [_event_view(event, meta) for event, meta in await session.exec(statement)]


async def newest_period(
    session: AsyncSession, customer_id: UUID, now: datetime
) -> UsageMonthly | None:
    """Return the period that runs now, or the last one that did."""
    rows = await session.exec(
        select(UsageMonthly)
        .where(col(UsageMonthly.customer_id) == customer_id, col(UsageMonthly.period_start) <= now)
        .order_by(col(UsageMonthly.period_start).desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return rows.one_or_none()


async def usage_sums(
    session: AsyncSession, customer_id: UUID, period: UsageMonthly | CurrentUsage
) -> tuple[int, int, int]:
    """Return one period's tokens by the ledger, by the monthly row and by the daily rows.

    All three are equal. Days are whole, so what another period used on the first and last day is
    taken off the daily sum.
    """
    start, first = period.period_start, period.period_start.date()
    last = period.period_end.date()
    in_period = col(UsageEventMeta.period_start) == start
    ledger = (
        sa.select(sa.func.sum(col(UsageEvent.total_tokens)))
        .select_from(UsageEvent)
        .join(UsageEventMeta, col(UsageEventMeta.event_id) == col(UsageEvent.id))
        .where(
            col(UsageEvent.customer_id) == customer_id,
            col(UsageEvent.timestamp) >= _midnight(first),
            col(UsageEvent.timestamp) < _midnight(last + ONE_DAY),
        )
    )
    monthly = sa.select(col(UsageMonthly.tokens_used)).where(
        col(UsageMonthly.customer_id) == customer_id, col(UsageMonthly.period_start) == start
    )
    daily = sa.select(
        sa.func.sum(col(UsageDaily.prompt_tokens) + col(UsageDaily.completion_tokens))
    ).where(col(UsageDaily.customer_id) == customer_id, col(UsageDaily.day).between(first, last))
    parts = (ledger.where(in_period), ledger.where(~in_period), monthly, daily)
    # One statement sees one moment, so the sums agree while proxies write.
    sums = sa.select(*(part.scalar_subquery() for part in parts))
    row = (await (await session.connection()).execute(sums)).one()
    mine, others, by_month, by_day = (int(value or 0) for value in row)
    return mine, by_month, by_day - others


async def any_customers_token(session: AsyncSession, token_hmac: bytes) -> ProxyToken | None:
    """Return the token with this fingerprint, revoked or not: the proxy asks who is calling."""
    rows = await session.exec(
        select(ProxyToken)
        .where(col(ProxyToken.token_hmac) == token_hmac)
        .execution_options(populate_existing=True)
    )
    return rows.one_or_none()


async def api_keys_of_customer(session: AsyncSession, customer_id: UUID) -> list[ApiKeyView]:
    """Return the customer's live keys, the newest first; a box's own tokens are not among them."""
    rows = await session.exec(
        select(ProxyToken)
        .where(
            col(ProxyToken.customer_id) == customer_id,
            col(ProxyToken.kind) == TokenKind.API,
            col(ProxyToken.revoked_at).is_(None),
            sa.or_(col(ProxyToken.expires_at).is_(None), col(ProxyToken.expires_at) > REAL_NOW),
        )
        .order_by(col(ProxyToken.created_at).desc(), col(ProxyToken.id))
        .execution_options(populate_existing=True)
    )
    return [_api_key(row) for row in rows]


async def get_api_key(session: AsyncSession, customer_id: UUID, token_id: UUID) -> ApiKeyView:
    """Return one of the customer's live keys.

    Raises:
        NotFoundError: the customer has no such live key.
    """
    keys = await api_keys_of_customer(session, customer_id)
    found = next((key for key in keys if key.id == token_id), None)
    if found is None:
        raise NotFoundError("There is no such key any more.")
    return found


def _events(customer_id: UUID) -> Any:
    return (
        select(UsageEvent, UsageEventMeta)
        .join(UsageEventMeta, col(UsageEventMeta.event_id) == col(UsageEvent.id), isouter=True)
        .where(col(UsageEvent.customer_id) == customer_id)
    )


def _api_key(row: ProxyToken) -> ApiKeyView:
    return ApiKeyView(
        id=row.id,
        label=row.label or "",
        last4=row.last4 or "",
        created_at=row.created_at or UNKNOWN,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
    )


def _event_view(event: UsageEvent, meta: UsageEventMeta | None) -> EventView:
    """Join both rows; an event that another program wrote has no details."""
    details = meta or UsageEventMeta(event_id=event.id or 0, period_start=UNKNOWN)
    return EventView(
        id=event.id or 0,
        timestamp=event.timestamp or UNKNOWN,
        model=event.model,
        prompt_tokens=event.prompt_tokens,
        cached_tokens=details.cached_tokens,
        completion_tokens=event.completion_tokens,
        reasoning_tokens=details.reasoning_tokens,
        total_tokens=event.prompt_tokens + event.completion_tokens,
        request_id=event.request_id,
        status_code=details.status_code,
        latency_ms=details.latency_ms,
        ttfb_ms=details.ttfb_ms,
        streamed=details.streamed,
        estimated=details.estimated,
        outcome=details.outcome,
    )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _percent(used: int, limit: int) -> float:
    return float(round(Decimal(used) / Decimal(limit) * 100, 1))
