"""The settings of an assistant: who, how and what, with a look at the change before it is made."""

from collections.abc import Mapping

import reflex as rx

from openclaw_web.boxes.openclaw_config import LANGUAGES
from openclaw_web.dashboard.box_settings import reading
from openclaw_web.dashboard.box_settings.state import BoxSettingsState as State
from openclaw_web.dashboard.components import error_notice, no_assistant, refreshed_by
from openclaw_web.ui.badges import notice, skeleton, status_badge
from openclaw_web.ui.shell import card, customer_shell, page_title
from openclaw_web.ui.values import Row, Text

HERE = "/box"  # its place in the menu


def box_settings_page() -> rx.Component:
    return customer_shell(
        HERE,
        State.email,
        page_title(
            "Settings",
            "Change anything without fear: you see what it means before it is saved.",
            rx.el.a(
                rx.icon("arrow-left", size=17, aria_hidden=True),
                "Box",
                href="/box",
                class_name="button quiet",
            ),
        ),
        error_notice(State.error),
        rx.cond(
            State.is_loaded,
            rx.cond(State.has_box, _with_box(), no_assistant("Here you will change how it is.")),
            skeleton(70, 190, 420),
        ),
        refreshed_by(State.refresh),
    )


def _with_box() -> rx.Component:
    return rx.el.div(
        rx.el.div(
            status_badge(State.badge, State.badge_tone),
            rx.el.span(State.applied, class_name="small", id="applied"),
            class_name="row wrap",
            aria_live="polite",
        ),
        _people_card(),
        _form(),
        _question(),
        class_name="stack loose",
    )


def _people_card() -> rx.Component:
    return card(
        rx.el.ul(rx.foreach(State.people, _person), class_name="links-list people", id="people"),
        rx.el.form(
            rx.el.div(
                rx.el.label("Telegram id of somebody else", html_for="person"),
                rx.el.div(
                    rx.el.input(
                        id="person",
                        name="person",
                        key=rx.Var.create(State.people).to(list).length().to_string(),
                        placeholder="123456789",
                        input_mode="numeric",
                        auto_complete="off",
                        max_length=24,
                        required=True,
                        disabled=State.is_full,
                        aria_describedby="person-problem",
                        class_name="input",
                        style={"flex": "1 1 12em", "width": "auto"},
                    ),
                    rx.el.button(
                        rx.icon("plus", size=17, aria_hidden=True),
                        "Add",
                        disabled=State.is_full,
                        class_name="button quiet",
                        type="submit",
                        style={"minHeight": "46px"},
                    ),
                    class_name="row wrap",
                ),
                class_name="field",
            ),
            on_submit=State.add_person,
        ),
        rx.el.div(
            error_notice(State.person_problem),
            rx.el.p(
                State.people_note,
                rx.cond(
                    State.is_full,
                    rx.el.a(" See the other plans.", href="/billing", class_name="link"),
                ),
                class_name="small",
            ),
            rx.el.p(
                "To find an id: they open Telegram, send any message to ",
                rx.el.b("@userinfobot"),
                ", and it answers with their number. Whoever is not on the list gets no answer.",
                class_name="small",
            ),
            id="person-problem",
            class_name="stack",
            style={"gap": "8px"},
            aria_live="polite",
        ),
        heading="Who may talk to it",
    )


def _person(person: Row) -> rx.Component:
    return rx.el.li(
        rx.icon("user", size=19, class_name="wait-icon", aria_hidden=True),
        rx.el.span(person["id"], class_name="numbers grow"),
        rx.cond(
            person["role"] == "owner",
            rx.el.span("Owner", class_name="tag"),
            rx.el.button(
                "Remove",
                rx.el.span(" ", person["id"], class_name="visually-hidden"),
                on_click=State.remove_person(person["id"]),
                class_name="button quiet small-button",
                type="button",
            ),
        ),
        key=person["id"],
    )


def _form() -> rx.Component:
    return rx.el.form(
        card(
            rx.el.div(
                _choice("Language", "language", LANGUAGES, State.language),
                _model(),
                _choice(
                    "Thinking level",
                    "thinking_level",
                    reading.LEVEL_LABELS,
                    State.thinking_level,
                    "More thinking gives better answers to hard questions, later and for more "
                    "tokens.",
                ),
                _choice(
                    "When the month's tokens are used up",
                    "limit_behaviour",
                    reading.LIMIT_LABELS,
                    State.limit_behaviour,
                ),
                class_name="grid-2",
            ),
            heading="How it works",
        ),
        card(
            _words(
                "What you want it for",
                "use_case",
                State.use_case,
                "Plan my week and remind me of birthdays",
            ),
            _words(
                "How it should answer", "style", State.style, "Short and friendly, without emojis"
            ),
            heading="What it knows of you",
        ),
        error_notice(State.problem),
        rx.cond(State.note != "", notice(State.note)),
        rx.el.div(
            rx.el.button(
                "See what changes", class_name="button primary", type="submit", id="look-at"
            ),
            class_name="row",
        ),
        on_submit=State.look_at,
        key=State.version,
        class_name="stack loose",
        id="settings",
    )


def _choice(
    label: str, name: str, options: Mapping[str, str], value: Text, hint: str = ""
) -> rx.Component:
    return _field(
        label,
        name,
        rx.el.select(
            *(rx.el.option(text, value=key) for key, text in options.items()),
            id=name,
            name=name,
            default_value=value,
            aria_describedby=f"{name}-hint" if hint else None,
            class_name="input",
        ),
        hint,
    )


def _model() -> rx.Component:
    return _field(
        "Model",
        "model",
        rx.el.select(
            rx.foreach(State.models, lambda one: rx.el.option(one["label"], value=one["value"])),
            id="model",
            name="model",
            default_value=State.model,
            class_name="input",
        ),
    )


def _words(label: str, name: str, value: Text, example: str) -> rx.Component:
    return _field(
        label,
        name,
        rx.el.textarea(
            id=name,
            name=name,
            default_value=value,
            placeholder=example,
            max_length=reading.LONGEST_TEXT,
            rows="3",
            class_name="input area",
        ),
    )


def _field(label: str, name: str, field: rx.Component, hint: str = "") -> rx.Component:
    return rx.el.div(
        rx.el.label(label, html_for=name),
        field,
        rx.el.p(hint, class_name="small", id=f"{name}-hint") if hint else rx.fragment(),
        class_name="field",
    )


def _question() -> rx.Component:
    return rx.alert_dialog.root(
        rx.alert_dialog.content(
            rx.alert_dialog.title("Save these changes?", class_name="heading"),
            rx.alert_dialog.description(State.takes, class_name="subtitle", id="takes"),
            rx.el.dl(rx.foreach(State.changes, _change), class_name="changes", id="changes"),
            rx.cond(
                State.restarts,
                notice(
                    "If it does not come back with them, it goes back to the former settings by "
                    "itself.",
                    icon="undo-2",
                ),
            ),
            rx.el.div(
                rx.alert_dialog.cancel(
                    rx.el.button("Not now", class_name="button quiet", type="button")
                ),
                rx.el.button(
                    rx.cond(State.restarts, "Save and restart", "Save"),
                    on_click=State.save,
                    class_name="button primary",
                    type="button",
                    id="save",
                ),
                class_name="row dialog-buttons",
            ),
            max_width="520px",
        ),
        open=State.is_asking,
        on_open_change=State.stop_asking,
    )


def _change(one: Row) -> rx.Component:
    return rx.el.div(
        rx.el.dt(one["name"]),
        rx.el.dd(
            rx.el.span(one["before"], class_name="before"),
            rx.icon("arrow-right", size=15, aria_label="becomes"),
            rx.el.span(one["after"], class_name="strong"),
        ),
    )
