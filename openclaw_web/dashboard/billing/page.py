"""The page about money: the plan and what comes next, changing it, invoices, leaving."""

import reflex as rx

from openclaw_web.dashboard.billing.components import choices, leaving, question
from openclaw_web.dashboard.billing.state import HERE
from openclaw_web.dashboard.billing.state import BillingState as State
from openclaw_web.dashboard.components import error_notice, refreshed_by
from openclaw_web.ui.badges import empty, notice, skeleton, status_badge
from openclaw_web.ui.shell import card, customer_shell, page_title
from openclaw_web.ui.values import Row, is_any, words


def billing_page() -> rx.Component:
    return customer_shell(
        HERE,
        State.email,
        page_title("Billing", "Your plan, what it costs, and what comes next."),
        error_notice(State.error),
        rx.cond(
            State.is_loaded,
            rx.cond(State.has_plan, _with_plan(), _without_plan()),
            skeleton(200, 260, 200),
        ),
        refreshed_by(State.refresh),
    )


def _with_plan() -> rx.Component:
    return rx.el.div(
        _notices(),
        rx.el.div(_plan_card(), _payment_card(), class_name="grid-2 plan-and-payment"),
        choices(),
        _invoices(),
        rx.cond(State.may_cancel, leaving()),
        question(),
        class_name="stack loose",
    )


def _without_plan() -> rx.Component:
    return card(
        empty(
            "credit-card",
            "You have no plan yet",
            "A short chat finds the right one and sets your assistant up.",
            rx.el.div(
                rx.el.a("Say hi", href="/start", class_name="button primary"),
                rx.el.a("Compare the plans", href="/pricing", class_name="button quiet"),
                class_name="row wrap",
            ),
        )
    )


def _notices() -> rx.Component:
    return rx.fragment(
        rx.cond(State.stripe_note != "", notice(State.stripe_note, icon="cloud-off")),
        rx.cond(
            State.confirm_address != "",
            notice(
                rx.el.p("Your bank wants you to confirm the payment for your new plan."),
                rx.el.a(
                    "Confirm it",
                    href=State.confirm_address,
                    class_name="button primary small-button",
                ),
                tone="warning",
                icon="shield-alert",
                id="confirm-payment",
            ),
        ),
        rx.cond(
            State.is_overdue,
            notice(
                rx.el.p(State.sentence),
                rx.el.button(
                    "Fix your card",
                    on_click=State.fix_payment,
                    class_name="button primary small-button",
                    type="button",
                    id="fix-payment",
                ),
                tone="warning",
                icon="triangle-alert",
            ),
        ),
    )


def _plan_card() -> rx.Component:
    return card(
        rx.el.div(
            rx.el.div(
                rx.el.p(State.plan, class_name="figure-value", id="plan-name"),
                rx.el.p(State.price, class_name="small"),
            ),
            status_badge(State.badge, State.tone),
            class_name="row between top",
        ),
        rx.el.ul(rx.foreach(State.gives, _gift), class_name="ticks"),
        rx.cond(
            State.is_overdue,
            rx.fragment(),
            rx.el.p(State.sentence, class_name="small strong-text", id="plan-sentence"),
        ),
        rx.cond(
            State.pending_note != "",
            notice(State.pending_note, tone="warning", icon="triangle-alert"),
        ),
        rx.cond(
            State.is_ending,
            rx.el.button(
                "Keep my plan",
                on_click=State.undo_cancel,
                class_name="button primary",
                type="button",
                id="undo-cancel",
            ),
            rx.cond(
                State.pending != "",
                rx.el.button(
                    "Stay on ",
                    State.plan,
                    on_click=State.undo_change,
                    class_name="button quiet",
                    type="button",
                    id="undo-change",
                ),
            ),
        ),
        heading="Your plan",
    )


def _gift(sentence: rx.Var[str]) -> rx.Component:
    return rx.el.li(
        rx.icon("check", size=17, aria_hidden=True, class_name="ok-icon"), rx.el.span(sentence)
    )


def _payment_card() -> rx.Component:
    return card(
        rx.el.h2(State.charge_heading, class_name="heading"),
        rx.el.div(
            rx.el.p(State.charge, class_name="figure-value", id="next-charge"),
            rx.el.p(State.charge_note, class_name="small"),
        ),
        rx.cond(
            State.card != "",
            rx.el.div(
                rx.icon("credit-card", size=20, aria_hidden=True, class_name="wait-icon"),
                rx.el.div(
                    rx.el.p(State.card, class_name="strong", id="card"),
                    rx.el.p(State.card_note, class_name=words("small ", State.card_tone)),
                ),
                class_name="row card-on-file",
            ),
        ),
        rx.el.button(
            rx.icon("external-link", size=16, aria_hidden=True),
            "Card and invoices at Stripe",
            on_click=State.open_portal,
            id="open-portal",
            class_name="button quiet",
            type="button",
        ),
    )


def _invoices() -> rx.Component:
    head = (("Date", ""), ("Number", ""), ("Amount", "number"), ("Status", ""))
    return rx.el.section(
        rx.el.h2("Invoices", class_name="heading", style={"padding": "16px 16px 4px"}),
        rx.cond(
            is_any(State.invoices),
            rx.el.div(
                rx.el.table(
                    rx.el.thead(
                        rx.el.tr(
                            *(rx.el.th(name, class_name=kind) for name, kind in head),
                            rx.el.th(rx.el.span("Where to see it", class_name="visually-hidden")),
                        )
                    ),
                    rx.el.tbody(rx.foreach(State.invoices, _invoice)),
                    class_name="table invoices",
                    id="invoices",
                ),
                class_name="table-scroll",
            ),
            empty("receipt", "No invoices yet", "The first one comes with your first payment."),
        ),
        class_name="card tight",
        aria_label="Invoices",
    )


def _invoice(row: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(row["day"]),
        rx.el.td(row["number"], class_name="mono invoice-number"),
        rx.el.td(row["amount"], class_name="number strong"),
        rx.el.td(status_badge(row["status"], row["tone"])),
        rx.el.td(
            rx.cond(
                row["url"] != "",
                rx.el.a(
                    row["action"],
                    rx.el.span(" invoice ", row["number"], class_name="visually-hidden"),
                    href=row["url"],
                    target="_blank",
                    rel="noopener",
                    class_name="link",
                ),
            ),
            class_name="number",
        ),
        key=row["id"],
    )
