"""What more than one page of a customer shows."""

import reflex as rx

from openclaw_web.dashboard.state import UsageStrip
from openclaw_web.ui.badges import empty, meter, notice
from openclaw_web.ui.shell import card
from openclaw_web.ui.values import Text

REFRESH_MS = 3_000


def period_card(state: type[UsageStrip]) -> rx.Component:
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


def error_notice(sentence: Text) -> rx.Component:
    return rx.cond(sentence != "", notice(sentence, tone="error", icon="circle-alert"))


def incident_notice(sentence: Text) -> rx.Component:
    return rx.cond(
        sentence != "", notice(sentence, tone="warning", icon="cloud-alert", id="incident")
    )


def refreshed_by(handler: rx.event.EventCallback[str]) -> rx.Component:
    """Look again every few seconds for as long as the page is open."""
    return rx.el.div(
        rx.moment(interval=REFRESH_MS, on_change=handler),
        class_name="visually-hidden",
        aria_hidden="true",
    )


def no_assistant(sentence: Text) -> rx.Component:
    return card(
        empty(
            "message-circle",
            "You have no assistant yet",
            sentence,
            rx.el.a("Say hi", href="/start", class_name="button primary"),
        )
    )


def state_icon(state: Text) -> rx.Component:
    """Show whether one link of the chain works; the state is ok, bad or unknown."""
    return rx.fragment(
        rx.match(
            state,
            ("ok", rx.icon("circle-check", size=19, class_name="ok-icon", aria_label="works")),
            ("bad", rx.icon("circle-x", size=19, class_name="bad-icon", aria_label="fails")),
            rx.icon("circle-dashed", size=19, class_name="wait-icon", aria_label="not known yet"),
        )
    )


def confirmed(
    trigger: rx.Component, question: str, sentence: str, action: rx.Component
) -> rx.Component:
    """Ask before something that others notice; Escape and the first button leave all as it is."""
    return rx.alert_dialog.root(
        rx.alert_dialog.trigger(trigger),
        rx.alert_dialog.content(
            rx.alert_dialog.title(question, class_name="heading"),
            rx.alert_dialog.description(sentence, class_name="subtitle"),
            rx.el.div(
                rx.alert_dialog.cancel(
                    rx.el.button("Not now", class_name="button quiet", type="button")
                ),
                rx.alert_dialog.action(action),
                class_name="row",
                style={"justifyContent": "flex-end", "marginTop": "20px"},
            ),
            max_width="440px",
        ),
    )
