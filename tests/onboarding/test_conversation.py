"""The chat as pure functions: every state asks for something, and the advice fits what was said."""

import pytest

from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.onboarding import conversation
from openclaw_web.onboarding.conversation import Known, Step
from openclaw_web.onboarding.models import OnboardingState as State

READY = {"has_bot": True, "has_person": True}
PERSON = {"person": {"id": 1}}


def answer_to(step, text):
    turn = conversation.reply(step, text)
    assert turn is not None
    return turn


def known(config=None, **facts):
    return Known(config=config or {}, **facts)


@pytest.mark.parametrize(
    ("state", "facts", "step"),
    [
        (State.NEW, known(), Step.HELLO),
        (State.GREETING, known(), Step.HELLO),
        (State.GATHERING_USE_CASE, known(), Step.USE_CASE),
        (State.GATHERING_TELEGRAM, known(), Step.BOT_TOKEN),
        (State.GATHERING_TELEGRAM, known(has_bot=True), Step.PRESS_START),
        (State.GATHERING_TELEGRAM, known(PERSON, has_bot=True), Step.CONFIRM_PERSON),
        (State.GATHERING_PREFERENCES, known(**READY), Step.LANGUAGE),
        (State.GATHERING_PREFERENCES, known({"language": "en"}, **READY), Step.STYLE),
        (State.RECOMMENDING_TIER, known(**READY), Step.TIER),
        (State.RECOMMENDING_TIER, known({"tier": "pro"}, **READY), Step.EMAIL),
        (State.RECOMMENDING_TIER, known({"tier": "pro", "email": "a@b.c"}, **READY), Step.CODE),
        (State.AWAITING_PAYMENT, known(**READY), Step.PAY),
        (State.PROVISIONING, known(), Step.WATCH),
        (State.COMPLETE, known(), Step.SAY_HELLO),
        (State.COMPLETE, known(has_answered=True), Step.LIVE),
        (State.FAILED, known(), Step.FAILED),
        (State.ABANDONED, known(), Step.ENDED),
    ],
)
def test_a_state_and_what_is_known_decide_the_step(state, facts, step):
    assert conversation.step_of(state, facts) is step


def test_every_state_has_a_step():
    assert {conversation.step_of(state, known()) for state in State} <= set(Step)


@pytest.mark.parametrize(
    "state", [State.GATHERING_PREFERENCES, State.RECOMMENDING_TIER, State.AWAITING_PAYMENT]
)
@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (known(), Step.BOT_TOKEN),
        (known(has_person=True), Step.BOT_TOKEN),
        (known(has_bot=True), Step.PRESS_START),
        (known(PERSON, has_bot=True), Step.CONFIRM_PERSON),
    ],
)
def test_nobody_comes_to_the_payment_without_a_bot_and_its_person(state, facts, step):
    assert conversation.step_of(state, facts) is step


def test_the_answers_lead_from_hello_to_the_tier():
    config, state, said = {}, State.GREETING, []
    for text in ("hi", "Learning and research", "Français", "something long"):
        turn = answer_to(conversation.step_of(state, known(config, **READY)), text)
        state, config = turn.state, config | turn.config
        said += turn.replies
        if state is State.GATHERING_TELEGRAM:
            state = State.GATHERING_PREFERENCES
    assert state is State.RECOMMENDING_TIER
    assert config == {
        "use_case": "research",
        "use_case_text": "Learning and research",
        "language": "fr",
        "style": "thorough",
    }
    assert said == [conversation.ASK_USE_CASE, conversation.ASK_BOT, conversation.ASK_STYLE]


@pytest.mark.parametrize(
    "step", sorted(set(Step) - {Step.HELLO, Step.USE_CASE, Step.LANGUAGE, Step.STYLE})
)
def test_the_other_steps_want_no_text(step):
    assert conversation.reply(step, "anything") is None
    assert conversation.choices(step) == ()


@pytest.mark.parametrize(
    ("typed", "language"),
    [("English", "en"), ("deutsch", "de"), ("DE", "de"), ("German", "de"), ("español", "es")],
)
def test_a_language_may_be_named_in_several_ways(typed, language):
    assert answer_to(Step.LANGUAGE, f" {typed} ").config == {"language": language}


def test_an_unknown_language_is_asked_again():
    turn = answer_to(Step.LANGUAGE, "Klingon")
    assert (turn.state, turn.config) == (State.GATHERING_PREFERENCES, {})
    assert "English, Deutsch" in turn.replies[0]


@pytest.mark.parametrize(
    ("typed", "style"),
    [("Short and direct", "direct"), ("in detail please", "thorough"), ("whatever", "warm")],
)
def test_a_style_is_always_found(typed, style):
    assert answer_to(Step.STYLE, typed).config == {"style": style}


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ("Organise my days", Tier.STARTER),
        ("tell me what to cook", Tier.STARTER),
        ("plan your hours, watch the steam boiler", Tier.STARTER),
        ("Writing and work", Tier.PRO),
        ("Learning and research", Tier.PRO),
        ("I am coding a lot", Tier.PRO),
        ("analyse documents", Tier.PRO),
        ("decode my dreams", Tier.STARTER),
        ("My family or team", Tier.TEAM),
        ("for my wife and me", Tier.TEAM),
        ("We research together", Tier.TEAM),
    ],
)
def test_the_advice_fits_what_was_said(said, tier):
    config = answer_to(Step.USE_CASE, said).config
    assert conversation.recommend(config)[0] is tier
    assert tier.value.capitalize() in conversation.tier_question(config)


def test_what_the_advice_promises_is_what_we_sell():
    starter, pro, team = (plan_of(tier) for tier in Tier)
    assert pro.tokens_limit == 4 * starter.tokens_limit
    assert "four times" in conversation.recommend({"use_case_text": "research"})[1]
    assert team.telegram_users == 10
    assert "up to ten people" in conversation.recommend({"use_case_text": "my team"})[1]


@pytest.mark.parametrize(
    "step", [Step.LANGUAGE, Step.STYLE, Step.TIER, Step.EMAIL, Step.CODE, Step.PAY]
)
def test_a_question_can_be_asked_once_more(step):
    assert conversation.question(step, {}).strip()


def test_progress_only_grows_and_a_failure_keeps_its_place():
    done = [conversation.progress(state) for state in conversation.PROGRESS_STATES]
    assert done == list(range(len(done)))
    assert conversation.progress(State.FAILED) == conversation.progress(State.PROVISIONING)
