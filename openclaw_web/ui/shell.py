"""What surrounds every page: header or sidebar, the way to the content, light and dark."""

from dataclasses import dataclass
from typing import Any

import reflex as rx

from openclaw_web.ui.native_form import native_form
from openclaw_web.ui.values import Text

CONTENT = "content"


@dataclass(frozen=True)
class Place:
    """One entry of a menu."""

    name: str
    href: str
    icon: str


CUSTOMER_PLACES = (
    Place("Home", "/home", "house"),
    Place("Box", "/box", "box"),
    Place("Usage", "/usage", "chart-column"),
    Place("Billing", "/billing", "credit-card"),
    Place("API access", "/api-access", "key-round"),
)
ADMIN_PLACES = (
    Place("Overview", "/admin", "activity"),
    Place("Meters", "/admin/usage", "gauge"),
)


def public_shell(
    *children: rx.Component, footer: bool = True, is_signed_in: rx.Var[bool] | bool = False
) -> rx.Component:
    """Surround a page that anybody may see."""
    return rx.el.div(
        _skip_link(),
        rx.el.header(
            rx.el.div(
                brand("/"),
                rx.el.nav(
                    rx.el.a("How it works", href="/#how"),
                    rx.el.a("Pricing", href="/pricing"),
                    class_name="public-nav",
                    aria_label="Main",
                ),
                rx.el.div(class_name="grow"),
                theme_button(),
                rx.cond(
                    is_signed_in,
                    rx.el.a("My assistant", href="/home", class_name="button quiet"),
                    rx.el.a("Sign in", href="/login", class_name="button quiet"),
                ),
            ),
            class_name="public-header",
        ),
        rx.el.main(*children, id=CONTENT, class_name="public-main"),
        _footer() if footer else rx.fragment(),
    )


def customer_shell(here: str, who: Text, *children: rx.Component) -> rx.Component:
    """Surround a customer's page; `here` is the address of its place in the menu."""
    return _app_shell(CUSTOMER_PLACES, here, who, children, wide=False)


def admin_shell(here: str, who: Text, *children: rx.Component) -> rx.Component:
    return _app_shell(ADMIN_PLACES, here, who, children, wide=True)


def page_title(title: Text, subtitle: Text = "", *right: rx.Component) -> rx.Component:
    return rx.el.div(
        rx.el.div(
            rx.el.h1(title, class_name="title"),
            rx.el.p(subtitle, class_name="subtitle"),
            class_name="stack grow",
            style={"gap": "4px"},
        ),
        *right,
        class_name="row between wrap",
    )


def card(*children: Any, heading: str = "", **props: Any) -> rx.Component:
    """Group what belongs together."""
    top = [rx.el.h2(heading, class_name="heading")] if heading else []
    name = props.pop("class_name", "")
    return rx.el.section(*top, *children, class_name=f"card stack {name}", **props)


def brand(href: str) -> rx.Component:
    return rx.el.a(
        rx.el.img(src="/logo.svg", alt="", width="30", height="30"),
        rx.el.span("OpenClaw Cloud"),
        href=href,
        class_name="brand",
    )


def theme_button() -> rx.Component:
    return rx.el.button(
        rx.color_mode_cond(rx.icon("moon", size=18), rx.icon("sun", size=18)),
        rx.el.span("Switch between light and dark", class_name="visually-hidden"),
        on_click=rx.toggle_color_mode,
        class_name="icon-button",
        type="button",
    )


def _app_shell(
    places: tuple[Place, ...],
    here: str,
    who: Text,
    children: tuple[rx.Component, ...],
    *,
    wide: bool,
) -> rx.Component:
    return rx.el.div(
        _skip_link(),
        rx.el.nav(
            brand(here),
            *(_place(place, is_here=place.href == here) for place in places),
            rx.el.div(
                rx.el.div(who, class_name="who", title=who),
                _theme_place(),
                native_form(
                    rx.el.button(
                        rx.icon("log-out", size=18), "Sign out", class_name="place", type="submit"
                    ),
                    action="/auth/logout",
                ),
                class_name="foot",
            ),
            class_name="sidebar",
            aria_label="Main",
        ),
        rx.el.main(*children, id=CONTENT, class_name="main wide" if wide else "main"),
        class_name="app",
    )


def _place(place: Place, *, is_here: bool) -> rx.Component:
    return rx.el.a(
        rx.icon(place.icon, size=18),
        rx.el.span(place.name),
        href=place.href,
        class_name="place here" if is_here else "place",
        aria_current="page" if is_here else "false",
    )


def _theme_place() -> rx.Component:
    return rx.el.button(
        rx.color_mode_cond(rx.icon("moon", size=18), rx.icon("sun", size=18)),
        rx.color_mode_cond("Dark", "Light"),
        on_click=rx.toggle_color_mode,
        class_name="place",
        type="button",
    )


def _skip_link() -> rx.Component:
    return rx.el.a("Skip to the content", href=f"#{CONTENT}", class_name="skip-link")


def _footer() -> rx.Component:
    return rx.el.footer(
        rx.el.div(
            rx.el.span("OpenClaw Cloud runs OpenClaw, the open-source personal AI assistant."),
            rx.el.a("Sign in", href="/login", class_name="link"),
        ),
        class_name="public-footer",
    )
