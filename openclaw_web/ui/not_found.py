"""The page for an address that leads nowhere."""

import reflex as rx

from openclaw_web.ui.shell import public_shell


def not_found_page() -> rx.Component:
    return public_shell(
        rx.el.div(
            rx.el.div(
                rx.el.h1("There is nothing here", class_name="title"),
                rx.el.p(
                    ("The address may be mistyped, or the page has moved."), class_name="subtitle"
                ),
                rx.el.div(
                    rx.el.a("Go to the start", href="/", class_name="button primary"),
                    rx.el.a("My assistant", href="/home", class_name="button quiet"),
                    class_name="row wrap",
                ),
                class_name="card stack loose",
            ),
            class_name="narrow",
        )
    )
