"""The pieces of the chat: bubbles, and one widget for each step."""

import reflex as rx

from openclaw_web.onboarding.state import OnboardingView
from openclaw_web.ui.badges import notice
from openclaw_web.ui.native_form import native_form
from openclaw_web.ui.values import Row, is_any

BOTFATHER_STEPS = (
    ("Open ", "@BotFather", " in Telegram and send it /newbot."),
    ("Give your assistant a name, then a username that ends in ", "bot", "."),
    ("Copy the ", "token", " it answers with and paste it here."),
)


def bubble(message: Row) -> rx.Component:
    return rx.el.div(message["text"], class_name="bubble " + message["side"], key=message["id"])


def chips() -> rx.Component:
    return rx.el.div(
        rx.foreach(
            OnboardingView.chips,
            lambda chip: rx.el.button(
                chip["label"],
                on_click=OnboardingView.choose(chip["value"]),
                class_name="chip",
                type="button",
            ),
        ),
        class_name="chips",
    )


def bot_token_form() -> rx.Component:
    return _widget(
        rx.el.ol(
            *(
                rx.el.li(
                    rx.el.span(str(number), class_name="step-number", aria_hidden="true"),
                    rx.el.span(before, rx.el.b(word), after),
                )
                for number, (before, word, after) in enumerate(BOTFATHER_STEPS, start=1)
            ),
            class_name="steps",
        ),
        rx.el.form(
            rx.el.div(
                rx.el.label("Bot token", html_for="bot-token"),
                rx.el.input(
                    id="bot-token",
                    name="bot_token",
                    type="password",
                    auto_complete="off",
                    placeholder="123456789:AAF…",
                    required=True,
                    class_name="input",
                ),
                class_name="field",
            ),
            rx.el.button(
                "Check my bot", type="submit", id="check-bot", class_name="button primary"
            ),
            on_submit=OnboardingView.give_token,
            reset_on_submit=True,
            class_name="stack",
        ),
        rx.el.p(
            "The token is encrypted at once and is shown to nobody, not even in this chat.",
            class_name="small",
        ),
    )


def press_start() -> rx.Component:
    return _widget(
        rx.el.a(
            rx.icon("send", size=18, aria_hidden=True),
            "Open ",
            rx.el.span("@", OnboardingView.bot_name),
            " and press Start",
            href=OnboardingView.bot_link,
            target="_blank",
            rel="noopener",
            id="open-bot",
            class_name="button primary",
        ),
        rx.el.p(rx.el.span("Waiting for you to press Start", class_name="status busy")),
        _other_bot(),
    )


def confirm_person() -> rx.Component:
    return rx.el.div(
        rx.el.button(
            "Yes, that is me",
            on_click=OnboardingView.confirm(True),
            id="person-yes",
            class_name="chip",
            type="button",
        ),
        rx.el.button(
            "No, somebody else",
            on_click=OnboardingView.confirm(False),
            id="person-no",
            class_name="chip",
            type="button",
        ),
        class_name="chips",
    )


def ended() -> rx.Component:
    return _widget(
        rx.el.p("This chat has rested for a day. Nothing is lost: it goes on where it was."),
        rx.el.button(
            "Go on",
            on_click=OnboardingView.load,
            id="go-on",
            class_name="button primary",
            type="button",
        ),
    )


def tier_choice() -> rx.Component:
    return rx.el.div(
        rx.foreach(
            OnboardingView.offers,
            lambda offer: rx.el.button(
                rx.el.span(
                    rx.el.span(offer["name"], class_name="heading"),
                    rx.cond(offer["mark"] != "", rx.el.span(offer["mark"], class_name="tag")),
                    rx.el.span(class_name="grow"),
                    rx.el.span(offer["price"], class_name="strong numbers"),
                    class_name="row",
                ),
                rx.el.span(offer["detail"], class_name="small"),
                on_click=OnboardingView.take_tier(offer["tier"]),
                class_name=rx.cond(offer["mark"] == "Recommended", "choice recommended", "choice"),
                id="tier-" + offer["tier"],
                type="button",
            ),
        ),
        class_name="stack widget",
    )


def email_form() -> rx.Component:
    return _widget(
        rx.el.form(
            rx.el.div(
                rx.el.label("E-mail", html_for="email"),
                rx.el.input(
                    id="email",
                    name="email",
                    type="email",
                    auto_complete="email",
                    placeholder="you@example.com",
                    required=True,
                    class_name="input",
                ),
                class_name="field",
            ),
            rx.el.button(
                "Mail me a code", type="submit", id="send-code", class_name="button primary"
            ),
            on_submit=OnboardingView.give_email,
            class_name="stack",
        ),
        _other_plan(),
    )


def code_form() -> rx.Component:
    return _widget(
        native_form(
            rx.el.input(type="hidden", name="next", value="/start", read_only=True),
            rx.el.input(type="hidden", name="back", value="/start", read_only=True),
            rx.el.input(
                type="hidden", name="email", value=OnboardingView.code_email, read_only=True
            ),
            rx.el.div(
                rx.el.label("Code from the mail", html_for="code"),
                rx.el.input(
                    id="code",
                    name="code",
                    input_mode="numeric",
                    auto_complete="one-time-code",
                    max_length=12,
                    required=True,
                    class_name="input code",
                ),
                class_name="field",
            ),
            rx.el.button(
                "That is my code", type="submit", id="confirm-code", class_name="button primary"
            ),
            action="/auth/code",
            class_name="stack",
        ),
        rx.el.button(
            "Use another address",
            on_click=OnboardingView.other_email,
            class_name="button quiet",
            type="button",
        ),
    )


def payment() -> rx.Component:
    return _widget(
        rx.el.button(
            rx.icon("lock", size=17, aria_hidden=True),
            rx.cond(OnboardingView.is_busy, "Opening…", "Go to the payment"),
            on_click=OnboardingView.pay,
            disabled=OnboardingView.is_busy,
            id="go-to-payment",
            class_name="button primary",
            type="button",
        ),
        rx.el.p("You pay on Stripe's page. We never see your card.", class_name="small"),
        _other_plan(),
    )


def happenings() -> rx.Component:
    return _widget(
        rx.el.ul(
            rx.foreach(OnboardingView.happenings, _happening),
            class_name="steps",
            id="happenings",
            aria_live="polite",
        ),
        rx.cond(
            OnboardingView.waiting_note != "",
            rx.el.p(
                rx.el.span("Waiting", class_name="status busy"),
                " ",
                rx.el.span(OnboardingView.waiting_note),
                id="queue",
                aria_live="polite",
            ),
            rx.cond(
                ~is_any(OnboardingView.happenings),
                rx.el.p(rx.el.span("Beginning", class_name="status busy")),
            ),
        ),
        rx.el.p(
            rx.cond(
                OnboardingView.waiting_note == "", "This usually takes less than a minute. ", ""
            ),
            "You may close the page; we mail you when it is ready.",
            class_name="small",
        ),
    )


def say_hello() -> rx.Component:
    return _widget(
        rx.el.a(
            rx.icon("send", size=18, aria_hidden=True),
            "Say hello to ",
            rx.el.span("@", OnboardingView.bot_name),
            href=OnboardingView.bot_link,
            target="_blank",
            rel="noopener",
            id="say-hello",
            class_name="button primary",
        ),
        rx.el.p(rx.el.span("Waiting for its first answer", class_name="status busy")),
        rx.el.p(rx.el.a("Go to my page", href="/home", class_name="link"), class_name="small"),
    )


def live() -> rx.Component:
    return _widget(
        notice(
            rx.el.b("Your assistant is live."),
            " It answered you as ",
            rx.el.b("@", OnboardingView.bot_name),
            ".",
            tone="success",
            icon="party-popper",
            id="live",
        ),
        rx.el.a("Go to my page", href="/home", class_name="button primary", id="go-home"),
    )


def failed() -> rx.Component:
    return _widget(
        rx.el.ul(rx.foreach(OnboardingView.happenings, _happening), class_name="steps"),
        rx.el.button(
            rx.icon("rotate-cw", size=17, aria_hidden=True),
            "Try again",
            on_click=OnboardingView.retry,
            class_name="button primary",
            type="button",
        ),
    )


def refunding() -> rx.Component:
    return _widget(
        rx.el.p(rx.el.span("Giving your money back", class_name="status busy"), id="refunding")
    )


def refunded() -> rx.Component:
    return _widget(
        notice(
            "We gave your money back. Your bank shows it within five to ten days.",
            tone="success",
            icon="undo-2",
            id="refunded",
        ),
        rx.el.a(
            "Begin anew", href="/start/begin?fresh=true", class_name="button quiet", id="begin-anew"
        ),
    )


def _happening(line: Row) -> rx.Component:
    return rx.el.li(
        rx.cond(
            line["tone"] == "busy",
            rx.icon("loader", size=18, class_name="wait-icon"),
            rx.icon("circle-check", size=18, class_name="ok-icon"),
        ),
        rx.el.span(line["text"]),
    )


def _other_bot() -> rx.Component:
    return rx.el.p(
        rx.el.button(
            "Use another bot",
            on_click=OnboardingView.other_bot,
            id="other-bot",
            class_name="button quiet",
            type="button",
        )
    )


def _other_plan() -> rx.Component:
    return rx.el.p(
        rx.el.button(
            "Choose another plan",
            on_click=OnboardingView.change_tier,
            class_name="button quiet",
            type="button",
        )
    )


def _widget(*children: rx.Component) -> rx.Component:
    return rx.el.div(*children, class_name="card stack loose widget")
