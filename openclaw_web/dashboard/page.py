"""A customer's pages: is it answering, and what did it use."""

import reflex as rx

from openclaw_web.dashboard.state import HomeState, UsageState, UsageStrip
from openclaw_web.ui import charts
from openclaw_web.ui.badges import empty, meter, notice, skeleton, status_badge
from openclaw_web.ui.shell import card, customer_shell, page_title
from openclaw_web.ui.values import Row, Text, is_any

REFRESH_MS = 3_000


def home_page() -> rx.Component:
    return customer_shell(
        "/home",
        HomeState.email,
        page_title("Your assistant", "Whether it answers, and what happens next."),
        _error(HomeState.error),
        rx.cond(
            HomeState.is_loaded,
            rx.cond(HomeState.has_box, _home_with_box(), _home_without_box()),
            skeleton(150, 110, 180),
        ),
        _refresh(HomeState.refresh),
    )


def usage_page() -> rx.Component:
    return customer_shell(
        "/usage",
        UsageState.email,
        page_title("Usage", "Every token that your assistant used, request by request."),
        _error(UsageState.error),
        rx.cond(
            UsageState.is_loaded,
            rx.el.div(
                _period_card(UsageState),
                _chart_card(),
                _events_card(),
                _sums_card(),
                class_name="stack loose",
            ),
            skeleton(120, 280, 220),
        ),
        _refresh(UsageState.refresh),
    )


def _home_with_box() -> rx.Component:
    return rx.el.div(
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
        _period_card(HomeState),
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
                rx.el.button(
                    "Card and invoices",
                    on_click=HomeState.open_portal,
                    id="open-portal",
                    class_name="button quiet",
                    type="button",
                ),
                class_name="row between wrap",
            ),
            heading="Your plan",
        ),
        class_name="stack loose",
    )


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


def _home_without_box() -> rx.Component:
    return card(
        empty(
            "message-circle",
            "You have no assistant yet",
            "A short chat sets one up; it takes about three minutes.",
            rx.el.a("Say hi", href="/start", class_name="button primary"),
        )
    )


def _period_card(state: type[UsageStrip]) -> rx.Component:
    return card(
        rx.cond(
            state.has_period,
            rx.el.div(
                rx.el.div(
                    rx.el.div(
                        rx.el.p("Used in this period", class_name="small"),
                        rx.el.p(
                            rx.el.span(state.used, id="tokens-used"), class_name="figure-value"
                        ),
                        rx.el.p(
                            "of ",
                            rx.el.span(state.limit, class_name="numbers"),
                            " tokens",
                            class_name="small",
                        ),
                    ),
                    rx.el.div(
                        rx.el.p("Left", class_name="small"),
                        rx.el.p(state.left, class_name="figure-value"),
                        rx.el.p("resets on ", state.resets, class_name="small"),
                    ),
                    class_name="grid-2",
                ),
                meter(state.percent, state.tone, "Tokens used in this period"),
                rx.el.p(state.outlook, class_name="small"),
                class_name="stack",
            ),
            rx.el.p(
                "No billing period is running, so nothing is being counted.", class_name="small"
            ),
        )
    )


def _chart_card() -> rx.Component:
    return card(charts.daily_tokens(UsageState.days), heading="Tokens a day, last 30 days (UTC)")


def _events_card() -> rx.Component:
    columns = (
        ("When", ""),
        ("Model", ""),
        ("Sent", "number"),
        ("Answered", "number"),
        ("Total", "number"),
        ("Took", "number"),
    )
    return rx.el.section(
        rx.cond(
            UsageState.has_events,
            rx.el.div(
                rx.el.table(
                    rx.el.thead(
                        rx.el.tr(*(rx.el.th(name, class_name=kind) for name, kind in columns))
                    ),
                    rx.el.tbody(rx.foreach(UsageState.events, _event)),
                    class_name="table",
                    id="events",
                ),
                class_name="table-scroll",
            ),
            empty(
                "message-circle",
                "No requests yet",
                "Write to your assistant; each request shows up here within a second.",
            ),
        ),
        class_name="card tight",
        aria_label="Requests",
    )


def _event(event: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(event["when"]),
        rx.el.td(
            event["model"],
            rx.cond(event["note"] != "", rx.el.span(" ", event["note"], class_name="small")),
        ),
        rx.el.td(event["prompt"], class_name="number"),
        rx.el.td(event["completion"], class_name="number"),
        rx.el.td(event["total"], class_name="number strong"),
        rx.el.td(event["time"], class_name="number"),
        key=event["id"],
    )


def _sums_card() -> rx.Component:
    return rx.cond(
        is_any(UsageState.sums),
        card(
            rx.el.ul(
                rx.foreach(
                    UsageState.sums,
                    lambda line: rx.el.li(
                        rx.el.span(line["name"], class_name="grow"),
                        rx.el.span(line["tokens"], class_name="numbers strong"),
                    ),
                ),
                class_name="links-list",
            ),
            rx.cond(
                UsageState.sums_agree,
                rx.el.p("All three agree, to the token.", class_name="small"),
                notice("These do not agree. We were told and are looking into it.", tone="warning"),
            ),
            heading="Check the meter",
        ),
    )


def _link(link: Row) -> rx.Component:
    return rx.el.li(
        rx.match(
            link["state"],
            ("ok", rx.icon("circle-check", size=19, class_name="ok-icon", aria_label="works")),
            (
                "bad",
                rx.icon("circle-x", size=19, class_name="bad-icon", aria_label="does not work"),
            ),
            rx.icon("circle-dashed", size=19, class_name="wait-icon", aria_label="not known yet"),
        ),
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


def _error(sentence: Text) -> rx.Component:
    return rx.cond(sentence != "", notice(sentence, tone="error", icon="circle-alert"))


def _refresh(handler: rx.event.EventCallback[str]) -> rx.Component:
    """Look again every few seconds for as long as the page is open."""
    return rx.el.div(
        rx.moment(interval=REFRESH_MS, on_change=handler),
        class_name="visually-hidden",
        aria_hidden="true",
    )
