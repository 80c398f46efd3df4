"""API access: the switch, the keys, and how a program uses them."""

from typing import Any

import reflex as rx

from openclaw_web.dashboard.api_access.state import ApiAccessState as State
from openclaw_web.dashboard.components import (
    confirmed,
    error_notice,
    no_assistant,
    refreshed_by,
)
from openclaw_web.metering.service import MOST_API_KEYS
from openclaw_web.metering.tokens import LONGEST_LABEL
from openclaw_web.ui.badges import empty, skeleton, status_badge
from openclaw_web.ui.shell import card, customer_shell, page_title
from openclaw_web.ui.values import Row, Text

HERE = "/api-access"


def api_access_page() -> rx.Component:
    return customer_shell(
        HERE,
        State.email,
        page_title(
            "API access",
            "Your own programs may use your plan's tokens, within the same limit.",
        ),
        error_notice(State.error),
        rx.cond(
            State.is_loaded,
            rx.cond(
                State.has_box,
                _with_box(),
                no_assistant("Keys belong to an assistant; a short chat sets one up."),
            ),
            skeleton(120, 220, 180),
        ),
        refreshed_by(State.refresh),
    )


def _with_box() -> rx.Component:
    return rx.el.div(
        _switch_card(),
        rx.cond(State.new_key != "", _new_key()),
        rx.cond(State.is_on, _new_key_form()),
        rx.cond(State.is_on | State.has_keys, _keys_card()),
        rx.cond(State.is_on, _examples_card()),
        class_name="stack loose",
    )


def _switch_card() -> rx.Component:
    return card(
        rx.el.div(
            rx.el.div(
                rx.cond(
                    State.is_on,
                    rx.cond(
                        State.is_asleep,
                        status_badge("Resting", "warning"),
                        status_badge("On", "good"),
                    ),
                    status_badge("Off", "quiet"),
                ),
                rx.el.p(_switch_sentence(), class_name="small", id="api-sentence"),
                class_name="stack grow",
                style={"gap": "8px", "alignItems": "flex-start", "minWidth": "16em"},
            ),
            rx.cond(State.is_on, _turn_off(), _turn_on()),
            class_name="row between wrap",
        ),
        aria_label="API access",
    )


def _switch_sentence() -> rx.Var[str]:
    on = rx.cond(
        State.is_asleep,
        "Your assistant is paused, and its keys rest with it. They work again when it wakes up.",
        "Whoever holds one of the keys below can use your tokens. The monthly limit holds for all.",
    )
    return rx.cond(
        State.is_on,
        on,
        rx.cond(
            State.has_keys,
            "None of your keys works at the moment.",
            "Only your assistant itself can use your tokens.",
        ),
    ).to(str)


def _turn_on() -> rx.Component:
    return confirmed(
        rx.el.button("Turn on", class_name="button primary", type="button", id="turn-on"),
        "Turn API access on?",
        "Programs that show a key of yours may then use your tokens, from anywhere. "
        "You make the keys, see when each was used, and can end them at any time.",
        rx.el.button("Turn on", on_click=State.turn_on, class_name="button primary", type="button"),
    )


def _turn_off() -> rx.Component:
    return confirmed(
        rx.el.button("Turn off", class_name="button quiet", type="button", id="turn-off"),
        "Turn API access off?",
        "Every key stops working within a second, and answers that are under way are cut. "
        "Your keys are kept: turned on again, they work again.",
        rx.el.button(
            "Turn off", on_click=State.turn_off, class_name="button danger", type="button"
        ),
    )


def _new_key_form() -> rx.Component:
    return card(
        rx.el.form(
            rx.el.div(
                rx.el.label("Name of the program or place", html_for="key-label"),
                rx.el.div(
                    rx.el.input(
                        id="key-label",
                        name="label",
                        placeholder="Notebook at home",
                        max_length=LONGEST_LABEL,
                        required=True,
                        auto_complete="off",
                        disabled=State.is_full,
                        aria_describedby="key-problem",
                        class_name="input",
                        style={"flex": "1 1 14em", "width": "auto"},
                    ),
                    rx.el.button(
                        rx.icon("plus", size=17, aria_hidden=True),
                        "Create key",
                        disabled=State.is_full,
                        class_name="button primary",
                        type="submit",
                        style={"minHeight": "46px"},
                    ),
                    class_name="row wrap",
                ),
                class_name="field",
            ),
            on_submit=State.create,
            reset_on_submit=True,
        ),
        rx.el.div(
            error_notice(State.problem),
            rx.cond(
                State.problem == "",
                rx.cond(
                    State.is_full,
                    rx.el.p(
                        f"You have {MOST_API_KEYS} keys, and more are not possible. "
                        "Revoke one to make another.",
                        class_name="small",
                    ),
                    rx.el.p(
                        "One key for each program: then you can end one without the others.",
                        class_name="small",
                    ),
                ),
            ),
            id="key-problem",
            aria_live="polite",
        ),
        heading="New key",
    )


def _new_key() -> rx.Component:
    return rx.el.section(
        rx.el.div(
            rx.icon("key-round", size=20, aria_hidden=True, class_name="ok-icon"),
            rx.el.h2("Your key for “", State.new_label, "”", class_name="heading"),
            class_name="row",
        ),
        rx.el.p(
            "This is the only time that we show it. Keep it like a password.",
            class_name="small",
        ),
        rx.el.div(
            rx.el.input(
                value=State.new_key,
                read_only=True,
                aria_label="The new key",
                id="new-key",
                spell_check=False,
                class_name="input secret",
                style={"flex": "1 1 20em", "width": "auto"},
            ),
            _copy_button(State.new_key, "Copy key", id="copy-new-key", kind="primary"),
            rx.el.button(
                "I have saved it",
                on_click=State.forget_new_key,
                class_name="button quiet",
                type="button",
                style={"minHeight": "46px"},
            ),
            class_name="row wrap",
        ),
        class_name="card stack highlight",
        role="status",
    )


def _keys_card() -> rx.Component:
    names = (("Name", ""), ("Key", ""), ("Created", ""), ("Last used", ""))
    return rx.el.section(
        rx.cond(
            State.has_keys,
            rx.el.div(
                rx.el.table(
                    rx.el.thead(
                        rx.el.tr(
                            *(rx.el.th(name, class_name=kind) for name, kind in names),
                            rx.el.th(rx.el.span("What to do", class_name="visually-hidden")),
                        )
                    ),
                    rx.el.tbody(rx.foreach(State.keys, _key)),
                    class_name="table keys",
                    id="keys",
                ),
                class_name="table-scroll",
            ),
            empty("key-round", "No keys yet", "Name the program that needs one, above."),
        ),
        class_name="card tight",
        aria_label="Your keys",
    )


def _key(key: Row) -> rx.Component:
    return rx.el.tr(
        rx.el.td(
            rx.el.span(key["label"], class_name="strong"),
            rx.cond(
                key["ending"] != "",
                rx.fragment(rx.el.br(), rx.el.span(key["ending"], class_name="small")),
            ),
            class_name="prose",
        ),
        rx.el.td(rx.el.span(key["shown"], class_name="mono")),
        rx.el.td(key["created"], class_name="created"),
        rx.el.td(rx.el.span("last used: ", class_name="narrow-only"), key["used"]),
        rx.el.td(
            rx.el.div(
                rx.cond((key["ending"] == "") & State.is_on, _replace(key)),
                _revoke(key),
                class_name="row acts",
            ),
        ),
        key=key["id"],
    )


def _replace(key: Row) -> rx.Component:
    return confirmed(
        rx.el.button("Replace", class_name="button quiet small-button", type="button"),
        "Replace this key?",
        "You get a new key of the same name. The old one goes on for fifteen minutes, so that you "
        "can put the new one in its place without a gap.",
        rx.el.button(
            "Replace",
            on_click=State.replace(key["id"]),
            class_name="button primary",
            type="button",
        ),
    )


def _revoke(key: Row) -> rx.Component:
    return confirmed(
        rx.el.button("Revoke", class_name="button quiet small-button", type="button"),
        "Revoke this key?",
        "It stops working within a second, and answers that are under way are cut. "
        "It cannot be brought back.",
        rx.el.button(
            "Revoke",
            on_click=State.revoke(key["id"]),
            class_name="button danger",
            type="button",
        ),
    )


def _examples_card() -> rx.Component:
    return card(
        rx.el.p(
            "Any program that speaks the OpenAI API works, with this address:", class_name="small"
        ),
        rx.el.div(
            rx.el.code(State.base_url, class_name="code grow", id="base-url"),
            _copy_button(State.base_url, "Copy address"),
            class_name="row",
        ),
        rx.tabs.root(
            rx.tabs.list(
                rx.tabs.trigger("curl", value="curl"),
                rx.tabs.trigger("Python", value="python"),
            ),
            rx.tabs.content(_example(State.curl, "Copy the curl example"), value="curl"),
            rx.tabs.content(_example(State.python, "Copy the Python example"), value="python"),
            default_value="curl",
        ),
        heading="How to use a key",
    )


def _example(text: Text, name: str) -> rx.Component:
    return rx.el.div(
        rx.el.pre(rx.el.code(text), class_name="code block", tab_index=0, aria_label="Example"),
        rx.el.div(_copy_button(text, name), class_name="copy"),
        class_name="example",
    )


def _copy_button(text: Text, name: str, *, kind: str = "quiet", **props: Any) -> rx.Component:
    is_short = kind == "quiet"
    return rx.el.button(
        rx.icon("copy", size=17, aria_hidden=True),
        rx.el.span(name, class_name="visually-hidden" if is_short else ""),
        on_click=[rx.set_clipboard(text), rx.toast("Copied.")],
        title=name,
        class_name=f"button {kind} {'square' if is_short else ''}",
        type="button",
        style={} if is_short else {"minHeight": "46px"},
        **props,
    )
