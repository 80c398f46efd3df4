"""What we say and what we understand: the chat as pure functions, without a database or a network.

A `Step` is what the page asks for now. It follows from the documented state plus what is known
already, so a reload, a second tab or a lost process always shows the same question.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from openclaw_web.billing.models import Tier
from openclaw_web.onboarding.models import OnboardingState

State = OnboardingState


class Step(StrEnum):
    HELLO = "hello"
    USE_CASE = "use_case"
    BOT_TOKEN = "bot_token"  # noqa: S105 - the name of a step
    PRESS_START = "press_start"
    CONFIRM_PERSON = "confirm_person"
    LANGUAGE = "language"
    STYLE = "style"
    TIER = "tier"
    EMAIL = "email"
    CODE = "code"
    PAY = "pay"
    WATCH = "watch"
    SAY_HELLO = "say_hello"
    LIVE = "live"
    FAILED = "failed"
    REFUNDING = "refunding"
    REFUNDED = "refunded"
    ENDED = "ended"


@dataclass(frozen=True)
class Known:
    """What a chat knows beyond its state."""

    config: Mapping[str, Any]
    has_bot: bool = False
    has_person: bool = False
    has_customer: bool = False
    has_answered: bool = False

    @property
    def is_reachable(self) -> bool:
        """Say whether there is a bot, and somebody who may talk to it."""
        return self.has_bot and self.has_person


@dataclass(frozen=True)
class Choice:
    """A quick reply: what the chip says, and what it stands for."""

    label: str
    value: str


@dataclass
class Turn:
    """What follows from something the visitor said."""

    replies: list[str]
    state: OnboardingState
    config: dict[str, Any] = field(default_factory=dict)


USE_CASES = (
    Choice("Organise my days", "organising"),
    Choice("Writing and work", "work"),
    Choice("Learning and research", "research"),
    Choice("My family or team", "team"),
)
LANGUAGES = (
    Choice("English", "en"),
    Choice("Deutsch", "de"),
    Choice("Español", "es"),
    Choice("Français", "fr"),
    Choice("Português", "pt"),
)
ENGLISH_NAMES = {
    "german": "de",
    "spanish": "es",
    "french": "fr",
    "portuguese": "pt",
}
STYLES = (
    Choice("Short and direct", "direct"),
    Choice("Warm and chatty", "warm"),
    Choice("Thorough", "thorough"),
)
HELLO = (
    "Hi! I help people get an assistant of their own. It lives in Telegram, remembers "
    "what matters to you, "
    "and takes about three minutes to set up.\n\nShall we?"
)
ASK_USE_CASE = "Lovely. What should it help you with first?"
ASK_BOT = (
    "Good. Your assistant needs a Telegram bot: that is the name and picture it answers with. "
    "It takes a minute, and I check it for you."
)
BOT_GIVEN = "Here is my bot's token: ••••••••"
ASK_LANGUAGE = "Which language should your assistant speak with you?"
ASK_STYLE = "And how should it talk?"
ASK_EMAIL = (
    "Almost there. Where can I reach you? I mail you a code, so that only you can open your "
    "account."
)
ASK_PAYMENT = (
    "Thank you, that is you. The last step is the payment; then I set everything up while you "
    "watch."
)
PAID = (
    "Thank you! I am setting up your assistant now. You can watch, or close this page and "
    "come back."
)
READY = "Your assistant is up. Say something to it on Telegram, and I will see that it answers."
LIVE = "It answered. Your assistant is live!"
FAILED = (
    "Something went wrong while setting up your assistant. You keep your place: try again below. "
    "We were told as well, and give your money back if we cannot mend it."
)
REFUNDING = (
    "We could not set up your assistant within a day. We are sorry, and are giving your money back "
    "right now."
)
REFUNDED = (
    "We gave your money back and ended your plan. Your bank takes five to ten days to show it. "
    "Nothing more is charged."
)
MONEY_BY_HAND = (
    "Your plan is ended, but your money could not be given back by itself. We were told, and a "
    "person sees to it."
)
BACK_FROM_PAYMENT = (
    "No hurry. Nothing was charged; you can change the plan or pay when you are ready."
)
BOT_GONE = (
    "Telegram does not know your bot's token any more. Please give me the new one from BotFather."
)
OTHER_BOT = "Of course. Please give me the other bot's token."
ASK_BOT_AGAIN = (
    "Your bot is not with me any more; it was given to another chat. Please give me its token "
    "once more, then we go on where we were."
)
CHOOSE_AGAIN = "Of course. Which one shall it be?"
CODE_SENT = "I mailed you a code. Please type it here."
FRESH_LINK = "Then let us try again with a fresh link. Please press Start yourself."
TRYING_AGAIN = "I am trying again."
MAX_FREE_TEXT = 500
STYLE_HINTS = {
    "short": "direct",
    "direct": "direct",
    "brief": "direct",
    "warm": "warm",
    "chat": "warm",
    "friend": "warm",
    "thorough": "thorough",
    "detail": "thorough",
    "long": "thorough",
}
TEAM_WORDS = re.compile(
    r"\b(team|family|families|colleagues?|wife|husband|partner|kids|we|our)\b", re.IGNORECASE
)
HEAVY_WORDS = re.compile(
    r"\b(research|cod(e|er|ing)\b|program|document|analy[sz]|work|business|project)", re.IGNORECASE
)
PROGRESS_STATES = (
    State.GREETING,
    State.GATHERING_USE_CASE,
    State.GATHERING_TELEGRAM,
    State.GATHERING_PREFERENCES,
    State.RECOMMENDING_TIER,
    State.AWAITING_PAYMENT,
    State.PROVISIONING,
    State.COMPLETE,
)
# A chat in these states has its bot and its person; if not, it asks for them again.
NEEDS_BOT = frozenset(
    {State.GATHERING_PREFERENCES, State.RECOMMENDING_TIER, State.AWAITING_PAYMENT}
)


FIXED_STEPS = {
    State.NEW: Step.HELLO,
    State.GREETING: Step.HELLO,
    State.GATHERING_USE_CASE: Step.USE_CASE,
    State.AWAITING_PAYMENT: Step.PAY,
    State.PROVISIONING: Step.WATCH,
    State.ABANDONED: Step.ENDED,
}


# What `delivery` notes of the money of a set-up that failed.
FAILED_STEPS = {"underway": Step.REFUNDING, "done": Step.REFUNDED}


def step_of(state: OnboardingState, known: Known) -> Step:
    """Return what to ask for now."""
    if state is State.GATHERING_TELEGRAM or (state in NEEDS_BOT and not known.is_reachable):
        return _telegram_step(known)
    if state is State.GATHERING_PREFERENCES:
        return Step.STYLE if "language" in known.config else Step.LANGUAGE
    if state is State.RECOMMENDING_TIER:
        return _account_step(known)
    if state is State.COMPLETE:
        return Step.LIVE if known.has_answered else Step.SAY_HELLO
    if state is State.FAILED:
        return FAILED_STEPS.get(known.config.get("refund", ""), Step.FAILED)
    return FIXED_STEPS[state]


def _telegram_step(known: Known) -> Step:
    if not known.has_bot:
        return Step.BOT_TOKEN
    return Step.CONFIRM_PERSON if "person" in known.config else Step.PRESS_START


def _account_step(known: Known) -> Step:
    if "tier" not in known.config:
        return Step.TIER
    return Step.CODE if "email" in known.config else Step.EMAIL


def reply(step: Step, text: str) -> Turn | None:
    """Answer something typed or chosen, or return `None` when this step wants no text."""
    answers = {
        Step.HELLO: _after_hello,
        Step.USE_CASE: _after_use_case,
        Step.LANGUAGE: _after_language,
        Step.STYLE: _after_style,
    }
    answer = answers.get(step)
    return answer(text.strip()) if answer else None


def recommend(config: Mapping[str, Any]) -> tuple[Tier, str]:
    """Return the tier that fits what the visitor told us, and why, in one sentence."""
    said = f"{config.get('use_case', '')} {config.get('use_case_text', '')}"
    if TEAM_WORDS.search(said):
        return (
            Tier.TEAM,
            "You are several, and Team lets up to ten people talk to the same assistant.",
        )
    if HEAVY_WORDS.search(said):
        return (
            Tier.PRO,
            "Work with long texts uses many tokens; Pro has four times as many as Starter.",
        )
    return (
        Tier.STARTER,
        "For everyday questions Starter is plenty: about a thousand messages a month.",
    )


def question(step: Step, config: Mapping[str, Any]) -> str:
    """Return what a step asks, to say it once more after something came between."""
    if step is Step.TIER:
        return tier_question(config)
    return {
        Step.LANGUAGE: ASK_LANGUAGE,
        Step.STYLE: ASK_STYLE,
        Step.EMAIL: ASK_EMAIL,
        Step.CODE: CODE_SENT,
        Step.PAY: ASK_PAYMENT,
    }[step]


def tier_question(config: Mapping[str, Any]) -> str:
    tier, reason = recommend(config)
    return f"I would take {tier.value.capitalize()}. {reason} You can change it at any time."


def choices(step: Step) -> tuple[Choice, ...]:
    """Return the quick replies of a step."""
    return {
        Step.HELLO: (Choice("Yes, let's go", "yes"),),
        Step.USE_CASE: USE_CASES,
        Step.LANGUAGE: LANGUAGES,
        Step.STYLE: STYLES,
    }.get(step, ())


def progress(state: OnboardingState) -> int:
    """Return how many of the chat's stages are behind, for the bar at the top."""
    reached = State.PROVISIONING if state is State.FAILED else state
    order = {known: number for number, known in enumerate(PROGRESS_STATES)}
    return order.get(reached, 0)


def ask_start(bot_name: str) -> str:
    return (
        f"I found your bot, @{bot_name}. Now open it and press Start, so that it knows its owner."
    )


def ask_person(name: str, user_id: int) -> str:
    return (
        f"I see {name} (Telegram id {user_id}). Is that you? "
        "Only you will be able to talk to the assistant."
    )


def _after_hello(_text: str) -> Turn:
    return Turn([ASK_USE_CASE], State.GATHERING_USE_CASE)


def _after_use_case(text: str) -> Turn:
    value = next(
        (one.value for one in USE_CASES if text.lower() in {one.value, one.label.lower()}), "other"
    )
    config = {"use_case": value, "use_case_text": text[:MAX_FREE_TEXT]}
    return Turn([ASK_BOT], State.GATHERING_TELEGRAM, config)


def _after_language(text: str) -> Turn:
    wanted = ENGLISH_NAMES.get(text.lower(), text.lower())
    for one in LANGUAGES:
        if wanted in {one.value, one.label.lower()}:
            return Turn([ASK_STYLE], State.GATHERING_PREFERENCES, {"language": one.value})
    names = ", ".join(one.label for one in LANGUAGES)
    return Turn([f"I do not know that one yet. I can set up {names}."], State.GATHERING_PREFERENCES)


def _after_style(text: str) -> Turn:
    wanted = text.lower()
    labels = {one.label.lower(): one.value for one in STYLES}
    found = labels.get(wanted) or next(
        (value for hint, value in STYLE_HINTS.items() if hint in wanted), "warm"
    )
    return Turn([], State.RECOMMENDING_TIER, {"style": found})
