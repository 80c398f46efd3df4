"""What the worker does for chats: end those that nobody went on with, and forget their bots."""

from datetime import timedelta

from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.onboarding import queries
from openclaw_web.onboarding.models import OnboardingState

BATCH = 200
BOT_KEPT = timedelta(days=30)  # as long as the visitor's cookie: then nobody can come back


async def abandon_expired_chats() -> int:
    """Mark chats past their end as abandoned and return how many; safe to run twice."""
    async with session_scope() as session:
        now = await business_now(session)
        chats = await queries.any_customers_expired(session, now, limit=BATCH)
        for chat in chats:
            chat.state_before = chat.state.value
            chat.state = OnboardingState.ABANDONED
            session.add(chat)
        for secret in await queries.any_customers_stale_secrets(
            session, now - BOT_KEPT, limit=BATCH
        ):
            await session.delete(secret)
    return len(chats)
