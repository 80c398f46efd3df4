"""What more than one page of a customer shows."""

import reflex as rx

from openclaw_web.dashboard.state import UsageStrip
from openclaw_web.ui.badges import meter, notice
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


def refreshed_by(handler: rx.event.EventCallback[str]) -> rx.Component:
    """Look again every few seconds for as long as the page is open."""
    return rx.el.div(
        rx.moment(interval=REFRESH_MS, on_change=handler),
        class_name="visually-hidden",
        aria_hidden="true",
    )
