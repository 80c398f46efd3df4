"""What others ask of metering: periods, proxy tokens, and counting what was used."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.metering import ledger, periods, tokens
from openclaw_web.metering.models import ProxyToken, TokenKind, UsageMonthly
from openclaw_web.metering.tokens import IssuedToken


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


async def issue_token(
    session: AsyncSession,
    *,
    customer_id: UUID,
    box_id: UUID,
    kind: TokenKind = TokenKind.BOX,
    is_unthrottled: bool = False,
    expires_at: datetime | None = None,
) -> IssuedToken:
    """Make a token; its clear text is returned once and never stored. `expires_at` is real time."""
    return await tokens.issue(
        session,
        customer_id=customer_id,
        box_id=box_id,
        kind=kind,
        is_unthrottled=is_unthrottled,
        expires_at=expires_at,
    )


async def revoke_token(session: AsyncSession, token_id: UUID) -> None:
    """End a token; every proxy refuses it at most a second after the commit."""
    await tokens.revoke(session, col(ProxyToken.id) == token_id)


async def revoke_tokens_of_box(session: AsyncSession, box_id: UUID) -> int:
    """End all tokens of a box, of either kind, and return how many were live."""
    return await tokens.revoke(session, col(ProxyToken.box_id) == box_id)


async def settle(session: AsyncSession, events: Sequence[ledger.Event]) -> ledger.Settled:
    """Write events into the ledger and both roll-ups; one that is known already changes nothing."""
    return await ledger.write(session, events)
