"""Signing in: an e-mail address, then the code that we mailed; admins use their password."""

from typing import Literal

import reflex as rx

from openclaw_web.accounts.state import LoginView
from openclaw_web.ui.badges import notice, skeleton
from openclaw_web.ui.native_form import native_form
from openclaw_web.ui.shell import public_shell
from openclaw_web.ui.values import Text


def login_page() -> rx.Component:
    return public_shell(
        rx.el.div(
            rx.el.div(
                rx.cond(
                    LoginView.error != "",
                    notice(LoginView.error, tone="error", icon="circle-alert"),
                ),
                rx.match(
                    LoginView.step,
                    ("code", code_form()),
                    ("password", _password_form()),
                    ("email", _email_form()),
                    skeleton(34, 46, 42),
                ),
                class_name="card stack loose",
            ),
            class_name="narrow",
            on_mount=LoginView.load,
        ),
        footer=False,
    )


def _email_form() -> rx.Component:
    return rx.fragment(
        _heading("Sign in", "We mail you a code. No password needed."),
        native_form(
            _hidden("next", LoginView.next_page),
            _field(
                "email", "E-mail", kind="email", autocomplete="email", placeholder="you@example.com"
            ),
            rx.el.button("Mail me a code", type="submit", class_name="button primary"),
            action="/auth/send-code",
            class_name="stack loose",
        ),
        rx.el.p(
            "No assistant yet? ",
            rx.el.a("Say hi", href="/start", class_name="link"),
            class_name="small",
        ),
    )


def code_form() -> rx.Component:
    return rx.fragment(
        _heading(
            "Check your mail", rx.el.span("We sent a code to ", rx.el.b(LoginView.email), ".")
        ),
        native_form(
            _hidden("next", LoginView.next_page),
            _hidden("email", LoginView.email),
            rx.el.div(
                rx.el.label("Code", html_for="code"),
                rx.el.input(
                    id="code",
                    name="code",
                    class_name="input code",
                    input_mode="numeric",
                    auto_complete="one-time-code",
                    max_length=12,
                    required=True,
                    auto_focus=True,
                ),
                class_name="field",
            ),
            rx.el.button("Sign in", type="submit", class_name="button primary"),
            action="/auth/code",
            class_name="stack loose",
        ),
        rx.el.p(
            "Nothing there after a minute? Look into the spam folder, or ",
            rx.el.a("try again", href="/login", class_name="link"),
            ".",
            class_name="small",
        ),
    )


def _password_form() -> rx.Component:
    return rx.fragment(
        _heading("Sign in", "With the password of your admin account."),
        native_form(
            _hidden("next", LoginView.next_page),
            _field("email", "E-mail", kind="email", autocomplete="username"),
            _field(
                "password",
                "Password",
                kind="password",
                autocomplete="current-password",
            ),
            rx.el.button("Sign in", type="submit", class_name="button primary"),
            action="/auth/password",
            class_name="stack loose",
        ),
        rx.el.p(
            rx.el.a("Use a code by mail instead", href="/login", class_name="link"),
            class_name="small",
        ),
    )


def _heading(title: str, subtitle: str | rx.Component) -> rx.Component:
    return rx.el.div(
        rx.el.h1(title, class_name="title"),
        rx.el.p(subtitle, class_name="subtitle"),
        class_name="stack",
        style={"gap": "6px"},
    )


def _hidden(name: str, value: Text) -> rx.Component:
    return rx.el.input(type="hidden", name=name, value=value, read_only=True)


def _field(
    name: str,
    label: str,
    *,
    kind: Literal["email", "password"],
    autocomplete: str,
    placeholder: str = "",
) -> rx.Component:
    return rx.el.div(
        rx.el.label(label, html_for=name),
        rx.el.input(
            id=name,
            name=name,
            type=kind,
            auto_complete=autocomplete,
            placeholder=placeholder,
            default_value=LoginView.email if name == "email" else None,
            key=LoginView.email if name == "email" else name,
            class_name="input",
            required=True,
        ),
        class_name="field",
    )
