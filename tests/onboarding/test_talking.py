"""What is said in the chat: once, in order, and by one tab at a time."""

import asyncio
from datetime import timedelta

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import Tier
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.core.security import token_hash
from openclaw_web.onboarding import chats, conversation, queries, service, tasks
from openclaw_web.onboarding.chats import LIFETIME, StepError
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingSession, OnboardingState
from tests.onboarding.visiting import Visitor, change, secrets_kept


async def test_a_visitor_is_greeted_once(visitor):
    first, second = await visitor.arrive("pro"), await visitor.arrive("team")
    assert first.id == second.id
    assert await visitor.texts() == [conversation.HELLO]
    assert (first.state, first.derived_config) == (OnboardingState.GREETING, {"tier_wish": "pro"})


async def test_the_cookie_itself_is_not_stored(visitor):
    chat = await visitor.arrive()
    assert chat.session_token == token_hash(visitor.token)
    assert visitor.token not in str(chat.model_dump())


async def test_an_unknown_tier_is_no_wish(visitor):
    assert (await visitor.arrive("platinum")).derived_config == {}


async def test_two_tabs_that_open_at_once_share_one_chat(visitor, session):
    arrived = await asyncio.gather(*(visitor.arrive() for _ in range(4)))
    assert len({chat.id for chat in arrived}) == 1
    assert len((await session.exec(select(OnboardingSession))).all()) == 1
    assert await visitor.texts() == [conversation.HELLO]


async def test_an_answer_leads_to_the_next_question(visitor):
    await visitor.arrive()
    await visitor.say("hello")
    assert await visitor.step() is Step.USE_CASE
    assert (await visitor.texts())[1:] == ["hello", conversation.ASK_USE_CASE]


async def test_the_same_client_id_again_changes_nothing(visitor):
    await visitor.arrive()
    await visitor.say("hello", "a" * 200)
    await visitor.say("hello", "a" * 200)
    assert len(await visitor.texts()) == 3


async def test_tabs_that_answer_at_once_take_turns(visitor):
    await visitor.arrive()
    await asyncio.gather(*(visitor.say("hello", "same") for _ in range(4)))
    assert await visitor.texts() == [conversation.HELLO, "hello", conversation.ASK_USE_CASE]


async def test_a_second_tab_waits_until_the_first_has_committed(visitor):
    await visitor.arrive()
    async with session_scope() as first:
        await chats.locked(first, visitor.token)
        second = asyncio.create_task(visitor.say("hello"))
        done, _ = await asyncio.wait([second], timeout=0.3)
        assert not done
    await second
    assert await visitor.step() is Step.USE_CASE


async def test_a_late_click_does_not_answer_the_next_question(visitor):
    await visitor.arrive()
    await visitor.say("Yes, let's go", seen=Step.HELLO)
    await visitor.say("Yes, let's go", seen=Step.HELLO)
    assert await visitor.step() is Step.USE_CASE
    assert "use_case" not in (await visitor.chat()).derived_config


async def test_text_where_none_is_wanted_is_refused(visitor):
    await visitor.reach_bot()
    with pytest.raises(StepError):
        await visitor.say("my token is 12345")
    assert "12345" not in str(await visitor.texts())


@pytest.mark.parametrize("text", ["", "   ", "x" * 501], ids=["empty", "blank", "too long"])
async def test_what_is_empty_or_too_long_is_refused(visitor, text):
    await visitor.arrive()
    with pytest.raises(ValidationError):
        await visitor.say(text)
    assert await visitor.texts() == [conversation.HELLO]


async def test_whoever_writes_too_fast_is_asked_to_wait(visitor, telegram):
    await visitor.reach_language(telegram)
    before = len(await visitor.texts("them"))
    for _ in range(service.MESSAGES_A_MINUTE - before):
        await visitor.say("Klingon")
    with pytest.raises(ValidationError, match="faster than I am"):
        await visitor.say("Klingon")
    assert len(await visitor.texts("them")) == service.MESSAGES_A_MINUTE


async def test_a_chat_never_grows_without_end(visitor, session):
    chat = await visitor.arrive()
    for number in range(chats.MAX_MESSAGES + 30):
        chats.say(chat, chats.FROM_US, f"{number} " + "x" * 5_000)
    await change(session, chat)
    kept = (await visitor.chat()).messages
    assert len(kept) == chats.MAX_MESSAGES
    assert len({one["id"] for one in kept}) == chats.MAX_MESSAGES
    assert max(len(one["text"]) for one in kept) == chats.MAX_MESSAGE_CHARACTERS


async def test_language_and_style_are_kept_and_lead_to_the_advice(visitor, telegram):
    await visitor.reach_language(telegram)
    await visitor.say("Deutsch")
    assert await visitor.step() is Step.STYLE
    await visitor.say("Warm and chatty")
    config = (await visitor.chat()).derived_config
    assert (config["language"], config["style"]) == ("de", "warm")
    assert config["recommended_tier"] == "starter"
    assert await visitor.step() is Step.TIER
    assert (await visitor.texts())[-1] == conversation.tier_question(config)


async def test_each_message_gives_the_chat_another_day(visitor, session):
    chat = await visitor.arrive()
    soon = await business_now(session) + timedelta(minutes=1)
    await change(session, chat, expires_at=soon)
    await visitor.say("hello")
    assert (await visitor.chat()).expires_at > soon + LIFETIME - timedelta(minutes=5)


async def test_a_chat_that_nobody_went_on_with_is_abandoned_and_revived(visitor, session):
    chat = await visitor.arrive()
    await visitor.say("hello")
    await change(session, await visitor.chat(), expires_at=await business_now(session))
    assert await tasks.abandon_expired_chats() == 1
    assert await tasks.abandon_expired_chats() == 0
    assert await visitor.step() is Step.ENDED
    again = await visitor.arrive()
    assert (again.id, again.state) == (chat.id, OnboardingState.GATHERING_USE_CASE)
    assert again.expires_at > await business_now(session) + LIFETIME / 2
    assert len(await visitor.texts()) == 3


async def test_an_abandoned_chat_goes_on_by_an_answer_alone(visitor, session):
    await visitor.arrive()
    await change(session, await visitor.chat(), expires_at=await business_now(session))
    await tasks.abandon_expired_chats()
    await visitor.say("hello")
    assert await visitor.step() is Step.USE_CASE


async def test_a_chat_that_ended_well_is_never_abandoned(visitor, session):
    await visitor.arrive()
    for state in (OnboardingState.PROVISIONING, OnboardingState.COMPLETE, OnboardingState.FAILED):
        now = await business_now(session)
        await change(session, await visitor.chat(), state=state, expires_at=now)
        assert await tasks.abandon_expired_chats() == 0


async def test_the_bot_of_a_chat_that_ended_a_month_ago_is_forgotten(visitor, telegram, session):
    await visitor.reach_start(telegram)
    now = await business_now(session)
    await change(session, await visitor.chat(), expires_at=now - timedelta(days=29))
    await tasks.abandon_expired_chats()
    assert len(await secrets_kept()) == 1
    await change(session, await visitor.chat(), expires_at=now - timedelta(days=31))
    await tasks.abandon_expired_chats()
    assert await secrets_kept() == []
    await visitor.arrive()
    assert await visitor.step() is Step.BOT_TOKEN


async def test_the_funnel_counts_chats_by_state(visitor, session):
    await visitor.arrive()
    other = Visitor()
    await other.arrive()
    await other.say("hello")
    assert await queries.any_customers_funnel(session) == {
        OnboardingState.GREETING: 1,
        OnboardingState.GATHERING_USE_CASE: 1,
    }


async def test_a_wish_for_a_tier_survives_the_chat(visitor, telegram):
    await visitor.arrive("team")
    await visitor.reach_tier(telegram)
    assert (await visitor.chat()).derived_config["tier_wish"] == Tier.TEAM


async def test_talking_makes_no_account(visitor, session, telegram):
    await visitor.reach_tier(telegram)
    assert (await session.exec(select(Customer))).all() == []
