"""Looking at tokens, boxes, subscriptions and periods of many customers at once.

Every active token is looked at twice a second, so the database compares: each row comes with a mark
of all that it says, and of what we know already only what has another mark comes again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import Hold, Subscription, SubscriptionStatus, Tier
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.metering.models import ProxyToken, TokenKind, UsageMonthly


@dataclass(frozen=True)
class TokenView:
    """A token that is not revoked, and its box. It expires by real time."""

    token_id: UUID
    token_hmac: bytes
    customer_id: UUID
    box_id: UUID
    kind: TokenKind
    is_unthrottled: bool
    expires_at: datetime | None
    box_status: BoxStatus
    has_api_access: bool
    limit_behaviour: str
    language: str
    user_paused_at: datetime | None
    mark: str


@dataclass(frozen=True)
class SubscriptionView:
    """What of a live subscription decides whether, and how much, a customer may use."""

    tier: Tier
    pending_tier: Tier | None
    status: SubscriptionStatus
    tokens_limit: int
    current_period_start: datetime
    current_period_end: datetime
    cancel_at_period_end: bool
    trial_end: datetime | None
    grace_until: datetime | None


@dataclass(frozen=True)
class PeriodView:
    """The period that runs now; tokens."""

    period_start: datetime
    period_end: datetime
    used: int
    limit: int


@dataclass(frozen=True)
class CustomerView:
    customer_id: UUID
    has_hold: bool
    subscription: SubscriptionView | None
    period: PeriodView | None
    mark: str


_TOKEN = (
    col(ProxyToken.id),
    col(ProxyToken.token_hmac),
    col(ProxyToken.customer_id),
    col(ProxyToken.box_id),
    col(ProxyToken.kind),
    col(ProxyToken.is_unthrottled),
    col(ProxyToken.expires_at),
    col(Box.status),
    col(Box.api_access),
    col(Box.limit_behaviour),
    col(Box.language),
    col(Box.user_paused_at),
)
_TOKENS = sa.join(ProxyToken, Box, col(Box.id) == col(ProxyToken.box_id))
_SUBSCRIPTION = (
    col(Subscription.tier),
    col(Subscription.pending_tier),
    col(Subscription.status),
    col(Subscription.tokens_limit),
    col(Subscription.current_period_start),
    col(Subscription.current_period_end),
    col(Subscription.cancel_at_period_end),
    col(Subscription.trial_end),
    col(Subscription.grace_until),
)
_PERIOD = (
    col(UsageMonthly.period_start),
    col(UsageMonthly.period_end),
    col(UsageMonthly.tokens_used),
    col(UsageMonthly.tokens_limit),
)


async def any_customers_tokens_by_hmac(
    session: AsyncSession, hmacs: Sequence[bytes]
) -> list[TokenView]:
    """Return the live tokens with these fingerprints."""
    rows = await (await session.connection()).execute(
        sa.select(*_TOKEN, _mark(*_TOKEN))
        .select_from(_TOKENS)
        .where(
            col(ProxyToken.token_hmac) == sa.any_(_array(hmacs, sa.LargeBinary())),
            col(ProxyToken.revoked_at).is_(None),
        )
    )
    return [_token(row) for row in rows]


async def any_customers_changed_tokens(
    session: AsyncSession, known: Mapping[UUID, str]
) -> dict[UUID, TokenView | None]:
    """Return those of these tokens whose mark is another one now; `None` is not live any more."""
    wanted, mark = _wanted(known), _mark(*_TOKEN)
    is_it = sa.and_(col(ProxyToken.id) == wanted.c.id, col(ProxyToken.revoked_at).is_(None))
    rows = await (await session.connection()).execute(
        sa.select(wanted.c.id, *_TOKEN, mark)
        .select_from(wanted)
        .outerjoin(_TOKENS, is_it)
        .where(mark != wanted.c.mark)
    )
    return {row[0]: _token(row[1:]) if row[1] is not None else None for row in rows}


async def any_customers_changed_standing(
    session: AsyncSession, known: Mapping[UUID, str], now: datetime
) -> list[CustomerView]:
    """Return each customer's live subscription, and the period that holds `now`, if changed."""
    wanted = _wanted(known)
    live = sa.and_(
        col(Subscription.customer_id) == wanted.c.id,
        col(Subscription.status) != SubscriptionStatus.CANCELLED,
    )
    running = sa.and_(
        col(UsageMonthly.customer_id) == wanted.c.id,
        col(UsageMonthly.period_start) <= now,
        col(UsageMonthly.period_end) > now,
    )
    has_hold = sa.exists().where(
        col(Hold.customer_id) == wanted.c.id, col(Hold.released_at).is_(None)
    )
    said = (has_hold, *_SUBSCRIPTION, *_PERIOD)
    rows = await (await session.connection()).execute(
        sa.select(wanted.c.id, *said, _mark(*said))
        .select_from(wanted)
        .outerjoin(Subscription, live)
        .outerjoin(UsageMonthly, running)
        .where(_mark(*said) != wanted.c.mark)
    )
    return [_customer(row) for row in rows]


def _token(row: Sequence[Any]) -> TokenView:
    token_id, hmac, customer_id, box_id, kind, *rest = row
    return TokenView(token_id, bytes(hmac), customer_id, box_id, TokenKind(kind), *rest)


def _customer(row: Sequence[Any]) -> CustomerView:
    customer_id, has_hold, *rest, mark = row
    found, running = rest[: len(_SUBSCRIPTION)], rest[len(_SUBSCRIPTION) :]
    return CustomerView(
        customer_id,
        has_hold,
        SubscriptionView(*found) if found[0] is not None else None,
        PeriodView(*running) if running[0] is not None else None,
        mark,
    )


def _wanted(known: Mapping[UUID, str]) -> Any:
    """Make a table of ids and the marks that we know.

    One JSON text: writing arrays, the driver looks at each value with a regular expression.
    """
    rows = [{"id": one, "mark": mark} for one, mark in known.items()]
    text = sa.literal(msgspec.json.encode(rows).decode(), sa.Text())
    return (
        sa.func.json_to_recordset(sa.cast(text, postgresql.JSON()))
        .table_valued(sa.column("id", sa.Uuid()), sa.column("mark", sa.Text()))
        .render_derived(with_types=True)
    )


def _mark(*columns: Any) -> sa.ColumnElement[str]:
    """Return a short text that is another one as soon as any of these columns is."""
    return sa.func.md5(sa.cast(sa.func.row(*columns), sa.Text()))


def _array(values: Sequence[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Bind many values as one array, so that the statement is the same for any number of them."""
    return sa.cast(list(values), postgresql.ARRAY(kind))
