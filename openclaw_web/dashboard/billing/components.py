"""The parts of the billing page that change something: the plans, the question, leaving."""

import reflex as rx

from openclaw_web.billing.changes import LONGEST_COMMENT, REASONS
from openclaw_web.dashboard.billing.state import BillingState as State
from openclaw_web.dashboard.components import error_notice
from openclaw_web.ui.badges import notice
from openclaw_web.ui.shell import card
from openclaw_web.ui.values import Row


def choices() -> rx.Component:
    return rx.el.section(
        rx.el.div(
            rx.el.div(
                rx.el.h2(
                    rx.cond(State.is_live, "Change your plan", "Start again"), class_name="heading"
                ),
                rx.el.p(State.choices_note, class_name="small"),
                class_name="words",
            ),
            rx.el.a("Compare them all", href="/pricing", class_name="link small-link"),
            class_name="row between wrap",
        ),
        rx.cond(State.is_asking | State.is_leaving, rx.fragment(), error_notice(State.problem)),
        rx.el.div(rx.foreach(State.plans, _choice), class_name="grid-3"),
        class_name="stack",
        aria_label="Plans",
    )


def _choice(plan: Row) -> rx.Component:
    is_current = plan["kind"] == "current"
    return rx.el.div(
        rx.el.div(
            rx.el.h3(plan["name"], class_name="heading"),
            rx.cond(is_current, rx.el.span("Your plan", class_name="tag")),
            rx.cond(plan["kind"] == "pending", rx.el.span("Comes next", class_name="tag")),
            class_name="row between",
        ),
        rx.el.p(
            rx.el.span(plan["price"], class_name="figure-value"),
            rx.el.span(" a month", class_name="small"),
        ),
        rx.el.p(
            plan["tokens"],
            rx.el.br(),
            plan["people"],
            rx.el.br(),
            plan["memory"],
            class_name="small",
        ),
        rx.cond(
            plan["button"] != "",
            rx.el.button(
                rx.cond(State.working_on == plan["tier"], "One moment…", plan["button"]),
                on_click=State.look_at(plan["tier"]),
                disabled=State.working_on != "",
                class_name=rx.cond(plan["kind"] == "downgrade", "button quiet", "button primary"),
                type="button",
                custom_attrs={"data-tier": plan["tier"]},
            ),
        ),
        class_name=rx.cond(is_current, "card choice-card current", "card choice-card"),
        key=plan["tier"],
    )


def question() -> rx.Component:
    return rx.alert_dialog.root(
        rx.alert_dialog.content(
            rx.alert_dialog.title(State.asked_title, class_name="heading"),
            rx.el.dl(rx.foreach(State.asked_lines, _line), class_name="facts", id="preview"),
            rx.alert_dialog.description(State.asked_note, class_name="small"),
            rx.cond(
                State.asked_warning != "",
                rx.el.div(
                    notice(State.asked_warning, tone="warning", icon="triangle-alert"),
                    style={"marginTop": "14px"},
                ),
            ),
            rx.cond(
                State.problem != "",
                rx.el.div(
                    notice(State.problem, tone="error", icon="circle-alert"),
                    style={"marginTop": "14px"},
                    id="refusal",
                ),
            ),
            rx.el.div(
                rx.el.button(
                    rx.cond(State.problem != "", "Close", "Not now"),
                    on_click=State.stop_asking(False),
                    class_name="button quiet",
                    type="button",
                ),
                rx.cond(
                    State.problem != "",
                    rx.el.button(
                        "Use another card",
                        on_click=State.open_portal,
                        class_name="button primary",
                        type="button",
                    ),
                    rx.el.button(
                        rx.cond(State.working_on != "", "One moment…", State.asked_button),
                        on_click=State.confirm,
                        disabled=State.working_on != "",
                        class_name="button primary",
                        type="button",
                        id="confirm-change",
                    ),
                ),
                class_name="row wrap dialog-buttons",
            ),
            max_width="460px",
        ),
        open=State.is_asking,
        on_open_change=State.stop_asking,
    )


def _line(line: Row) -> rx.Component:
    return rx.el.div(
        rx.el.dt(line["name"]), rx.el.dd(line["value"], class_name="numbers"), key=line["name"]
    )


def leaving() -> rx.Component:
    return card(
        rx.el.div(
            rx.el.div(
                rx.el.h2("Cancel your plan", class_name="heading"),
                rx.el.p(
                    "It ends with the month that is paid, and you are not charged again. "
                    "Until then you can change your mind.",
                    class_name="small",
                ),
                class_name="words",
            ),
            rx.dialog.root(
                rx.dialog.trigger(
                    rx.el.button(
                        "Cancel plan", class_name="button quiet", type="button", id="cancel-plan"
                    )
                ),
                rx.dialog.content(_leaving_form(), max_width="460px"),
                open=State.is_leaving,
                on_open_change=State.ask_to_leave,
            ),
            class_name="row between wrap",
        ),
        aria_label="Cancel your plan",
    )


def _leaving_form() -> rx.Component:
    return rx.fragment(
        rx.dialog.title("Cancel your plan?", class_name="heading"),
        rx.dialog.description(
            "Your assistant works until the paid month ends. After that it is paused, and its "
            "memory is kept for seven more days.",
            class_name="small",
        ),
        rx.el.form(
            rx.el.div(
                rx.el.label("Why do you leave?", html_for="reason"),
                rx.el.select(
                    rx.el.option("Please choose", value="", disabled=True),
                    *(rx.el.option(words, value=code) for code, words in REASONS.items()),
                    id="reason",
                    name="reason",
                    default_value="",
                    required=True,
                    class_name="input",
                ),
                class_name="field",
            ),
            rx.el.div(
                rx.el.label("Anything you want to tell us (optional)", html_for="comment"),
                rx.el.textarea(
                    id="comment",
                    name="comment",
                    max_length=LONGEST_COMMENT,
                    class_name="input area",
                ),
                class_name="field",
            ),
            error_notice(State.problem),
            rx.el.div(
                rx.dialog.close(
                    rx.el.button("Keep my plan", class_name="button quiet", type="button")
                ),
                rx.el.button(
                    "Cancel plan", class_name="button danger", type="submit", id="confirm-cancel"
                ),
                class_name="row wrap dialog-buttons",
            ),
            on_submit=State.cancel,
            class_name="stack",
            style={"marginTop": "14px"},
        ),
    )
