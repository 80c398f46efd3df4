"""The admin's page of the meters: do they agree, what was set right, what was refused."""

import reflex as rx

from openclaw_web.admin.usage.state import AdminUsageState
from openclaw_web.ui.badges import empty, notice, skeleton, status_badge
from openclaw_web.ui.shell import admin_shell, page_title
from openclaw_web.ui.values import Row, is_any

REFRESH_MS = 5_000


def usage_page() -> rx.Component:
    return admin_shell(
        "/admin/usage",
        AdminUsageState.email,
        page_title("Meters", "Do events, days, months and counters agree, and is all counted?"),
        rx.cond(
            AdminUsageState.error != "",
            notice(AdminUsageState.error, tone="error", icon="circle-alert"),
        ),
        rx.cond(AdminUsageState.is_loaded, _content(), skeleton(110, 260, 220)),
        rx.el.div(
            rx.moment(interval=REFRESH_MS, on_change=AdminUsageState.refresh),
            class_name="visually-hidden",
            aria_hidden="true",
        ),
    )


def _content() -> rx.Component:
    return rx.el.div(
        rx.el.div(rx.foreach(AdminUsageState.figures, _figure), class_name="grid-4"),
        _rejects(),
        _meters(),
        class_name="stack loose",
    )


def _figure(figure: Row) -> rx.Component:
    return rx.el.div(
        rx.el.p(figure["name"], class_name="small"),
        rx.el.p(figure["value"], class_name="figure-value"),
        rx.el.p(figure["note"], class_name="small"),
        class_name="card stack",
        style={"gap": "6px"},
    )


def _rejects() -> rx.Component:
    head = ("Customer", "Tokens", "Why the ledger refused it", "Waits since", "")
    return rx.el.section(
        rx.el.h2("Refused events", class_name="heading", style={"padding": "16px"}),
        rx.cond(
            is_any(AdminUsageState.rejects),
            rx.el.div(
                rx.el.table(
                    rx.el.thead(rx.el.tr(*(rx.el.th(name) for name in head))),
                    rx.el.tbody(rx.foreach(AdminUsageState.rejects, _reject)),
                    class_name="table",
                    id="rejects",
                ),
                class_name="table-scroll",
            ),
            empty("circle-check", "Nothing was refused", "Every answered request is counted."),
        ),
        class_name="card tight",
    )


def _reject(row: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(row["customer"], class_name="strong", title=row["request_id"]),
        rx.el.td(
            rx.el.span(row["tokens"], class_name="numbers"),
            rx.el.br(),
            rx.el.span(row["model"], class_name="small"),
        ),
        rx.el.td(row["reason"], class_name="small prose"),
        rx.el.td(
            row["age"],
            rx.cond(row["tries"] != "", rx.el.p(row["tries"], class_name="small")),
        ),
        rx.el.td(
            rx.cond(
                AdminUsageState.may_act,
                rx.cond(AdminUsageState.chosen == row["id"], _why(), _acts(row)),
            )
        ),
        key=row["id"],
    )


def _acts(row: Row) -> rx.Component:
    return rx.el.div(
        rx.el.button(
            "Try again",
            on_click=AdminUsageState.retry(row["id"]),
            class_name="button quiet small-button",
            type="button",
        ),
        rx.el.button(
            "Set aside",
            on_click=AdminUsageState.choose(row["id"]),
            class_name="button quiet small-button",
            type="button",
        ),
        class_name="row",
    )


def _why() -> rx.Component:
    return rx.el.div(
        rx.el.label("Why is it set aside?", html_for="reason", class_name="visually-hidden"),
        rx.debounce_input(
            rx.el.input(
                id="reason",
                placeholder="Why is it set aside?",
                value=AdminUsageState.reason,
                on_change=AdminUsageState.set_reason,
                class_name="input",
                style={"minWidth": "180px"},
            ),
            debounce_timeout=250,
        ),
        rx.el.div(
            rx.el.button(
                "Set aside",
                on_click=AdminUsageState.set_aside,
                disabled=AdminUsageState.reason == "",
                class_name="button danger small-button",
                type="button",
            ),
            rx.el.button(
                "Keep it",
                on_click=AdminUsageState.choose(""),
                class_name="button quiet small-button",
                type="button",
            ),
            class_name="row",
        ),
        class_name="stack",
        style={"gap": "8px"},
    )


def _meters() -> rx.Component:
    head = ("Customer", "Period of", "Tokens", "Events, days, month", "Set right", "Checked")
    return rx.el.section(
        rx.el.h2("Meters to look at", class_name="heading", style={"padding": "16px"}),
        rx.cond(
            is_any(AdminUsageState.meters),
            rx.el.div(
                rx.el.table(
                    rx.el.thead(rx.el.tr(*(rx.el.th(name) for name in head))),
                    rx.el.tbody(rx.foreach(AdminUsageState.meters, _meter)),
                    class_name="table",
                    id="meters",
                ),
                class_name="table-scroll",
            ),
            empty(
                "gauge",
                "No difference found",
                "What differs from the ledger, or was set right in the last 30 days, is here.",
            ),
        ),
        class_name="card tight",
    )


def _meter(row: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(row["customer"], class_name="strong"),
        rx.el.td(row["period"]),
        rx.el.td(row["tokens"], class_name="numbers"),
        rx.el.td(status_badge(row["verdict"], row["tone"])),
        rx.el.td(row["repairs"]),
        rx.el.td(row["checked"]),
        key=row["id"],
    )
