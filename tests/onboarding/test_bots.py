"""The bot and its owner: checked live, kept secret, and never taken from somebody who pays."""

import asyncio

import pytest

from openclaw_web.billing.models import Tier
from openclaw_web.boxes.models import BoxSecret
from openclaw_web.boxes.service import bot_fingerprint
from openclaw_web.core import secrets
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError, VendorError
from openclaw_web.onboarding import conversation, paying, service, tasks
from openclaw_web.onboarding.chats import StepError
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingState
from tests.factories import make_box
from tests.onboarding.visiting import PERSON, STRANGER, Visitor, change, secrets_kept

UNKNOWN_TOKEN = f"123456789:{'A' * 35}"


async def refused(visitor, token, match):
    with pytest.raises(ValidationError, match=match):
        await visitor.do(service.give_bot, token)
    assert await visitor.step() is Step.BOT_TOKEN


async def test_a_bot_is_checked_and_its_owner_asked_to_press_start(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    assert await visitor.step() is Step.PRESS_START
    assert (await visitor.texts())[-1] == conversation.ask_start(bot["username"])
    (kept,) = await secrets_kept()
    assert (kept.bot_id, kept.bot_username) == (bot["id"], bot["username"])


async def test_the_token_is_kept_encrypted_and_stands_nowhere_else(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    (kept,) = await secrets_kept()
    assert bot["token"] not in str((await visitor.chat()).model_dump()) + str(kept.model_dump())
    clear = secrets.decrypt(service.BOT_TOKEN_PURPOSE, kept.telegram_token_ct)
    assert clear == bot["token"]


async def test_a_token_is_found_in_what_was_pasted_around_it(visitor, telegram):
    await visitor.reach_bot()
    bot = telegram.new_bot()
    await visitor.do(service.give_bot, f"Use this token:\n{bot['token']}\nKeep it secure")
    assert await visitor.step() is Step.PRESS_START


@pytest.mark.parametrize(
    "text", ["", "hello", "@my_bot", "12345:short", "123456789", "1" * 20, ":" * 50]
)
async def test_what_is_no_token_is_refused_at_once(visitor, text):
    await visitor.reach_bot()
    await refused(visitor, text, "not a bot token")


async def test_a_token_that_telegram_does_not_know_is_refused(visitor, telegram):
    assert telegram
    await visitor.reach_bot()
    await refused(visitor, UNKNOWN_TOKEN, "does not know this token")


async def test_a_bot_with_a_webhook_is_refused_and_its_webhook_stays(visitor, telegram):
    await visitor.reach_bot()
    bot = telegram.new_bot()
    telegram.call(bot, "setWebhook", url="https://example.com/hook")
    await refused(visitor, bot["token"], "Another program receives")
    assert telegram.call(bot, "getWebhookInfo")["url"] == "https://example.com/hook"


async def test_when_telegram_is_away_the_question_stays(visitor, telegram):
    await visitor.reach_bot()
    telegram.fail("getMe", 502, "Bad Gateway")
    with pytest.raises(VendorError) as failed:
        await visitor.do(service.give_bot, telegram.new_bot()["token"])
    assert failed.value.can_retry
    assert await visitor.step() is Step.BOT_TOKEN


async def test_a_bot_of_a_box_is_refused(visitor, telegram, session):
    bot = telegram.new_bot()
    box = await make_box(session)
    session.add(BoxSecret(box_id=box.id, token_fingerprint=bot_fingerprint(bot["token"])))
    await session.commit()
    await visitor.reach_bot()
    await refused(visitor, bot["token"], "already belongs")


async def test_a_bot_of_somebody_about_to_pay_is_refused(visitor, telegram):
    other = Visitor()
    await other.reach_payment(telegram)
    (kept,) = await secrets_kept()
    token = secrets.decrypt(service.BOT_TOKEN_PURPOSE, kept.telegram_token_ct)
    await visitor.reach_bot()
    await refused(visitor, token, "already belongs")


async def test_a_bot_is_taken_over_from_a_chat_without_a_customer(visitor, telegram):
    other = Visitor()
    bot = await other.reach_tier(telegram)
    await visitor.reach_bot()
    await visitor.do(service.give_bot, bot["token"])
    (kept,) = await secrets_kept()
    assert kept.session_id == (await visitor.chat()).id
    assert await other.step() is Step.BOT_TOKEN
    assert (await other.texts())[-1] == conversation.ASK_BOT_AGAIN


async def test_a_bot_is_taken_over_from_an_abandoned_chat_with_a_customer(
    visitor, telegram, session
):
    other = Visitor()
    await other.reach_payment(telegram)
    (kept,) = await secrets_kept()
    token = secrets.decrypt(service.BOT_TOKEN_PURPOSE, kept.telegram_token_ct)
    await change(session, await other.chat(), expires_at=await business_now(session))
    await tasks.abandon_expired_chats()
    await visitor.reach_bot()
    await visitor.do(service.give_bot, token)
    assert await visitor.step() is Step.PRESS_START
    await other.arrive()
    assert await other.step() is Step.BOT_TOKEN
    with pytest.raises(StepError):
        await paying.open_page(other.token)


async def test_a_chat_that_lost_its_bot_goes_on_where_it_was(visitor, telegram):
    await visitor.reach_tier(telegram)
    await visitor.do(service.choose_tier, Tier.PRO)
    (kept,) = await secrets_kept()
    token = secrets.decrypt(service.BOT_TOKEN_PURPOSE, kept.telegram_token_ct)
    other = Visitor()
    await other.reach_bot()
    await other.do(service.give_bot, token)
    bot = telegram.new_bot()
    await visitor.do(service.give_bot, bot["token"])
    assert await visitor.step() is Step.PRESS_START
    telegram.press_start(bot, await visitor.link())
    assert await visitor.looks()
    await visitor.do(service.confirm_person, is_me=True)
    assert await visitor.step() is Step.EMAIL
    assert (await visitor.texts())[-1] == conversation.ASK_EMAIL


async def test_of_two_chats_that_give_one_bot_at_once_one_has_it(visitor, telegram):
    other, bot = Visitor(), telegram.new_bot()
    await visitor.reach_bot()
    await other.reach_bot()
    await asyncio.gather(
        *(one.do(service.give_bot, bot["token"]) for one in (visitor, other)),
        return_exceptions=True,
    )
    steps = {await visitor.step(), await other.step()}
    assert steps == {Step.PRESS_START, Step.BOT_TOKEN}


async def test_a_bot_that_was_given_already_is_not_asked_again(visitor, telegram):
    await visitor.reach_start(telegram)
    with pytest.raises(StepError, match="already have a bot"):
        await visitor.do(service.give_bot, telegram.new_bot()["token"])


async def test_the_link_stays_the_same_and_cannot_be_guessed(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    link = await visitor.link()
    assert link == await visitor.link()
    address, _, nonce = link.partition("?start=")
    assert address == f"https://t.me/{bot['username']}"
    assert len(bytes.fromhex(nonce)) == 16
    assert nonce not in str((await visitor.chat()).model_dump())


async def test_only_our_link_names_the_owner(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    telegram.write(bot, "hello", person=STRANGER)
    telegram.write(bot, "/start", person=STRANGER)
    telegram.write(bot, "/start 0123456789abcdef0123456789abcdef", person=STRANGER)
    assert not await visitor.looks()
    telegram.press_start(bot, await visitor.link())
    assert await visitor.looks()
    assert await visitor.step() is Step.CONFIRM_PERSON
    assert (await visitor.chat()).derived_config["person"]["id"] == PERSON
    assert str(PERSON) in (await visitor.texts())[-1]


async def test_a_look_that_finds_something_says_so_once(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    telegram.press_start(bot, await visitor.link())
    assert [await visitor.looks() for _ in range(3)] == [True, False, False]
    assert telegram.call(bot, "getUpdates") == []


async def test_two_tabs_that_look_at_once_ask_once(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    telegram.press_start(bot, await visitor.link())
    found = await asyncio.gather(*(visitor.looks() for _ in range(3)))
    assert sorted(found) == [False, False, True]
    assert sum(str(PERSON) in text for text in await visitor.texts()) == 1


async def test_the_owner_is_whoever_confirms(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    telegram.press_start(bot, await visitor.link())
    await visitor.looks()
    assert (await visitor.chat()).telegram_user_id is None
    await visitor.do(service.confirm_person, is_me=True)
    chat = await visitor.chat()
    assert (chat.telegram_user_id, chat.state) == (PERSON, OnboardingState.GATHERING_PREFERENCES)


async def test_after_a_no_the_old_link_is_worth_nothing(visitor, telegram):
    bot = await visitor.reach_start(telegram)
    old = await visitor.link()
    telegram.press_start(bot, old, person=STRANGER)
    await visitor.looks()
    await visitor.do(service.confirm_person, is_me=False)
    assert await visitor.step() is Step.PRESS_START
    assert await visitor.link() != old
    telegram.press_start(bot, old, person=STRANGER)
    assert not await visitor.looks()
    telegram.press_start(bot, await visitor.link())
    assert await visitor.looks()
    await visitor.do(service.confirm_person, is_me=True)
    assert (await visitor.chat()).telegram_user_id == PERSON


@pytest.mark.parametrize("is_me", [True, False])
async def test_nobody_can_be_confirmed_before_somebody_pressed_start(visitor, telegram, is_me):
    await visitor.reach_start(telegram)
    with pytest.raises(StepError):
        await visitor.do(service.confirm_person, is_me=is_me)
    assert (await visitor.chat()).telegram_user_id is None


async def test_another_bot_may_be_given_until_the_owner_is_known(visitor, telegram):
    wrong = await visitor.reach_start(telegram)
    telegram.press_start(wrong, await visitor.link())
    await visitor.looks()
    await visitor.do(service.forget_bot)
    assert await visitor.step() is Step.BOT_TOKEN
    assert await secrets_kept() == []
    right = telegram.new_bot()
    await visitor.do(service.give_bot, right["token"])
    assert await visitor.step() is Step.PRESS_START


async def test_a_known_owner_keeps_the_bot(visitor, telegram):
    await visitor.reach_language(telegram)
    with pytest.raises(StepError):
        await visitor.do(service.forget_bot)
    assert len(await secrets_kept()) == 1


async def test_a_token_that_was_revoked_meanwhile_is_asked_again(visitor, telegram):
    await visitor.reach_start(telegram)
    telegram.fail("getUpdates", 401, "Unauthorized")
    assert await visitor.looks()
    assert await visitor.step() is Step.BOT_TOKEN
    assert (await visitor.texts())[-1] == conversation.BOT_GONE
    assert await secrets_kept() == []


async def test_another_program_that_reads_the_bot_is_named(visitor, telegram):
    await visitor.reach_start(telegram)
    telegram.fail("getUpdates", 409, "Conflict: terminated by other getUpdates request")
    with pytest.raises(ValidationError, match="Another program reads"):
        await visitor.looks()
    assert await visitor.step() is Step.PRESS_START


async def test_while_we_ask_telegram_the_database_is_free(visitor, telegram, monkeypatch):
    await visitor.reach_start(telegram)

    async def pressed_starts(_token):
        async with session_scope() as session, asyncio.timeout(2):
            await service.chats.locked(session, visitor.token)
        return []

    monkeypatch.setattr("openclaw_web.integrations.telegram.pressed_starts", pressed_starts)
    assert not await visitor.looks()


async def test_there_is_nothing_to_look_for_without_a_bot(visitor):
    assert not await visitor.looks()
    await visitor.reach_bot()
    assert not await visitor.looks()
