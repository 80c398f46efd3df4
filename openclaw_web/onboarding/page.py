"""The chat in the browser."""

import reflex as rx

from openclaw_web.accounts.state import AuthState
from openclaw_web.onboarding import components
from openclaw_web.onboarding.conversation import PROGRESS_STATES, Step
from openclaw_web.onboarding.state import OnboardingView
from openclaw_web.ui.badges import notice, skeleton
from openclaw_web.ui.shell import public_shell

LOOK_AGAIN_MS = 1_000


def start_page() -> rx.Component:
    return public_shell(
        rx.el.div(
            rx.el.h1("Set up your assistant", class_name="visually-hidden"),
            _progress(),
            rx.cond(OnboardingView.is_loaded, _conversation(), skeleton(64, 44)),
            rx.el.div(id="chat-end", class_name="chat-end"),
            _look_again(),
            class_name="chat",
        ),
        _composer(),
        footer=False,
        is_signed_in=AuthState.is_signed_in,
    )


def _progress() -> rx.Component:
    stages = len(PROGRESS_STATES)
    return rx.el.div(
        *(
            rx.el.span(class_name=rx.cond(OnboardingView.done >= number, "done", ""))
            for number in range(stages)
        ),
        class_name="chat-progress",
        role="progressbar",
        aria_label="Progress of the set-up",
        aria_valuemin="0",
        aria_valuemax=str(stages - 1),
        aria_valuenow=rx.Var.create(OnboardingView.done).to(str),
    )


def _conversation() -> rx.Component:
    return rx.fragment(
        rx.el.div(
            rx.foreach(OnboardingView.messages, components.bubble),
            class_name="stack",
            aria_live="polite",
            id="messages",
        ),
        rx.cond(
            OnboardingView.error != "",
            notice(OnboardingView.error, tone="error", icon="circle-alert", id="chat-error"),
        ),
        rx.el.div(_widget(), key=OnboardingView.step, id="widget"),
    )


def _widget() -> rx.Component | rx.Var[rx.Component]:
    """Show what this step asks for."""
    return rx.match(
        OnboardingView.step,
        (Step.BOT_TOKEN.value, components.bot_token_form()),
        (Step.PRESS_START.value, components.press_start()),
        (Step.CONFIRM_PERSON.value, components.confirm_person()),
        (Step.TIER.value, components.tier_choice()),
        (Step.EMAIL.value, components.email_form()),
        (Step.CODE.value, components.code_form()),
        (Step.PAY.value, components.payment()),
        (Step.WATCH.value, components.happenings()),
        (Step.SAY_HELLO.value, components.say_hello()),
        (Step.LIVE.value, components.live()),
        (Step.FAILED.value, components.failed()),
        (Step.REFUNDING.value, components.refunding()),
        (Step.REFUNDED.value, components.refunded()),
        (Step.ENDED.value, components.ended()),
        components.chips(),
    )


def _composer() -> rx.Component:
    """Take free text, in the steps that understand it."""
    wants_text = (
        (OnboardingView.step == Step.HELLO.value)
        | (OnboardingView.step == Step.USE_CASE.value)
        | (OnboardingView.step == Step.LANGUAGE.value)
        | (OnboardingView.step == Step.STYLE.value)
    )
    return rx.cond(
        wants_text,
        rx.el.div(
            rx.el.form(
                rx.el.input(
                    type="hidden",
                    name="client_id",
                    value=OnboardingView.composer_id,
                    read_only=True,
                ),
                rx.el.label("Your answer", html_for="composer-text", class_name="visually-hidden"),
                rx.el.input(
                    id="composer-text",
                    name="text",
                    placeholder="Write here, or tap an answer above",
                    auto_complete="off",
                    max_length=500,
                    class_name="input",
                ),
                rx.el.button(
                    rx.icon("arrow-up", size=20),
                    rx.el.span("Send", class_name="visually-hidden"),
                    type="submit",
                    id="composer-send",
                    class_name="button primary",
                ),
                on_submit=OnboardingView.send,
                reset_on_submit=True,
            ),
            class_name="composer",
        ),
    )


def _look_again() -> rx.Component:
    return rx.cond(
        OnboardingView.is_waiting,
        rx.el.div(
            rx.moment(interval=LOOK_AGAIN_MS, on_change=OnboardingView.tick),
            class_name="visually-hidden",
            aria_hidden="true",
        ),
    )
