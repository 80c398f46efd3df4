"""The admin's overview: figures, what needs a hand, customers with their boxes, jobs."""

import reflex as rx

from openclaw_web.accounts.models import Role
from openclaw_web.admin.acts import LONGEST_REASON, AdminActs
from openclaw_web.admin.state import AdminState
from openclaw_web.ui.badges import empty, notice, skeleton, status_badge
from openclaw_web.ui.shell import admin_shell, page_title
from openclaw_web.ui.values import Row, is_any
from openclaw_web.workflows.operations import SHORTEST_REASON

REFRESH_MS = 5_000
ACTS_ON_JOBS = (("retry", "Try again"), ("cancel", "Cancel"), ("release", "Take away"))
ACTS_ON_BOXES = (
    ("check", "Look at it now"),
    ("converge", "Apply everything again"),
    ("restart", "Restart"),
    ("rotate", "New token"),
)


def overview_page() -> rx.Component:
    return admin_shell(
        "/admin",
        AdminState.email,
        page_title("Overview", "Is the business well, and who needs a hand?"),
        rx.cond(
            AdminState.error != "", notice(AdminState.error, tone="error", icon="circle-alert")
        ),
        rx.cond(AdminState.is_loaded, _content(), skeleton(110, 300, 220)),
        rx.el.div(
            rx.moment(interval=REFRESH_MS, on_change=AdminState.refresh),
            class_name="visually-hidden",
            aria_hidden="true",
        ),
    )


def _content() -> rx.Component:
    return rx.el.div(
        rx.el.div(rx.foreach(AdminState.figures, _figure), class_name="grid-4"),
        rx.foreach(AdminState.alerts, _alert),
        _customers(),
        _jobs(),
        _margins(),
        _question(),
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


def _alert(alert: Row) -> rx.Component:
    return notice(
        rx.el.p(rx.el.b(alert["code"]), " · ", alert["subject"], " · ", alert["since"]),
        rx.el.p(alert["detail"]),
        rx.cond(
            (AdminState.role == Role.ADMIN.value) & (alert["may"] == "give_up"),
            rx.el.button(
                "Delete without a backup",
                on_click=AdminActs.ask("give_up", alert["id"], alert["subject"]),
                class_name="button quiet small-button",
                type="button",
            ),
        ),
        rx.cond(
            AdminState.role == Role.ADMIN.value,
            rx.el.div(
                rx.cond(
                    alert["answer"] != "",
                    rx.el.button(
                        alert["answer"],
                        on_click=AdminActs.ask("answer", alert["id"], alert["code"]),
                        class_name="button small-button",
                        type="button",
                    ),
                ),
                rx.el.button(
                    "Close",
                    rx.el.span(" ", alert["code"], class_name="visually-hidden"),
                    on_click=AdminActs.ask("resolve", alert["id"], alert["code"]),
                    class_name="button quiet small-button",
                    type="button",
                ),
                class_name="row",
                style={"gap": "8px"},
            ),
        ),
        tone="warning",
        icon="triangle-alert",
    )


def _customers() -> rx.Component:
    head = (
        *("Customer", "Plan", "Subscription", "Box", "Namespace", "Tokens this period", "Since"),
        rx.el.span("What to do", class_name="visually-hidden"),
    )
    return rx.el.section(
        rx.el.div(
            rx.el.h2("Customers and their boxes", class_name="heading"),
            rx.el.div(
                rx.el.label("Search customers", html_for="search", class_name="visually-hidden"),
                rx.debounce_input(
                    rx.el.input(
                        id="search",
                        placeholder="Search e-mail or namespace",
                        value=AdminState.search,
                        on_change=AdminState.look_for,
                        class_name="input",
                    ),
                    debounce_timeout=250,
                ),
            ),
            class_name="row between wrap",
            style={"padding": "16px"},
        ),
        rx.cond(
            is_any(AdminState.customers),
            rx.el.div(
                rx.el.table(
                    rx.el.thead(rx.el.tr(*(rx.el.th(name) for name in head))),
                    rx.el.tbody(rx.foreach(AdminState.customers, _customer)),
                    class_name="table",
                    id="customers",
                ),
                class_name="table-scroll",
            ),
            empty("users", "Nobody here", "No customer fits, or nobody signed up yet."),
        ),
        class_name="card tight",
    )


def _customer(row: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(row["email"], class_name="strong"),
        rx.el.td(row["tier"]),
        rx.el.td(row["subscription"]),
        rx.el.td(status_badge(row["box"], row["box_tone"]), title=row["reason"]),
        rx.el.td(rx.el.span(row["namespace"], class_name="mono")),
        rx.el.td(row["used"], class_name="numbers"),
        rx.el.td(row["joined"]),
        rx.el.td(rx.cond(AdminState.role == Role.ADMIN.value, _box_menu(row))),
        key=row["id"],
    )


def _box_menu(row: Row) -> rx.Component:
    return rx.cond(
        row["may"] != "",
        rx.dropdown_menu.root(
            rx.dropdown_menu.trigger(
                rx.el.button(
                    rx.icon("ellipsis", size=18, aria_hidden=True),
                    rx.el.span("Assistant of ", row["email"], class_name="visually-hidden"),
                    class_name="button quiet small-button",
                    type="button",
                ),
            ),
            rx.dropdown_menu.content(
                *(
                    rx.cond(
                        row["may"].contains(act),
                        rx.dropdown_menu.item(
                            label, on_select=AdminActs.ask(act, row["box_id"], row["email"])
                        ),
                    )
                    for act, label in ACTS_ON_BOXES
                ),
                variant="soft",
            ),
        ),
    )


def _jobs() -> rx.Component:
    head = ("Job", "Status", "Customer", "Attempt", "Last word", "Asked for", "What to do")
    return rx.el.section(
        rx.el.h2("Newest jobs", class_name="heading", style={"padding": "16px"}),
        rx.cond(
            is_any(AdminState.jobs),
            rx.el.div(
                rx.el.table(
                    rx.el.thead(rx.el.tr(*(rx.el.th(name) for name in head))),
                    rx.el.tbody(rx.foreach(AdminState.jobs, _job)),
                    class_name="table",
                    id="jobs",
                ),
                class_name="table-scroll",
            ),
            empty("list-checks", "No jobs yet", "The operator's work shows up here."),
        ),
        class_name="card tight",
    )


def _job(row: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(row["type"], class_name="strong"),
        rx.el.td(status_badge(row["status"], row["tone"])),
        rx.el.td(row["customer"]),
        rx.el.td(row["attempt"], class_name="numbers"),
        rx.el.td(row["note"], class_name="small prose"),
        rx.el.td(row["when"]),
        rx.el.td(
            rx.cond(
                AdminState.role == Role.ADMIN.value,
                rx.el.div(
                    *(_act(row, *one) for one in ACTS_ON_JOBS),
                    class_name="row",
                    style={"gap": "8px"},
                ),
            )
        ),
        key=row["id"],
    )


def _act(row: Row, act: str, label: str) -> rx.Component:
    return rx.cond(
        row["may"].contains(act),
        rx.el.button(
            label,
            rx.el.span(" ", row["type"], " of ", row["customer"], class_name="visually-hidden"),
            on_click=AdminActs.ask(act, row["id"], f"{row['type']} · {row['customer']}"),
            class_name="button quiet small-button",
            type="button",
        ),
    )


def _question() -> rx.Component:
    return rx.alert_dialog.root(
        rx.alert_dialog.content(
            rx.alert_dialog.title(AdminActs.title, class_name="heading"),
            rx.alert_dialog.description(AdminActs.sentence, class_name="subtitle"),
            rx.el.form(
                rx.el.p(AdminActs.about, class_name="strong-text"),
                rx.el.div(
                    rx.el.label("Why?", html_for="reason"),
                    rx.el.input(
                        id="reason",
                        name="reason",
                        required=True,
                        min_length=SHORTEST_REASON,
                        max_length=LONGEST_REASON,
                        auto_complete="off",
                        placeholder="It is written down with your name",
                        class_name="input",
                    ),
                    class_name="field",
                ),
                rx.cond(
                    AdminActs.problem != "",
                    notice(AdminActs.problem, tone="error", icon="circle-alert"),
                ),
                rx.el.div(
                    rx.el.button(
                        "Not now",
                        on_click=AdminActs.stop_asking(False),
                        class_name="button quiet",
                        type="button",
                    ),
                    rx.el.button("Do it", class_name="button primary", type="submit", id="do-it"),
                    class_name="row dialog-buttons",
                ),
                on_submit=AdminActs.confirm,
                class_name="stack",
                style={"marginTop": "14px"},
            ),
            max_width="460px",
        ),
        open=AdminActs.is_asking,
        on_open_change=AdminActs.stop_asking,
    )


def _margins() -> rx.Component:
    head = (
        ("Plan", ""),
        ("Price", "number"),
        ("90 % cache hits", "number"),
        ("50 %", "number"),
        ("0 %", "number"),
    )
    return rx.el.section(
        rx.el.div(
            rx.el.h2("Margin of a fully used month", class_name="heading"),
            rx.el.p(
                "What is left of the price after tokens and pod, by the list prices of the model "
                "that answers today. One token in a hundred is output.",
                class_name="small",
            ),
            style={"padding": "16px"},
        ),
        rx.el.div(
            rx.el.table(
                rx.el.thead(rx.el.tr(*(rx.el.th(name, class_name=kind) for name, kind in head))),
                rx.el.tbody(rx.foreach(AdminState.margins, _margin)),
                class_name="table",
                id="margins",
            ),
            class_name="table-scroll",
        ),
        class_name="card tight",
        aria_label="Margins",
    )


def _margin(row: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(row["name"], class_name="strong"),
        rx.el.td(row["price"], class_name="number"),
        rx.el.td(row["cached"], class_name=row["cached_tone"]),
        rx.el.td(row["half"], class_name=row["half_tone"]),
        rx.el.td(row["uncached"], class_name=row["uncached_tone"]),
        key=row["name"],
    )
