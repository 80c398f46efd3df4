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
    if lock:
        # What the tab before us wrote while we waited has to be seen.
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.exec(statement)).first()


async def find_secret(session: AsyncSession, chat_id: UUID) -> OnboardingSecret | None:
    return await session.get(OnboardingSecret, chat_id)


async def is_bot_taken(session: AsyncSession, fingerprint: str, *, by_other_than: UUID) -> bool:
    """Say whether another chat, that a customer may be about to pay for, holds this bot."""
    found = await session.exec(
        select(OnboardingSecret.session_id)
        .join(OnboardingSession, col(OnboardingSession.id) == OnboardingSecret.session_id)
        .where(
            OnboardingSecret.token_fingerprint == fingerprint,
            OnboardingSecret.session_id != by_other_than,
            col(OnboardingSession.customer_id).is_not(None),
            OnboardingSession.state != OnboardingState.ABANDONED,
        )
    )
    return found.first() is not None


async def any_chats_with_bot(session: AsyncSession, fingerprint: str) -> list[OnboardingSession]:
    """Return the chats that hold this bot, locked."""
    found = await session.exec(
        select(OnboardingSession)
        .join(OnboardingSecret, col(OnboardingSecret.session_id) == OnboardingSession.id)
        .where(OnboardingSecret.token_fingerprint == fingerprint)
        .with_for_update(of=OnboardingSession)
    )
    return list(found.all())


async def any_customers_chat_of_box(
    session: AsyncSession, box_id: UUID
) -> OnboardingSession | None:
    """Return the chat that a box was made from, locked."""
    found = await session.exec(
        select(OnboardingSession)
        .where(OnboardingSession.box_id == box_id)
        .with_for_update(key_share=True),
        execution_options={"populate_existing": True},
    )
    return found.first()


async def any_customers_funnel(session: AsyncSession) -> dict[OnboardingState, int]:
    """Return how many chats are in each state."""
    rows = await session.exec(
        select(OnboardingSession.state, sa.func.count()).group_by(col(OnboardingSession.state))
    )
    return {OnboardingState(state): count for state, count in rows}


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


async def any_customers_stale_secrets(
    session: AsyncSession, before: datetime, *, limit: int
) -> list[OnboardingSecret]:
    """Return the bots of chats that ended unpaid before a moment of business time."""
    found = await session.exec(
        select(OnboardingSecret)
        .join(OnboardingSession, col(OnboardingSession.id) == OnboardingSecret.session_id)
        .where(
            OnboardingSession.state == OnboardingState.ABANDONED,
            col(OnboardingSession.expires_at) <= before,
        )
        .with_for_update(skip_locked=True, of=OnboardingSecret)
        .limit(limit)
    )
    return list(found.all())
