"""Moving a chat forward.

Every act locks the chat's row, checks the step, and writes what was said.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import Tier
from openclaw_web.boxes import bots
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes import service as box_service
from openclaw_web.boxes.service import Bot
from openclaw_web.core import secrets
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.errors import ValidationError
from openclaw_web.core.security import new_token, token_hash
from openclaw_web.integrations import telegram
from openclaw_web.integrations.telegram import StartPress
from openclaw_web.jobs.models import JobType
from openclaw_web.onboarding import chats, conversation, queries
from openclaw_web.onboarding.chats import FROM_US, FROM_VISITOR, StepError
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState

MESSAGES_A_MINUTE = 20
MAX_RETRIES = 3
BOT_TOKEN_PURPOSE = "telegram-bot-token"  # noqa: S105 - what the key is for
MAX_CLIENT_ID_CHARACTERS = 64


@dataclass(frozen=True)
class Watch:
    """A bot whose owner should press Start behind our link, which alone carries the nonce."""

    bot_token: str = field(repr=False)
    nonce: str = field(repr=False)


async def open_chat(
    session: AsyncSession, visitor_token: str, *, tier: str = ""
) -> OnboardingSession:
    """Return the visitor's chat.

    Begun with our greeting at the first call and revived when abandoned.
    """
    chat = await queries.find_chat(session, visitor_token, lock=True)
    if chat is None:
        chat = await chats.begin(session, visitor_token, tier)
    await chats.revive(session, chat)
    return chat


async def answer(
    session: AsyncSession, visitor_token: str, text: str, *, client_id: str, seen: str = ""
) -> None:
    """Take something the visitor typed or chose; the same `client_id` again changes nothing.

    `seen` is the step that the page showed: an answer to a question that is past changes nothing
    either, so that a second tab's late click does not answer the next one.

    Raises:
        StepError: this step wants no text.
        ValidationError: too long, empty, or too fast.
    """
    chat, step = await chats.locked(session, visitor_token)
    client_id = client_id[:MAX_CLIENT_ID_CHARACTERS]
    if any(message.get("client_id") == client_id for message in chat.messages if client_id):
        return
    if seen and seen != step:
        return
    text = _checked_text(chat, text)
    turn = conversation.reply(step, text)
    if turn is None:
        raise StepError("That is not what I asked for just now; please use the buttons above.")
    chats.say(chat, FROM_VISITOR, text, client_id=client_id)
    chats.apply(chat, turn.state, turn.config, *turn.replies)
    if turn.state is OnboardingState.RECOMMENDING_TIER:
        await _recommend(chat)
    await chats.touch(session, chat)


async def give_bot(session: AsyncSession, visitor_token: str, bot_token: str) -> None:
    """Check a bot's token with Telegram and keep it, encrypted; it never enters the messages.

    Raises:
        ValidationError: wrong form, unknown to Telegram, in use elsewhere, or already read by
        another program. VendorError: Telegram cannot be reached.
    """
    chat, step = await chats.locked(session, visitor_token)
    if step is not Step.BOT_TOKEN:
        raise StepError("I already have a bot for you.")
    token = bots.token_in(bot_token)
    fingerprint = box_service.bot_fingerprint(token)
    bot = await bots.identified(token)
    if await queries.is_bot_taken(
        session, fingerprint, by_other_than=chat.id
    ) or await boxes.is_bot_in_use(session, fingerprint):
        raise bots.BotRefusedError("in_use")
    await _take_over(session, fingerprint)
    await _keep_bot(session, chat, bot, fingerprint)
    chats.say(chat, FROM_VISITOR, conversation.BOT_GIVEN)
    chats.say(chat, FROM_US, conversation.ask_start(bot.username))
    await chats.touch(session, chat)


async def forget_bot(session: AsyncSession, visitor_token: str) -> None:
    """Go back to the question for the bot: it was the wrong one, or its token was replaced."""
    chat, step = await chats.locked(session, visitor_token)
    if step not in {Step.PRESS_START, Step.CONFIRM_PERSON}:
        raise StepError("The bot cannot be changed here any more.")
    await _lose_bot(session, chat)
    chats.say(chat, FROM_US, conversation.OTHER_BOT)
    await chats.touch(session, chat)


async def start_link(session: AsyncSession, chat: OnboardingSession) -> str:
    """Return the link whose Start button tells us who the owner is.

    The same one until the bot changes.
    """
    secret = await queries.find_secret(session, chat.id)
    if secret is None:
        raise StepError("There is no bot yet.")
    return telegram.bot_link(secret.bot_username, _nonce(secret))


async def find_watch(session: AsyncSession, visitor_token: str) -> Watch | None:
    """Return the bot to listen to while the chat waits for its owner to press Start."""
    chat = await queries.find_chat(session, visitor_token)
    secret = await queries.find_secret(session, chat.id) if chat else None
    if chat is None or secret is None or await chats.step_of(session, chat) is not Step.PRESS_START:
        return None
    token = secrets.decrypt(BOT_TOKEN_PURPOSE, secret.telegram_token_ct)
    return Watch(bot_token=token, nonce=_nonce(secret))


async def note_start(session: AsyncSession, visitor_token: str, press: StartPress) -> bool:
    """Ask whether this is the owner, if it was our link; `False` when nothing waits for them."""
    chat, step = await chats.locked(session, visitor_token)
    secret = await queries.find_secret(session, chat.id)
    if step is not Step.PRESS_START or secret is None or press.payload != _nonce(secret):
        return False
    person = {"id": press.user_id, "name": press.name, "username": press.username}
    chats.apply(
        chat, chat.state, {"person": person}, conversation.ask_person(press.name, press.user_id)
    )
    await chats.touch(session, chat)
    return True


async def note_dead_bot(session: AsyncSession, visitor_token: str) -> None:
    """Ask for the token again: Telegram does not take the one that we have."""
    chat, step = await chats.locked(session, visitor_token)
    if step is Step.PRESS_START:
        await _lose_bot(session, chat)
        chats.say(chat, FROM_US, conversation.BOT_GONE)
        await chats.touch(session, chat)


async def confirm_person(session: AsyncSession, visitor_token: str, *, is_me: bool) -> None:
    """Take the person who pressed Start as the owner, or wait for another one."""
    chat, step = await chats.locked(session, visitor_token)
    if step is not Step.CONFIRM_PERSON:
        raise StepError("There is nobody to confirm just now.")
    config = dict(chat.derived_config or {})
    person = config["person"]
    if is_me:
        chat.telegram_user_id = int(person["id"])
        chats.say(chat, FROM_VISITOR, "Yes, that is me")
        await _go_on(session, chat)
    else:
        del config["person"]
        chat.derived_config = config
        secret = await queries.find_secret(session, chat.id)
        if secret is not None:
            secret.start_nonce_hash = token_hash(new_token())
        chats.say(chat, FROM_VISITOR, "No, that is not me")
        chats.say(chat, FROM_US, conversation.FRESH_LINK)
    await chats.touch(session, chat)


async def choose_tier(session: AsyncSession, visitor_token: str, tier: Tier) -> None:
    """Take the tier.

    From the payment step it leads back, and the old checkout is replaced later.
    """
    chat, step = await chats.locked(session, visitor_token)
    if step not in {Step.TIER, Step.EMAIL, Step.CODE, Step.PAY}:
        raise StepError("The plan cannot be changed here any more.")
    if step is not Step.TIER and (chat.derived_config or {}).get("tier") == tier:
        return  # the second half of a double click
    chats.say(chat, FROM_VISITOR, f"I take {tier.value.capitalize()}")
    if chat.customer_id is None:
        chats.apply(
            chat, OnboardingState.RECOMMENDING_TIER, {"tier": tier.value}, conversation.ASK_EMAIL
        )
    else:
        chats.apply(
            chat, OnboardingState.AWAITING_PAYMENT, {"tier": tier.value}, conversation.ASK_PAYMENT
        )
    await chats.touch(session, chat)


async def change_tier(session: AsyncSession, visitor_token: str) -> None:
    """Go back to the choice of the tier."""
    chat, step = await chats.locked(session, visitor_token)
    if step not in {Step.EMAIL, Step.CODE, Step.PAY}:
        raise StepError("The plan cannot be changed here any more.")
    config = {
        key: value
        for key, value in (chat.derived_config or {}).items()
        if key not in {"tier", "email"}
    }
    chat.derived_config = config
    chats.apply(chat, OnboardingState.RECOMMENDING_TIER, {}, conversation.CHOOSE_AGAIN)
    await chats.touch(session, chat)


async def give_email(session: AsyncSession, visitor_token: str, email: str, *, ip: str) -> None:
    """Mail a code to the address, whether we know it or not.

    Raises:
        ValidationError: no address, or too many codes were asked for.
    """
    chat, step = await chats.locked(session, visitor_token)
    if step not in {Step.EMAIL, Step.CODE}:
        raise StepError("I do not need an address just now.")
    await accounts.request_code(session, email, ip=ip)
    chats.say(chat, FROM_VISITOR, email.strip())
    chats.apply(chat, chat.state, {"email": email.strip()}, conversation.CODE_SENT)
    await chats.touch(session, chat)


async def forget_email(session: AsyncSession, visitor_token: str) -> None:
    chat, step = await chats.locked(session, visitor_token)
    if step is not Step.CODE:
        raise StepError("There is no address to change just now.")
    chat.derived_config = {
        key: value for key, value in (chat.derived_config or {}).items() if key != "email"
    }
    chats.say(chat, FROM_US, conversation.ASK_EMAIL)
    await chats.touch(session, chat)


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
        chats.apply(chat, OnboardingState.AWAITING_PAYMENT, {}, conversation.ASK_PAYMENT)
    await chats.touch(session, chat)
    return True


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
        chats.say(chat, FROM_US, conversation.BACK_FROM_PAYMENT)


async def retry(session: AsyncSession, visitor_token: str) -> None:
    """Ask for the set-up once more, at most three times by the visitor's own click."""
    chat, step = await chats.locked(session, visitor_token)
    if step is not Step.FAILED or chat.customer_id is None:
        raise StepError("There is nothing to repeat just now.")
    if chat.retries >= MAX_RETRIES:
        raise ValidationError("We are already on it ourselves. We mail you as soon as it works.")
    box = await chats.find_box(session, chat)
    if box is None:
        await billing.request_sync(session, chat.customer_id)
    else:
        await box_service.request_converge(
            session, box, job_type=JobType.PROVISION, requested_by=f"customer:{chat.customer_id}"
        )
    chat.retries += 1
    chats.apply(chat, OnboardingState.PROVISIONING, {}, conversation.TRYING_AGAIN)
    await chats.touch(session, chat)


async def _recommend(chat: OnboardingSession) -> None:
    config = dict(chat.derived_config or {})
    tier, _ = conversation.recommend(config)
    chats.apply(
        chat, chat.state, {"recommended_tier": tier.value}, conversation.tier_question(config)
    )


async def _take_over(session: AsyncSession, fingerprint: str) -> None:
    """Take a bot away from chats that nobody is about to pay for.

    Its owner, who alone knows the token, began anew in another browser.
    """
    for chat in await queries.any_chats_with_bot(session, fingerprint):
        await _lose_bot(session, chat)
        chats.say(chat, FROM_US, conversation.ASK_BOT_AGAIN)
        session.add(chat)
    await session.flush()


async def _keep_bot(
    session: AsyncSession, chat: OnboardingSession, bot: Bot, fingerprint: str
) -> None:
    secret = OnboardingSecret(
        session_id=chat.id,
        telegram_token_ct=secrets.encrypt(BOT_TOKEN_PURPOSE, bot.token),
        token_fingerprint=fingerprint,
        bot_id=bot.bot_id,
        bot_username=bot.username,
        start_nonce_hash=token_hash(new_token()),
        key_id=secrets.key_id(),
        updated_at=await business_now(session),
    )
    try:
        async with session.begin_nested():
            session.add(secret)
    except IntegrityError as error:
        raise ValidationError(
            "This bot was given to another chat a moment ago. Please go on there."
        ) from error


async def _lose_bot(session: AsyncSession, chat: OnboardingSession) -> None:
    """Forget a chat's bot, and the person: whoever pressed Start did so at that bot."""
    secret = await queries.find_secret(session, chat.id)
    if secret is not None:
        await session.delete(secret)
        await session.flush()
    chat.telegram_user_id = None
    config = {key: value for key, value in (chat.derived_config or {}).items() if key != "person"}
    chat.derived_config = config


async def _go_on(session: AsyncSession, chat: OnboardingSession) -> None:
    """Ask for the language, or where the chat was when it lost its bot."""
    if chat.state is OnboardingState.GATHERING_TELEGRAM:
        chats.apply(chat, OnboardingState.GATHERING_PREFERENCES, {}, conversation.ASK_LANGUAGE)
        return
    step = await chats.step_of(session, chat)
    chats.say(chat, FROM_US, conversation.question(step, chat.derived_config or {}))


def _nonce(secret: OnboardingSecret) -> str:
    """Return 128 bits that only our link carries.

    Derived, so that the clear value is stored nowhere.
    """
    return secrets.fingerprint(
        "start-nonce", f"{secret.session_id}:{secret.start_nonce_hash}"
    ).hex()[:32]


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
