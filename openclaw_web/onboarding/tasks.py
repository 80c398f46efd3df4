"""What the worker does for chats: end those that nobody went on with."""

from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.onboarding import queries
from openclaw_web.onboarding.models import OnboardingState

BATCH = 200


async def abandon_expired_chats() -> int:
    """Mark chats past their end as abandoned and return how many; safe to run twice."""
    async with session_scope() as session:
        now = await business_now(session)
        chats = await queries.any_customers_expired(session, now, limit=BATCH)
        for chat in chats:
            chat.state_before = chat.state.value
            chat.state = OnboardingState.ABANDONED
            session.add(chat)
    return len(chats)
