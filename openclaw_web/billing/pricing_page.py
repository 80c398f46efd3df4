"""The public page of prices: three plans side by side, and what people ask about them."""

import reflex as rx

from openclaw_web.accounts.state import AuthState
from openclaw_web.billing.keeping import GRACE, KEPT_AFTER_END
from openclaw_web.billing.pricing_state import PricingView
from openclaw_web.billing.records import DELIVERY_PROMISE
from openclaw_web.billing.tiers import Plan, plans
from openclaw_web.ui import format as fmt
from openclaw_web.ui.shell import public_shell

DESCRIPTION = (
    "Three plans for your own OpenClaw assistant, with a hard limit on tokens: you never pay more "
    "than the price you see."
)
FEATURED = "pro"
FOR_WHOM = {
    "starter": "For one person and everyday questions",
    "pro": "For work, long texts and a small family",
    "team": "For a team that shares one assistant",
}
TOKENS_OF_A_MESSAGE = 10_000  # measured: an agent re-reads its tools and notes each time
HOURS = int(DELIVERY_PROMISE.total_seconds() // 3600)
QUESTIONS = (
    (
        "What happens at the limit?",
        (
            "Your assistant says so politely in the chat and answers again when your month "
            "turns, or at once when you upgrade. There is never an extra charge. We write to "
            "you at 75, 90 and 100 percent."
        ),
    ),
    (
        "Can I change my plan?",
        (
            "At any time. A bigger plan begins at once with all of its tokens, and what is "
            "left of the month that you have paid for is taken off. A smaller one begins with "
            "your next month. You see the exact price before you decide."
        ),
    ),
    (
        "How do I cancel?",
        (
            "With two clicks on your billing page. Your assistant works until the paid month "
            f"ends and you are not charged again; its memory is kept for {KEPT_AFTER_END.days} "
            "more days, in case you come back."
        ),
    ),
    (
        "What if my card fails?",
        (
            f"Your assistant keeps working for {GRACE.days} days while we remind you. After "
            "that it is paused with its memory intact, and goes on within moments once the "
            "payment arrives."
        ),
    ),
    (
        "Do I get my money back?",
        (
            f"If we cannot get your assistant to run within {HOURS} hours after you paid, you "
            "get the full amount back by itself."
        ),
    ),
    (
        "What is a token?",
        (
            "A piece of a word. A message costs ten to twenty thousand of them, because the "
            "assistant re-reads its tools and notes each time. Your usage page lists every "
            "single request."
        ),
    ),
)


def pricing_page() -> rx.Component:
    return public_shell(
        rx.el.section(
            rx.el.h1("Three plans, one promise", class_name="page-heading"),
            rx.el.p(
                "The limit is a limit: you never pay more than the price you see.",
                class_name="subtitle",
            ),
            rx.el.div(*(_plan(plan) for plan in plans()), class_name="grid-3"),
            class_name="section pricing-top",
        ),
        _comparison(),
        _questions(),
        is_signed_in=AuthState.is_signed_in,
    )


def _plan(plan: Plan) -> rx.Component:
    is_mine = PricingView.tier == plan.tier.value
    is_featured = plan.tier == FEATURED
    return rx.el.div(
        rx.el.div(
            rx.el.h2(plan.name, class_name="heading"),
            rx.cond(is_mine, rx.el.span("Your plan", class_name="tag")),
            class_name="row between",
        ),
        rx.el.p(FOR_WHOM[plan.tier], class_name="small"),
        rx.el.p(
            rx.el.span(fmt.money(plan.price_cents, plan.currency), class_name="price numbers"),
            rx.el.span(" a month", class_name="small"),
        ),
        rx.el.p(
            rx.el.span(f"{fmt.tokens_short(plan.tokens_limit)} tokens", class_name="strong"),
            rx.el.br(),
            rx.el.span(f"up to {_messages(plan)} messages a month", class_name="small"),
        ),
        rx.cond(
            PricingView.tier == "",
            rx.el.a(
                f"Start with {plan.name}",
                href=f"/start?tier={plan.tier}",
                class_name="button primary" if is_featured else "button quiet",
            ),
            rx.el.a(
                rx.cond(is_mine, "See your billing page", f"Change to {plan.name}"),
                href="/billing",
                class_name="button primary" if is_featured else "button quiet",
            ),
        ),
        class_name="card plan featured" if is_featured else "card plan",
    )


def _comparison() -> rx.Component:
    rows = (
        ("Price a month", [fmt.money(plan.price_cents, plan.currency) for plan in plans()]),
        ("Tokens a month", [fmt.tokens(plan.tokens_limit) for plan in plans()]),
        ("People on Telegram", [str(plan.telegram_users) for plan in plans()]),
        ("Memory that lasts", [f"{plan.storage.removesuffix('Gi')} GB" for plan in plans()]),
        ("Models", [_models(plan) for plan in plans()]),
        ("Requests at the same time", [str(plan.parallel_requests) for plan in plans()]),
        ("Tokens a minute", [fmt.tokens(plan.tokens_per_minute) for plan in plans()]),
        ("Computer of its own", [_computer(plan) for plan in plans()]),
        ("API access for your programs", [_yes() for _ in plans()]),
    )
    return rx.el.section(
        rx.el.h2("What each plan gives"),
        rx.el.p("Everything side by side; nothing is hidden in a footnote.", class_name="subtitle"),
        rx.el.div(
            rx.el.div(
                rx.el.table(
                    rx.el.thead(
                        rx.el.tr(
                            rx.el.th(rx.el.span("What", class_name="visually-hidden")),
                            *(rx.el.th(plan.name, scope="col") for plan in plans()),
                        )
                    ),
                    rx.el.tbody(
                        *(
                            rx.el.tr(
                                rx.el.th(name, scope="row"),
                                *(rx.el.td(value) for value in values),
                            )
                            for name, values in rows
                        )
                    ),
                    class_name="table comparison",
                    id="comparison",
                ),
                class_name="table-scroll",
                tab_index=0,
                role="region",
                aria_label="The plans compared",
            ),
            class_name="card tight",
        ),
        class_name="section",
    )


def _questions() -> rx.Component:
    return rx.el.section(
        rx.el.h2("Good questions"),
        rx.el.p("About limits, changes, leaving and money.", class_name="subtitle"),
        rx.el.div(
            *(
                rx.el.div(
                    rx.el.h3(question, class_name="heading"),
                    rx.el.p(answer, class_name="answer"),
                    class_name="card stack",
                )
                for question, answer in QUESTIONS
            ),
            class_name="grid-2",
        ),
        class_name="section",
    )


def _messages(plan: Plan) -> str:
    return fmt.tokens(plan.tokens_limit // TOKENS_OF_A_MESSAGE)


def _models(plan: Plan) -> rx.Component:
    return rx.el.span(*(rx.el.span(model, class_name="model") for model in plan.models))


def _computer(plan: Plan) -> str:
    processors = "1 processor" if plan.cpu_limit == "1" else f"{plan.cpu_limit} processors"
    return f"{processors}, {plan.memory_limit.removesuffix('Gi')} GB"


def _yes() -> rx.Component:
    return rx.icon("check", size=18, class_name="ok-icon", aria_label="yes")
