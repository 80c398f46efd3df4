"""Moving a chat forward.

Every act locks the chat's row, checks the step, and writes what was said.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts import service as accounts
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import Checkout, Tier
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes import service as box_service
from openclaw_web.core import secrets
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import ValidationError
from openclaw_web.core.security import new_token, token_hash
from openclaw_web.core.settings import settings
from openclaw_web.integrations import redis, telegram
from openclaw_web.jobs.models import JobType
from openclaw_web.onboarding import conversation, queries
from openclaw_web.onboarding.conversation import Known, Step
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState

LIFETIME = timedelta(hours=24)
MAX_MESSAGES = 200
MAX_MESSAGE_CHARACTERS = 2_000
MESSAGES_A_MINUTE = 20
MAX_RETRIES = 3
BOT_TOKEN = re.compile(r"\d{6,12}:[A-Za-z0-9_-]{30,50}")
BOT_TOKEN_PURPOSE = "telegram-bot-token"  # noqa: S105 - what the key is for
FROM_US = "us"
FROM_VISITOR = "them"


class StepError(ValidationError):
    """This was not what the chat asks for now; a stale page or a second tab sent it."""


async def open_chat(
    session: AsyncSession, visitor_token: str, *, tier: str = ""
) -> OnboardingSession:
    """Return the visitor's chat.

    Begun with our greeting at the first call and revived when abandoned.
    """
    now = await business_now(session)
    chat = await queries.find_chat(session, visitor_token, lock=True)
    if chat is None:
        config = {"tier_wish": tier} if tier in set(Tier) else {}
        chat = OnboardingSession(
            session_token=token_hash(visitor_token),
            state=OnboardingState.GREETING,
            derived_config=config,
            created_at=now,
            updated_at=now,
            expires_at=now + LIFETIME,
        )
        session.add(chat)
        _say(chat, FROM_US, conversation.HELLO)
    elif chat.state is OnboardingState.ABANDONED:
        chat.state = OnboardingState(chat.state_before or OnboardingState.GREETING)
        chat.expires_at = now + LIFETIME
    await session.flush()
    return chat


async def known_of(session: AsyncSession, chat: OnboardingSession) -> Known:
    """Return what the chat knows beyond its state."""
    box = await boxes.find_box_of_customer(session, chat.customer_id) if chat.customer_id else None
    return Known(
        config=chat.derived_config or {},
        has_bot=await queries.find_secret(session, chat.id) is not None,
        has_person=chat.telegram_user_id is not None,
        has_customer=chat.customer_id is not None,
        has_answered=box is not None and box.first_answer_at is not None,
    )


async def answer(session: AsyncSession, visitor_token: str, text: str, *, client_id: str) -> None:
    """Take something the visitor typed or chose; the same `client_id` again changes nothing.

    Raises:
        StepError: this step wants no text.
        ValidationError: too long, empty, or too fast.
    """
    chat, step = await _locked(session, visitor_token)
    if any(message.get("client_id") == client_id for message in chat.messages if client_id):
        return
    text = _checked_text(chat, text)
    turn = conversation.reply(step, text)
    if turn is None:
        raise StepError("That is not what I asked for just now; please use the buttons above.")
    _say(chat, FROM_VISITOR, text, client_id=client_id)
    _apply(chat, turn.state, turn.config, *turn.replies)
    if turn.state is OnboardingState.RECOMMENDING_TIER:
        await _recommend(chat)
    await _touch(session, chat)


async def give_bot(session: AsyncSession, visitor_token: str, bot_token: str) -> None:
    """Check a bot's token with Telegram and keep it, encrypted; it never enters the messages.

    Raises:
        ValidationError: wrong form, unknown to Telegram, in use elsewhere, or already read by
        another program. VendorError: Telegram cannot be reached.
    """
    chat, step = await _locked(session, visitor_token)
    if step is not Step.BOT_TOKEN:
        raise StepError("I already have a bot for you.")
    found = BOT_TOKEN.search(bot_token)
    if found is None:
        raise ValidationError(
            "That is not a bot token. BotFather's looks like 123456789:AAF… with letters "
            "and digits after the colon."
        )
    token = found.group()
    try:
        bot = await telegram.identify_bot(token)
        if await telegram.has_webhook(token):
            raise ValidationError(
                "Another program receives this bot's messages. Make a new bot with "
                "/newbot, or remove its webhook."
            )
    except telegram.BadTokenError as error:
        raise ValidationError(
            "Telegram does not know this token. Copy it again from BotFather."
        ) from error
    fingerprint = box_service.bot_fingerprint(token)
    if await queries.is_bot_taken(
        session, fingerprint, by_other_than=chat.id
    ) or await boxes.is_bot_in_use(session, fingerprint):
        raise ValidationError(
            "This bot already belongs to an assistant. Make a new one with /newbot."
        )
    await _keep_bot(session, chat, token, fingerprint, bot)
    _say(chat, FROM_US, conversation.ask_start(bot.username))
    await _touch(session, chat)


async def start_link(session: AsyncSession, chat: OnboardingSession) -> str:
    """Return the link whose Start button tells us who the owner is.

    The same one until the bot changes.
    """
    secret = await queries.find_secret(session, chat.id)
    if secret is None:
        raise StepError("There is no bot yet.")
    return telegram.bot_link(secret.bot_username, _nonce(secret))


async def look_for_start(session: AsyncSession, visitor_token: str) -> bool:
    """See whether the owner pressed Start behind our link; `True` when something new was found.

    Raises:
        VendorError: Telegram cannot be reached, or another program reads the bot.
    """
    chat, step = await _locked(session, visitor_token)
    secret = await queries.find_secret(session, chat.id)
    if step is not Step.PRESS_START or secret is None:
        return False
    token = secrets.decrypt(BOT_TOKEN_PURPOSE, secret.telegram_token_ct)
    press = next(
        (one for one in await telegram.pressed_starts(token) if one.payload == _nonce(secret)), None
    )
    if press is None:
        return False
    await telegram.mark_read(token, press.update_id)
    person = {"id": press.user_id, "name": press.name, "username": press.username}
    _apply(chat, chat.state, {"person": person}, conversation.ask_person(press.name, press.user_id))
    await _touch(session, chat)
    return True


async def confirm_person(session: AsyncSession, visitor_token: str, *, is_me: bool) -> None:
    """Take the person who pressed Start as the owner, or wait for another one."""
    chat, step = await _locked(session, visitor_token)
    if step is not Step.CONFIRM_PERSON:
        raise StepError("There is nobody to confirm just now.")
    config = dict(chat.derived_config or {})
    person = config["person"]
    if is_me:
        chat.telegram_user_id = int(person["id"])
        _say(chat, FROM_VISITOR, "Yes, that is me")
        _apply(chat, OnboardingState.GATHERING_PREFERENCES, {}, conversation.ASK_LANGUAGE)
    else:
        del config["person"]
        chat.derived_config = config
        secret = await queries.find_secret(session, chat.id)
        if secret is not None:
            secret.start_nonce_hash = token_hash(new_token())
        _say(chat, FROM_VISITOR, "No, that is not me")
        _say(chat, FROM_US, "Then let us try again with a fresh link. Please press Start yourself.")
    await _touch(session, chat)


async def choose_tier(session: AsyncSession, visitor_token: str, tier: Tier) -> None:
    """Take the tier.

    From the payment step it leads back, and the old checkout is replaced later.
    """
    chat, step = await _locked(session, visitor_token)
    if step not in {Step.TIER, Step.EMAIL, Step.CODE, Step.PAY}:
        raise StepError("The plan cannot be changed here any more.")
    _say(chat, FROM_VISITOR, f"I take {tier.value.capitalize()}")
    if chat.customer_id is None:
        _apply(
            chat, OnboardingState.RECOMMENDING_TIER, {"tier": tier.value}, conversation.ASK_EMAIL
        )
    else:
        _apply(
            chat, OnboardingState.AWAITING_PAYMENT, {"tier": tier.value}, conversation.ASK_PAYMENT
        )
    await _touch(session, chat)


async def change_tier(session: AsyncSession, visitor_token: str) -> None:
    """Go back to the choice of the tier."""
    chat, step = await _locked(session, visitor_token)
    if step not in {Step.EMAIL, Step.CODE, Step.PAY}:
        raise StepError("The plan cannot be changed here any more.")
    config = {
        key: value
        for key, value in (chat.derived_config or {}).items()
        if key not in {"tier", "email"}
    }
    chat.derived_config = config
    _apply(chat, OnboardingState.RECOMMENDING_TIER, {}, "Of course. Which one shall it be?")
    await _touch(session, chat)


async def give_email(session: AsyncSession, visitor_token: str, email: str, *, ip: str) -> None:
    """Mail a code to the address, whether we know it or not.

    Raises:
        ValidationError: no address, or too many codes were asked for.
    """
    chat, step = await _locked(session, visitor_token)
    if step not in {Step.EMAIL, Step.CODE}:
        raise StepError("I do not need an address just now.")
    await accounts.request_code(session, email, ip=ip)
    _say(chat, FROM_VISITOR, email.strip())
    _apply(chat, chat.state, {"email": email.strip()}, "I mailed you a code. Please type it here.")
    await _touch(session, chat)


async def forget_email(session: AsyncSession, visitor_token: str) -> None:
    chat, step = await _locked(session, visitor_token)
    if step is not Step.CODE:
        raise StepError("There is no address to change just now.")
    chat.derived_config = {
        key: value for key, value in (chat.derived_config or {}).items() if key != "email"
    }
    _say(chat, FROM_US, conversation.ASK_EMAIL)
    await _touch(session, chat)


async def attach_customer(session: AsyncSession, visitor_token: str, customer_id: UUID) -> bool:
    """Tie the chat to the customer who signed in.

    `False` when it already belongs to somebody else.
    """
    chat = await queries.find_chat(session, visitor_token, lock=True)
    if chat is None or chat.customer_id is not None:
        return chat is None or chat.customer_id == customer_id
    chat.customer_id = customer_id
    config = {key: value for key, value in (chat.derived_config or {}).items() if key != "email"}
    chat.derived_config = config
    if chat.state is OnboardingState.RECOMMENDING_TIER and "tier" in config:
        _apply(chat, OnboardingState.AWAITING_PAYMENT, {}, conversation.ASK_PAYMENT)
    await _touch(session, chat)
    return True


async def checkout(session: AsyncSession, visitor_token: str) -> Checkout:
    """Open Stripe's payment page for the chosen tier, or return the one that is open.

    Raises:
        StepError: the chat is not at the payment.
        VendorError: Stripe cannot be reached.
    """
    chat, step = await _locked(session, visitor_token)
    if step is not Step.PAY or chat.customer_id is None:
        raise StepError("There is nothing to pay just now.")
    customer = await account_queries.find_customer(session, chat.customer_id)
    tier = Tier((chat.derived_config or {})["tier"])
    base = settings().public_url
    opened = await billing.start_checkout(
        session,
        customer=customer,
        tier=tier,
        onboarding_session_id=chat.id,
        success_url=f"{base}/start?checkout={{CHECKOUT_SESSION_ID}}",
        cancel_url=f"{base}/start?payment=cancelled",
    )
    chat.expires_at = opened.expires_at + timedelta(hours=1)
    return opened


async def came_back_from_payment(
    session: AsyncSession, visitor_token: str, *, stripe_session_id: str
) -> None:
    """Note the return from Stripe: a hint to look, not a proof of payment."""
    chat = await queries.find_chat(session, visitor_token)
    if chat is not None and chat.customer_id is not None and stripe_session_id:
        await billing.note_checkout_return(
            session, customer_id=chat.customer_id, stripe_session_id=stripe_session_id
        )


async def note_cancelled_payment(session: AsyncSession, visitor_token: str) -> None:
    """Say once, when the visitor leaves the payment page, that nothing was charged."""
    chat = await queries.find_chat(session, visitor_token, lock=True)
    if chat is None or chat.state is not OnboardingState.AWAITING_PAYMENT:
        return
    if not chat.messages or chat.messages[-1]["text"] != conversation.BACK_FROM_PAYMENT:
        _say(chat, FROM_US, conversation.BACK_FROM_PAYMENT)


async def retry(session: AsyncSession, visitor_token: str) -> None:
    """Ask for the set-up once more, at most three times by the visitor's own click."""
    chat, step = await _locked(session, visitor_token)
    if step is not Step.FAILED or chat.customer_id is None:
        raise StepError("There is nothing to repeat just now.")
    if chat.retries >= MAX_RETRIES:
        raise ValidationError("We are already on it ourselves. We mail you as soon as it works.")
    box = await boxes.find_box_of_customer(session, chat.customer_id)
    if box is None:
        await billing.request_sync(session, chat.customer_id)
    else:
        await box_service.request_converge(
            session, box, job_type=JobType.PROVISION, requested_by=f"customer:{chat.customer_id}"
        )
    chat.retries += 1
    _apply(chat, OnboardingState.PROVISIONING, {}, "I am trying again.")
    await _touch(session, chat)


async def _recommend(chat: OnboardingSession) -> None:
    config = dict(chat.derived_config or {})
    tier, _ = conversation.recommend(config)
    _apply(chat, chat.state, {"recommended_tier": tier.value}, conversation.tier_question(config))


async def _keep_bot(
    session: AsyncSession,
    chat: OnboardingSession,
    token: str,
    fingerprint: str,
    bot: telegram.BotIdentity,
) -> None:
    await queries.drop_unclaimed_bot(session, fingerprint)
    session.add(
        OnboardingSecret(
            session_id=chat.id,
            telegram_token_ct=secrets.encrypt(BOT_TOKEN_PURPOSE, token),
            token_fingerprint=fingerprint,
            bot_id=bot.bot_id,
            bot_username=bot.username,
            start_nonce_hash=token_hash(new_token()),
            key_id=secrets.KEY_ID,
            updated_at=await business_now(session),
        )
    )
    await session.flush()


def _nonce(secret: OnboardingSecret) -> str:
    """Return 128 bits that only our link carries.

    Derived, so that the clear value is stored nowhere.
    """
    return secrets.fingerprint(
        "start-nonce", f"{secret.session_id}:{secret.start_nonce_hash}"
    ).hex()[:32]


async def _locked(session: AsyncSession, visitor_token: str) -> tuple[OnboardingSession, Step]:
    chat = await queries.find_chat(session, visitor_token, lock=True)
    if chat is None:
        raise StepError("This chat is gone. Please reload the page.")
    return chat, conversation.step_of(chat.state, await known_of(session, chat))


def _checked_text(chat: OnboardingSession, text: str) -> str:
    text = text.strip()
    if not text:
        raise ValidationError("Please write something first.")
    if len(text) > conversation.MAX_FREE_TEXT:
        raise ValidationError(
            f"That is a bit long; {conversation.MAX_FREE_TEXT} characters are enough here."
        )
    minute_ago = (real_now() - timedelta(minutes=1)).isoformat()
    recent = [
        one for one in chat.messages if one["from"] == FROM_VISITOR and one["at"] > minute_ago
    ]
    if len(recent) >= MESSAGES_A_MINUTE:
        raise ValidationError("You are faster than I am. Please wait a moment and try again.")
    return text


def _apply(
    chat: OnboardingSession, state: OnboardingState, config: dict[str, Any], *replies: str
) -> None:
    chat.state = state
    chat.derived_config = {**(chat.derived_config or {}), **config}
    for text in replies:
        _say(chat, FROM_US, text)


def _say(chat: OnboardingSession, sender: str, text: str, *, client_id: str = "") -> None:
    message = {
        "id": (chat.messages[-1]["id"] + 1) if chat.messages else 1,
        "from": sender,
        "text": text[:MAX_MESSAGE_CHARACTERS],
        "at": real_now().isoformat(),
        **({"client_id": client_id[:64]} if client_id else {}),
    }
    chat.messages = [*chat.messages, message][-MAX_MESSAGES:]


async def _touch(session: AsyncSession, chat: OnboardingSession) -> None:
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
