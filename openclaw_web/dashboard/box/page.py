"""The box: how it is, what runs, what may be done with it, and what it writes."""

import reflex as rx

from openclaw_web.boxes import stops
from openclaw_web.boxes.reloading import RESTART_TAKES
from openclaw_web.dashboard.box.state import BoxState as State
from openclaw_web.dashboard.components import (
    confirmed,
    error_notice,
    incident_notice,
    no_assistant,
    refreshed_by,
    state_icon,
)
from openclaw_web.ui.badges import notice, skeleton, status_badge
from openclaw_web.ui.native_form import native_form
from openclaw_web.ui.shell import card, customer_shell, page_title
from openclaw_web.ui.values import Row, Text, is_any

HERE = "/box"


def box_page() -> rx.Component:
    return customer_shell(
        HERE,
        State.email,
        page_title(
            "Your box",
            "Where your assistant lives: how it is, and what you can do with it.",
            rx.cond(
                State.has_box,
                rx.el.a(
                    rx.icon("settings-2", size=17, aria_hidden=True),
                    "Settings",
                    href="/box/settings",
                    class_name="button quiet",
                ),
            ),
        ),
        error_notice(State.error),
        incident_notice(State.incident_note),
        rx.cond(
            State.is_loaded,
            rx.cond(State.has_box, _with_box(), no_assistant(State.no_box_note)),
            skeleton(170, 210, 160),
        ),
        refreshed_by(State.refresh),
    )


def _with_box() -> rx.Component:
    return rx.el.div(
        rx.cond(State.bot_note != "", notice(State.bot_note, tone="success", icon="circle-check")),
        _status_card(),
        rx.cond(State.work != "", _work_card()),
        rx.el.div(_links_card(), _bot_card(), class_name="grid-2 wide-left"),
        rx.cond(State.are_backups_on | State.has_backups, _backups_card()),
        _log_card(),
        class_name="stack loose",
    )


def _status_card() -> rx.Component:
    return card(
        rx.el.div(
            status_badge(State.status, State.status_tone),
            rx.el.span(State.since, class_name="small"),
            class_name="row wrap",
        ),
        rx.el.p(State.sentence, class_name="heading", id="box-sentence", aria_live="polite"),
        rx.cond(State.memory_note != "", rx.el.p(State.memory_note, class_name="small")),
        rx.cond(State.kept_asleep != "", _kept_asleep()),
        rx.cond(
            State.may_restart | State.may_pause | State.may_resume,
            rx.el.div(
                rx.cond(State.may_resume, _resume()),
                rx.cond(State.may_restart, _restart()),
                rx.cond(State.may_pause, _pause()),
                class_name="row wrap acts",
            ),
        ),
        aria_label="How it is",
    )


def _kept_asleep() -> rx.Component:
    return notice(
        rx.el.p(State.kept_asleep),
        rx.cond(
            State.must_pay,
            rx.el.a("See the payment", href="/billing", class_name="button primary small-button"),
        ),
        tone="warning",
        icon="triangle-alert",
        id="kept-asleep",
    )


def _restart() -> rx.Component:
    return confirmed(
        rx.el.button(
            rx.icon("rotate-cw", size=17, aria_hidden=True),
            "Restart",
            class_name="button quiet",
            type="button",
            id="restart",
        ),
        "Restart your assistant?",
        "It gets a new process with the same settings and the same memory. It does not answer for "
        f"{RESTART_TAKES}; what is written to it meanwhile is answered afterwards. At most "
        f"{stops.AN_HOUR} times an hour, together with pauses, backups and settings that restart "
        "it: Telegram locks out a bot that comes back too often.",
        rx.el.button("Restart", on_click=State.restart, class_name="button primary", type="button"),
    )


def _pause() -> rx.Component:
    return confirmed(
        rx.el.button(
            rx.icon("pause", size=17, aria_hidden=True),
            "Pause",
            class_name="button quiet",
            type="button",
            id="pause",
        ),
        "Pause your assistant?",
        "It stops answering until you resume it. Its memory is kept, and so is your plan: pausing "
        "does not stop the payments.",
        rx.el.button("Pause", on_click=State.pause, class_name="button primary", type="button"),
    )


def _resume() -> rx.Component:
    return rx.el.button(
        rx.icon("play", size=17, aria_hidden=True),
        "Resume",
        on_click=State.resume,
        class_name="button primary",
        type="button",
        id="resume",
    )


def _work_card() -> rx.Component:
    return card(
        rx.el.div(
            rx.icon("loader", size=18, class_name="turning", aria_hidden=True),
            rx.el.h2(State.work, class_name="heading"),
            class_name="row",
        ),
        rx.cond(State.work_note != "", rx.el.p(State.work_note, class_name="small", id="queue")),
        rx.cond(
            is_any(State.steps),
            rx.el.ul(rx.foreach(State.steps, _step), class_name="timeline", id="steps"),
        ),
        aria_live="polite",
        aria_label="What is being done",
    )


def _step(step: Row) -> rx.Component:
    return rx.el.li(rx.el.span(step["text"]), rx.el.time(step["when"]), class_name=step["tone"])


def _links_card() -> rx.Component:
    return card(
        rx.el.p("A message passes all four of them, and so does its answer.", class_name="small"),
        rx.el.ul(rx.foreach(State.links, _link), class_name="links-list", id="links"),
        heading="From you to the model",
    )


def _link(link: Row) -> rx.Component:
    return rx.el.li(
        state_icon(link["state"]),
        rx.el.span(
            rx.el.span(link["name"], class_name="strong"),
            rx.el.br(),
            rx.el.span(link["sentence"], class_name="small"),
            class_name="grow",
        ),
        rx.el.span(link["when"], class_name="small when"),
    )


def _bot_card() -> rx.Component:
    return card(
        rx.cond(
            State.bot_name != "",
            rx.el.p(
                "It answers as ",
                rx.el.a(
                    "@",
                    State.bot_name,
                    href=State.bot_link,
                    target="_blank",
                    rel="noopener",
                    class_name="link",
                ),
                ".",
            ),
        ),
        native_form(
            rx.el.div(
                rx.el.label("New token from BotFather", html_for="bot-token"),
                rx.el.input(
                    id="bot-token",
                    name="bot_token",
                    type="password",
                    auto_complete="off",
                    placeholder="123456789:AAF…",
                    required=True,
                    max_length=300,
                    aria_describedby="bot-problem",
                    class_name="input secret",
                ),
                class_name="field",
            ),
            rx.el.button(
                "Check and replace",
                type="submit",
                id="replace-bot",
                class_name="button quiet",
                style={"alignSelf": "flex-start"},
            ),
            action="/box/bot",
            class_name="stack",
        ),
        rx.el.div(
            error_notice(State.bot_problem),
            rx.el.p(
                "For a token that leaked, or another bot. We ask Telegram first, keep the token "
                "encrypted and show it to nobody. The assistant restarts with it.",
                class_name="small",
            ),
            id="bot-problem",
            class_name="stack",
        ),
        heading="Its Telegram bot",
        id="bot",
    )


def _backups_card() -> rx.Component:
    return rx.el.section(
        rx.el.div(
            rx.el.div(
                rx.el.h2("Backups of its memory", class_name="heading"),
                rx.el.p(
                    "One is made by itself whenever it is paused, upgraded or deleted, "
                    "encrypted with a key of its own.",
                    class_name="small",
                ),
                class_name="words",
            ),
            rx.cond(State.may_back_up, _back_up()),
            class_name="row between wrap",
            style={"padding": "20px 22px"},
        ),
        rx.cond(
            State.has_backups,
            rx.el.ul(rx.foreach(State.backups, _backup), class_name="links-list backups"),
            rx.el.p(
                "There is none yet; you can make one at any time.", class_name="small backups-none"
            ),
        ),
        class_name="card tight",
        aria_label="Backups",
        id="backups",
    )


def _backup(backup: Row) -> rx.Component:
    return rx.el.li(
        rx.icon("archive", size=19, class_name="wait-icon", aria_hidden=True),
        rx.el.span(
            rx.el.span(backup["made"], class_name="strong"),
            rx.el.br(),
            rx.el.span(
                backup["why"], " · ", backup["size"], " · ", backup["kept"], class_name="small"
            ),
            class_name="grow",
        ),
        rx.cond(backup["is_usable"] != "", _restore(backup)),
        key=backup["id"],
    )


def _restore(backup: Row) -> rx.Component:
    return confirmed(
        rx.el.button(
            "Restore",
            rx.el.span(" the backup of ", backup["made"], class_name="visually-hidden"),
            class_name="button quiet small-button",
            type="button",
        ),
        "Restore this backup?",
        "What your assistant remembers now is replaced by what it remembered then; everything "
        "since is gone from its memory, and is saved as a backup first. It does not answer for a "
        "few minutes meanwhile. Its settings stay as they are.",
        rx.el.button(
            "Restore",
            on_click=State.restore(backup["id"]),
            class_name="button danger",
            type="button",
        ),
    )


def _back_up() -> rx.Component:
    return confirmed(
        rx.el.button(
            rx.icon("archive", size=17, aria_hidden=True),
            "Make a backup now",
            class_name="button quiet",
            type="button",
            id="back-up",
        ),
        "Make a backup now?",
        "Your assistant stops, so that nothing changes while its memory is copied. Then it starts "
        f"again, which takes {RESTART_TAKES}.",
        rx.el.button(
            "Make a backup", on_click=State.back_up, class_name="button primary", type="button"
        ),
    )


def _log_card() -> rx.Component:
    return rx.el.section(
        rx.el.div(
            rx.el.div(
                rx.el.h2("What it writes", class_name="heading"),
                rx.el.p(
                    "Its log and what the cluster says of it; times are UTC. Secrets that we know "
                    "are taken out. Handy when you ask us for help.",
                    class_name="small",
                ),
                class_name="words",
            ),
            rx.cond(
                State.is_watching,
                rx.el.button(
                    "Close",
                    on_click=State.close_log,
                    class_name="button quiet",
                    type="button",
                    id="close-log",
                ),
                rx.el.button(
                    rx.icon("scroll-text", size=17, aria_hidden=True),
                    "Show the log",
                    on_click=State.open_log,
                    class_name="button quiet",
                    type="button",
                    id="open-log",
                ),
            ),
            class_name="row between wrap",
        ),
        rx.cond(State.is_watching, _log()),
        class_name="card stack",
        aria_label="What it writes",
    )


def _log() -> rx.Component:
    return rx.el.div(
        rx.cond(
            State.log_note != "",
            rx.el.p(State.log_note, class_name="small", id="log-note", aria_live="polite"),
        ),
        rx.tabs.root(
            rx.tabs.list(
                rx.tabs.trigger("Log", value="log"),
                rx.tabs.trigger("Events", value="events"),
                rx.cond(
                    State.log_before != "",
                    rx.tabs.trigger("Before its restart", value="before"),
                ),
            ),
            rx.tabs.content(_lines(State.log, "Log, the newest line last"), value="log"),
            rx.tabs.content(
                rx.cond(
                    is_any(State.events),
                    rx.el.ul(rx.foreach(State.events, _step), class_name="timeline events"),
                    rx.el.p("Nothing happened lately.", class_name="small quiet-place"),
                ),
                value="events",
            ),
            rx.tabs.content(_lines(State.log_before, "Log before its restart"), value="before"),
            default_value="log",
        ),
        class_name="stack",
        id="log",
    )


def _lines(text: Text, name: str) -> rx.Component:
    return rx.el.div(
        rx.el.pre(text, class_name="code log"),
        class_name="log-place",
        role="log",
        aria_live="off",
        aria_label=name,
        tab_index=0,
    )
