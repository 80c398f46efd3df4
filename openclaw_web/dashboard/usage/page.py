"""The page of the meter: how much is used, day by day and request by request."""

import reflex as rx

from openclaw_web.dashboard.components import error_notice, period_card, refreshed_by
from openclaw_web.dashboard.usage.state import UsageState
from openclaw_web.ui import charts
from openclaw_web.ui.badges import empty, notice, skeleton
from openclaw_web.ui.shell import card, customer_shell, page_title
from openclaw_web.ui.values import Row, is_any

EXPORT = "/usage/export.csv"


def usage_page() -> rx.Component:
    return customer_shell(
        "/usage",
        UsageState.email,
        page_title("Usage", "Every token that your assistant used, request by request."),
        error_notice(UsageState.error),
        rx.cond(
            UsageState.is_loaded,
            rx.el.div(
                _banner(),
                period_card(UsageState),
                _chart_card(),
                _events_card(),
                _sums_card(),
                class_name="stack loose",
            ),
            skeleton(120, 280, 220),
        ),
        refreshed_by(UsageState.refresh),
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
        rx.el.div(
            rx.el.h2("Requests", class_name="heading"),
            rx.cond(
                UsageState.has_events,
                rx.el.a(
                    rx.icon("download", size=17, aria_hidden=True),
                    "All of this period as CSV",
                    href=EXPORT,
                    download=True,
                    id="export",
                    class_name="button quiet",
                ),
            ),
            class_name="row between wrap",
            style={"padding": "16px"},
        ),
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
                id="sums",
            ),
            rx.cond(
                UsageState.sums_agree,
                rx.el.div(
                    rx.icon("circle-check", size=19, class_name="ok-icon", aria_hidden=True),
                    rx.el.div(
                        rx.el.p(UsageState.checked, class_name="strong", id="checked"),
                        rx.el.p(UsageState.checked_note, class_name="small"),
                    ),
                    class_name="row",
                ),
                notice(
                    "These do not agree. We were told and are looking into it. What you are "
                    "charged does not depend on it.",
                    tone="warning",
                    icon="triangle-alert",
                ),
            ),
            heading="Events, days, month and counter agree?",
        ),
    )


def _banner() -> rx.Component:
    return rx.cond(
        UsageState.banner != "",
        rx.fragment(
            rx.match(
                UsageState.banner_tone,
                ("error", notice(UsageState.banner, tone="error", icon="circle-alert")),
                ("warning", notice(UsageState.banner, tone="warning", icon="triangle-alert")),
                notice(UsageState.banner),
            )
        ),
    )
