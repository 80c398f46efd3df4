"""What others ask of metering: periods, proxy tokens, and counting what was used."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.metering import ledger, periods, queries, tokens
from openclaw_web.metering.models import ProxyToken, TokenKind, UsageMonthly
from openclaw_web.metering.tokens import IssuedToken

MOST_API_KEYS = 10

_CUSTOMER_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


async def open_period(
    session: AsyncSession,
    *,
    customer_id: UUID,
    period_start: datetime,
    period_end: datetime,
    tokens_limit: int,
    is_provisional: bool = False,
) -> UsageMonthly:
    """Start counting for a period; an earlier one that runs into it is closed.

    Safe to call twice: the second call finds the row of the first, and what was used stays. Only a
    provisional row is completed by a call that is not: it gets that call's limit and end.
    The limit is in tokens (prompt plus completion), copied so that a later price change
    leaves it alone.

    Raises:
        PeriodError: the period ends before it starts.
    """
    return await periods.open_period(
        session,
        customer_id=customer_id,
        period_start=period_start,
        period_end=period_end,
        tokens_limit=tokens_limit,
        is_provisional=is_provisional,
    )


async def correct_period(
    session: AsyncSession, period: UsageMonthly, *, period_end: datetime, tokens_limit: int
) -> None:
    """Give a period that was just opened the end and the limit of now; what was used stays."""
    await periods.correct_period(session, period, period_end=period_end, tokens_limit=tokens_limit)


async def issue_token(
    session: AsyncSession,
    *,
    customer_id: UUID,
    box_id: UUID,
    kind: TokenKind = TokenKind.BOX,
    is_unthrottled: bool = False,
    expires_at: datetime | None = None,
    label: str | None = None,
) -> IssuedToken:
    """Make a token; its clear text is returned once and never stored. `expires_at` is real time."""
    return await tokens.issue(
        session,
        customer_id=customer_id,
        box_id=box_id,
        kind=kind,
        is_unthrottled=is_unthrottled,
        expires_at=expires_at,
        label=label,
    )


async def revoke_token(session: AsyncSession, token_id: UUID) -> None:
    """End a token; every proxy refuses it within a second of the commit, and cuts its streams."""
    await tokens.revoke(session, col(ProxyToken.id) == token_id)


async def revoke_tokens_of_box(
    session: AsyncSession, box_id: UUID, *, kind: TokenKind | None = None
) -> int:
    """End all tokens of a box, or those of one kind, and return how many were live."""
    condition = col(ProxyToken.box_id) == box_id
    if kind is not None:
        condition &= col(ProxyToken.kind) == kind
    return await tokens.revoke(session, condition)


async def limit_tokens_of_box(session: AsyncSession, box_id: UUID, *, kind: TokenKind) -> None:
    """Give the live tokens of a box fifteen minutes at most (real time): others replace them."""
    condition = (col(ProxyToken.box_id) == box_id) & (col(ProxyToken.kind) == kind)
    await tokens.limit(session, condition, overlap=tokens.LONGEST_OVERLAP)


async def rotate_token(
    session: AsyncSession, token_id: UUID, *, overlap: timedelta = tokens.LONGEST_OVERLAP
) -> IssuedToken:
    """Replace a token by another of its kind; the old one goes on for the overlap (real time).

    Raises:
        NotFoundError: it has ended already.
        ValidationError: the overlap is longer than fifteen minutes.
    """
    return await tokens.rotate(session, token_id, overlap=overlap)


async def create_api_key(
    session: AsyncSession, *, customer_id: UUID, box_id: UUID, label: str
) -> IssuedToken:
    """Make a key for a customer's own programs; its clear text is returned once.

    Raises:
        ValidationError: the name will not do, or there are ten keys already.
    """
    label = tokens.checked_label(label)
    await _take_turn(session, customer_id)
    if len(await queries.api_keys_of_customer(session, customer_id)) >= MOST_API_KEYS:
        raise ValidationError(f"{MOST_API_KEYS} keys at once are enough; revoke one first.")
    return await tokens.issue(
        session,
        customer_id=customer_id,
        box_id=box_id,
        kind=TokenKind.API,
        is_unthrottled=False,
        expires_at=None,
        label=label,
    )


async def replace_api_key(session: AsyncSession, customer_id: UUID, token_id: UUID) -> IssuedToken:
    """Make another key of the same name; the old one goes on for fifteen minutes.

    Raises:
        NotFoundError: the customer has no such live key, or it was replaced already.
    """
    await _take_turn(session, customer_id)
    key = await queries.get_api_key(session, customer_id, token_id)
    if key.expires_at is not None:
        raise NotFoundError("This key was replaced already.")
    return await tokens.rotate(session, token_id, overlap=tokens.LONGEST_OVERLAP)


async def revoke_api_key(session: AsyncSession, customer_id: UUID, token_id: UUID) -> str:
    """End a customer's key and return its name.

    Raises:
        NotFoundError: the customer has no such live key.
    """
    key = await queries.get_api_key(session, customer_id, token_id)
    await revoke_token(session, token_id)
    return key.label


async def note_uses(session: AsyncSession, uses: Mapping[UUID, datetime]) -> None:
    """Write down when tokens were used last (business time)."""
    await tokens.note_uses(session, uses)


async def settle(session: AsyncSession, events: Sequence[ledger.Event]) -> ledger.Settled:
    """Write events into the ledger and both roll-ups; one that is known already changes nothing."""
    return await ledger.write(session, events)


async def _take_turn(session: AsyncSession, customer_id: UUID) -> None:
    """Change a customer's keys one at a time: two tabs shall not make eleven of ten."""
    connection = await session.connection()
    await connection.execute(_CUSTOMER_LOCK, {"name": f"keys:{customer_id}"})
