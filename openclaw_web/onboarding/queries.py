"""Every look at onboarding chats."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.security import token_hash
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState


async def find_chat(
    session: AsyncSession, visitor_token: str, *, lock: bool = False
) -> OnboardingSession | None:
    """Return the chat behind a visitor's cookie; `lock` keeps a second tab waiting."""
    statement = select(OnboardingSession).where(
        OnboardingSession.session_token == token_hash(visitor_token)
    )
    return (await session.exec(statement.with_for_update() if lock else statement)).first()


async def find_secret(session: AsyncSession, chat_id: UUID) -> OnboardingSecret | None:
    return await session.get(OnboardingSecret, chat_id)


async def is_bot_taken(session: AsyncSession, fingerprint: str, *, by_other_than: UUID) -> bool:
    """Say whether another chat that can still become a box holds this bot."""
    found = await session.exec(
        select(OnboardingSecret.session_id)
        .join(OnboardingSession, col(OnboardingSession.id) == OnboardingSecret.session_id)
        .where(
            OnboardingSecret.token_fingerprint == fingerprint,
            OnboardingSecret.session_id != by_other_than,
            col(OnboardingSession.customer_id).is_not(None),
        )
    )
    return found.first() is not None


async def drop_unclaimed_bot(session: AsyncSession, fingerprint: str) -> None:
    """Take a bot away from a chat that never had a customer.

    Its owner began anew in another browser.
    """
    unclaimed = sa.select(col(OnboardingSession.id)).where(
        col(OnboardingSession.customer_id).is_(None)
    )
    await session.execute(
        sa.delete(OnboardingSecret).where(
            col(OnboardingSecret.token_fingerprint) == fingerprint,
            col(OnboardingSecret.session_id).in_(unclaimed),
        )
    )


async def any_customers_funnel(session: AsyncSession) -> dict[OnboardingState, int]:
    """Return how many chats are in each state."""
    rows = await session.exec(
        select(OnboardingSession.state, sa.func.count()).group_by(col(OnboardingSession.state))
    )
    return dict(rows.all())


async def any_customers_expired(
    session: AsyncSession, now: datetime, *, limit: int
) -> list[OnboardingSession]:
    """Return chats that nobody went on with; `now` is business time."""
    ended = (
        OnboardingState.PROVISIONING,
        OnboardingState.COMPLETE,
        OnboardingState.FAILED,
        OnboardingState.ABANDONED,
    )
    found = await session.exec(
        select(OnboardingSession)
        .where(col(OnboardingSession.expires_at) <= now, col(OnboardingSession.state).not_in(ended))
        .with_for_update(skip_locked=True)
        .limit(limit)
    )
    return list(found.all())
