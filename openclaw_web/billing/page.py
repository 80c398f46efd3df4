"""What we sell and what it costs: the landing page."""

import reflex as rx

from openclaw_web.billing.tiers import Plan, plans
from openclaw_web.ui import format as fmt
from openclaw_web.ui.shell import public_shell

STEPS = (
    ("Say hi", "A short chat finds out what you want help with. No forms, no jargon."),
    ("Bring a bot", "Telegram gives you a bot in a minute. We show you how and check it live."),
    ("Pay and wait a moment", "We set up a private home for your assistant. You watch every step."),
    ("Talk to it", "Your assistant answers you on Telegram, day and night, and remembers."),
)
QUESTIONS = (
    (
        "What is OpenClaw?",
        (
            "An open-source personal assistant that lives in your chat apps. You can run it "
            "yourself; we run it for you, with a private space for each customer."
        ),
    ),
    (
        "What happens when my tokens are used up?",
        (
            "Your assistant says so politely in the chat and works again when the period "
            "turns or you upgrade. "
            "There is never an extra charge."
        ),
    ),
    (
        "How many tokens do I need?",
        (
            "A message costs roughly ten to twenty thousand tokens, because the assistant "
            "re-reads its tools and "
            "notes each time. Ten million are about a thousand messages."
        ),
    ),
    (
        "Who can read what I write?",
        (
            "Your messages live in your own box. Our token proxy counts tokens and stores no "
            "prompt and no answer."
        ),
    ),
)


def landing_page() -> rx.Component:
    return public_shell(_hero(), _how(), _pricing(), _questions())


def plan_features(plan: Plan) -> tuple[str, ...]:
    """Return what a plan gives, as sentences for a list."""
    people = "1 person" if plan.telegram_users == 1 else f"Up to {plan.telegram_users} people"
    return (
        f"{fmt.tokens_short(plan.tokens_limit)} tokens a month",
        f"{people} on Telegram",
        f"{plan.storage.removesuffix('Gi')} GB of memory that lasts",
        "A private box of its own",
    )


def _hero() -> rx.Component:
    return rx.el.section(
        rx.el.div(
            rx.el.h1("Your own assistant. Running in minutes."),
            rx.el.p(
                "OpenClaw answers you on Telegram, remembers what matters and gets things done. "
                "We run it for you: no server, no keys, no upkeep.",
                class_name="lead",
            ),
            rx.el.div(
                rx.el.a(
                    "Say hi",
                    rx.icon("arrow-right", size=18),
                    href="/start",
                    class_name="button primary large",
                ),
                rx.el.a("See prices", href="#pricing", class_name="button quiet large"),
                class_name="actions",
            ),
            rx.el.p(
                "Cancel any time. A hard limit on tokens, so there is no surprise on the bill.",
                class_name="promise",
            ),
        ),
        _preview(),
        class_name="hero",
    )


def _preview() -> rx.Component:
    lines = (
        ("them", "Can you plan Saturday around the rain?"),
        (
            "us",
            (
                "It is dry until two. Market at ten, lunch at Rosa's, then the museum. Shall "
                "I book the table?"
            ),
        ),
        ("them", "Yes, for three"),
        ("us", "Done: 12:30, a table for three. I will remind you at noon."),
    )
    return rx.el.div(
        rx.el.div(
            rx.el.img(src="/logo.svg", alt="", width="36", height="36"),
            rx.el.div(
                rx.el.p("Your assistant", class_name="heading"),
                rx.el.p("on Telegram", class_name="small"),
            ),
            class_name="peer",
        ),
        *(rx.el.div(text, class_name=f"bubble {side}") for side, text in lines),
        class_name="preview",
        role="img",
        aria_label="An example of a chat with the assistant",
    )


def _how() -> rx.Component:
    return rx.el.section(
        rx.el.h2("From hi to an answer"),
        rx.el.p(
            (
                "One chat in your browser is all it takes. Close the tab at any moment; "
                "nothing is lost."
            ),
            class_name="subtitle",
        ),
        rx.el.div(
            *(
                rx.el.div(
                    rx.el.span(str(number), class_name="step-number", aria_hidden="true"),
                    rx.el.h3(name, class_name="heading"),
                    rx.el.p(sentence, class_name="small"),
                    class_name="card stack",
                )
                for number, (name, sentence) in enumerate(STEPS, start=1)
            ),
            class_name="grid-4",
        ),
        id="how",
        class_name="section",
    )


def _pricing() -> rx.Component:
    return rx.el.section(
        rx.el.h2("Three plans, one promise"),
        rx.el.p(
            "The limit is a limit: you never pay more than the price you see.",
            class_name="subtitle",
        ),
        rx.el.div(*(_plan(plan) for plan in plans()), class_name="grid-3"),
        rx.el.p(
            rx.el.a("Compare the plans in full", href="/pricing", class_name="link"),
            class_name="below",
        ),
        id="pricing",
        class_name="section",
    )


def _plan(plan: Plan) -> rx.Component:
    is_featured = plan.tier == "pro"
    return rx.el.div(
        rx.el.div(
            rx.el.h3(plan.name, class_name="heading"),
            rx.el.span("For work and long texts", class_name="tag")
            if is_featured
            else rx.fragment(),
            class_name="row between",
        ),
        rx.el.p(
            rx.el.span(fmt.money(plan.price_cents, plan.currency), class_name="price numbers"),
            rx.el.span(" a month", class_name="small"),
        ),
        rx.el.ul(
            *(
                rx.el.li(rx.icon("check", size=17, aria_hidden=True), rx.el.span(feature))
                for feature in plan_features(plan)
            )
        ),
        rx.el.a(
            f"Start with {plan.name}",
            href=f"/start?tier={plan.tier}",
            class_name="button primary" if is_featured else "button quiet",
        ),
        class_name="card plan featured" if is_featured else "card plan",
    )


def _questions() -> rx.Component:
    return rx.el.section(
        rx.el.h2("Good questions"),
        rx.el.p("Short answers to what people ask first.", class_name="subtitle"),
        rx.el.div(
            *(
                rx.el.div(
                    rx.el.h3(question, class_name="heading"),
                    rx.el.p(answer, class_name="small", style={"fontSize": "14.5px"}),
                    class_name="card stack",
                )
                for question, answer in QUESTIONS
            ),
            class_name="grid-2",
        ),
        class_name="section",
    )
