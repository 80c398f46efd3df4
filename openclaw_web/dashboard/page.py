"""A customer's first page: is it answering."""

import reflex as rx

from openclaw_web.dashboard.components import (
    error_notice,
    incident_notice,
    no_assistant,
    period_card,
    refreshed_by,
    state_icon,
)
from openclaw_web.dashboard.state import HomeState
from openclaw_web.ui.badges import notice, skeleton, status_badge
from openclaw_web.ui.shell import card, customer_shell, page_title
from openclaw_web.ui.values import Row, is_any


def home_page() -> rx.Component:
    return customer_shell(
        "/home",
        HomeState.email,
        page_title("Your assistant", "Whether it answers, and what happens next."),
        error_notice(HomeState.error),
        incident_notice(HomeState.incident_note),
        rx.cond(HomeState.promise_note != "", _promise_notice()),
        rx.cond(
            HomeState.is_loaded,
            rx.cond(
                HomeState.has_box,
                _home_with_box(),
                no_assistant("A short chat sets one up; it takes about three minutes."),
            ),
            skeleton(150, 110, 180),
        ),
        refreshed_by(HomeState.refresh),
    )


def _home_with_box() -> rx.Component:
    return rx.el.div(
        rx.cond(HomeState.payment_note != "", _payment_notice()),
        rx.cond(HomeState.memory_lost != "", _memory_notice()),
        card(
            rx.el.div(
                status_badge(HomeState.status, HomeState.status_tone),
                rx.el.span(HomeState.since, class_name="small"),
                class_name="row wrap",
            ),
            rx.el.p(
                HomeState.sentence, class_name="heading", id="box-sentence", aria_live="polite"
            ),
            rx.cond(
                HomeState.queue_note != "",
                rx.el.p(HomeState.queue_note, class_name="small", id="queue", aria_live="polite"),
            ),
            rx.cond(
                HomeState.bot_link != "",
                rx.el.div(
                    rx.el.a(
                        rx.icon("send", size=17, aria_hidden=True),
                        "Open ",
                        rx.el.span("@", HomeState.bot_name),
                        href=HomeState.bot_link,
                        target="_blank",
                        rel="noopener",
                        class_name="button primary",
                    ),
                    class_name="row",
                ),
            ),
        ),
        period_card(HomeState),
        rx.el.div(
            card(
                rx.el.ul(rx.foreach(HomeState.links, _link), class_name="links-list"),
                heading="From you to the model",
            ),
            card(
                rx.cond(
                    is_any(HomeState.story),
                    rx.el.ul(rx.foreach(HomeState.story, _happening), class_name="timeline"),
                    rx.el.p("Nothing happened yet.", class_name="small"),
                ),
                heading="What happened",
            ),
            class_name="grid-2",
        ),
        card(
            rx.el.div(
                rx.el.div(
                    rx.el.p(HomeState.plan, class_name="heading"),
                    rx.el.p(HomeState.renews, class_name="small"),
                ),
                rx.el.a(
                    "Plan, card and invoices",
                    href="/billing",
                    id="to-billing",
                    class_name="button quiet",
                ),
                class_name="row between wrap",
            ),
            heading="Your plan",
        ),
        class_name="stack loose",
    )


def _payment_notice() -> rx.Component:
    return notice(
        rx.el.p(HomeState.payment_note),
        rx.el.a("Fix your card", href="/billing", class_name="button primary small-button"),
        tone="warning",
        icon="triangle-alert",
        id="payment-overdue",
    )


def _promise_notice() -> rx.Component:
    return notice(rx.el.p(HomeState.promise_note), tone="warning", icon="life-buoy", id="promise")


def _memory_notice() -> rx.Component:
    return notice(
        rx.el.p(
            rx.el.b("Its memory was lost"),
            " when its place in the cluster was deleted, on ",
            HomeState.memory_lost,
            ". It starts afresh and knows nothing of your earlier talks.",
        ),
        rx.el.button(
            "I have read this",
            on_click=HomeState.dismiss_memory_notice,
            class_name="button quiet",
            type="button",
            style={"marginTop": "10px"},
        ),
        tone="warning",
        icon="triangle-alert",
        id="memory-lost",
    )


def _link(link: Row) -> rx.Component:
    return rx.el.li(
        state_icon(link["state"]),
        rx.el.span(
            rx.el.span(link["name"], class_name="strong"),
            rx.el.br(),
            rx.el.span(link["sentence"], class_name="small"),
        ),
    )


def _happening(line: Row) -> rx.Component:
    return rx.el.li(
        rx.el.span(line["text"]),
        rx.el.time(line["when"]),
        class_name=line["tone"],
    )
