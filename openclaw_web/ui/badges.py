"""Small marks: a status with its colour, a notice, an empty place, a skeleton."""

from typing import Any

import reflex as rx

from openclaw_web.ui.values import Number, Text, words


def status_badge(label: Text, tone: Text) -> rx.Component:
    """Show a status; the tone is one of good, busy, warning, bad, quiet."""
    return rx.el.span(label, class_name=words("status ", tone))


def notice(*children: Any, tone: str = "", icon: str = "info", **props: Any) -> rx.Component:
    """Show a sentence that somebody should read; tone is '', warning, error or success."""
    return rx.el.div(
        rx.icon(icon, size=18, aria_hidden=True),
        rx.el.div(*children, class_name="grow"),
        class_name=f"notice {tone}",
        role="alert" if tone == "error" else "status",
        **props,
    )


def empty(icon: str, heading: str, sentence: Text, *actions: rx.Component) -> rx.Component:
    """Show what a place will hold once there is something."""
    return rx.el.div(
        rx.icon(icon, size=30, aria_hidden=True),
        rx.el.p(heading, class_name="heading"),
        rx.el.p(sentence, class_name="small"),
        *actions,
        class_name="empty",
    )


def skeleton(*heights: int) -> rx.Component:
    """Show that something is loading: one bar for each height in pixels."""
    return rx.el.div(
        *(rx.el.div(class_name="skeleton", style={"height": f"{height}px"}) for height in heights),
        rx.el.span("Loading", class_name="visually-hidden"),
        class_name="stack",
        aria_busy="true",
    )


def meter(percent: Number, tone: Text, label: str) -> rx.Component:
    """Show how much of a limit is used; `percent` may pass 100."""
    return rx.el.div(
        rx.el.span(style={"width": f"min({percent}%, 100%)"}),
        class_name=words("meter ", tone),
        role="progressbar",
        aria_label=label,
        aria_valuenow=rx.Var.create(percent).to(str),
        aria_valuemin="0",
        aria_valuemax="100",
    )
