"""One chat's row: begin it, find it locked and at which step, write into it."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy.dialects.postgresql import insert
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import Tier
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import ValidationError
from openclaw_web.core.security import token_hash
from openclaw_web.integrations import redis
from openclaw_web.onboarding import conversation, queries
from openclaw_web.onboarding.conversation import Known, Step
from openclaw_web.onboarding.models import OnboardingSession, OnboardingState

LIFETIME = timedelta(hours=24)
MAX_MESSAGES = 200
MAX_MESSAGE_CHARACTERS = 2_000
FROM_US = "us"
FROM_VISITOR = "them"


class StepError(ValidationError):
    """This was not what the chat asks for now; a stale page or a second tab sent it."""


async def begin(session: AsyncSession, visitor_token: str, tier: str) -> OnboardingSession:
    """Greet a new visitor; of two tabs that open at once, the second gets the first's chat."""
    now = await business_now(session)
    await session.exec(
        insert(OnboardingSession)
        .values(
            id=uuid4(),
            session_token=token_hash(visitor_token),
            state=OnboardingState.GREETING,
            messages=[_message([], FROM_US, conversation.HELLO)],
            derived_config={"tier_wish": tier} if tier in set(Tier) else {},
            created_at=now,
            updated_at=now,
            expires_at=now + LIFETIME,
        )
        .on_conflict_do_nothing(index_elements=["session_token"])
    )
    chat = await queries.find_chat(session, visitor_token, lock=True)
    if chat is None:
        raise StepError("This chat is gone. Please reload the page.")
    return chat


async def revive(session: AsyncSession, chat: OnboardingSession) -> None:
    """Go on with an abandoned chat where it was left."""
    if chat.state is OnboardingState.ABANDONED:
        chat.state = OnboardingState(chat.state_before or OnboardingState.GREETING)
        chat.state_before = None
        chat.expires_at = await business_now(session) + LIFETIME
        session.add(chat)
        await session.flush()


async def locked(session: AsyncSession, visitor_token: str) -> tuple[OnboardingSession, Step]:
    """Return the visitor's chat, which nobody else changes until the commit, and its step.

    Raises:
        StepError: there is no such chat.
    """
    chat = await queries.find_chat(session, visitor_token, lock=True)
    if chat is None:
        raise StepError("This chat is gone. Please reload the page.")
    await revive(session, chat)
    return chat, await step_of(session, chat)


async def step_of(session: AsyncSession, chat: OnboardingSession) -> Step:
    """Return what to ask for now."""
    return conversation.step_of(chat.state, await known_of(session, chat))


async def known_of(session: AsyncSession, chat: OnboardingSession) -> Known:
    """Return what the chat knows beyond its state."""
    box = await find_box(session, chat)
    return Known(
        config=chat.derived_config or {},
        has_bot=await queries.find_secret(session, chat.id) is not None,
        has_person=chat.telegram_user_id is not None,
        has_customer=chat.customer_id is not None,
        has_answered=box is not None and box.first_answer_at is not None,
    )


async def find_box(session: AsyncSession, chat: OnboardingSession) -> Box | None:
    """Return the box that this chat was paid for; an older one of the customer is not meant."""
    if chat.customer_id is None or chat.box_id is None:
        return None
    return await boxes.find_box(session, chat.customer_id, chat.box_id)


def apply(
    chat: OnboardingSession, state: OnboardingState, config: dict[str, Any], *replies: str
) -> None:
    """Move a chat, add to what it knows, and answer."""
    chat.state = state
    chat.derived_config = {**(chat.derived_config or {}), **config}
    for text in replies:
        say(chat, FROM_US, text)


def say(chat: OnboardingSession, sender: str, text: str, *, client_id: str = "") -> None:
    message = _message(chat.messages, sender, text)
    if client_id:
        message["client_id"] = client_id
    chat.messages = [*chat.messages, message][-MAX_MESSAGES:]


def _message(before: list[dict[str, Any]], sender: str, text: str) -> dict[str, Any]:
    return {
        "id": (before[-1]["id"] + 1) if before else 1,
        "from": sender,
        "text": text[:MAX_MESSAGE_CHARACTERS],
        "at": real_now().isoformat(),
    }


async def touch(session: AsyncSession, chat: OnboardingSession) -> None:
    """Slide the chat's end and tell its pages to look again."""
    now: datetime = await business_now(session)
    if chat.state not in {OnboardingState.AWAITING_PAYMENT, OnboardingState.PROVISIONING}:
        chat.expires_at = now + LIFETIME
    chat.updated_at = now
    session.add(chat)
    await session.flush()
    if chat.customer_id is not None:
        announce: Callable[[], Awaitable[None]] = partial(redis.announce_change, chat.customer_id)
        after_commit(session, announce)
