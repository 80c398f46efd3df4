"""The settings: previewed before they are saved, read with a sentence for each mistake."""

import pytest
from sqlmodel import col, select

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import AuditLog
from openclaw_web.billing.models import Tier
from openclaw_web.boxes import revisions
from openclaw_web.boxes.models import Box, BoxRevision
from openclaw_web.boxes.reloading import RESTART_TAKES
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.dashboard.box_settings import reading
from openclaw_web.dashboard.box_settings.page import box_settings_page
from openclaw_web.dashboard.box_settings.state import BoxSettingsState as State
from openclaw_web.jobs.models import OperatorJob
from tests.factories import make_box, make_subscription
from tests.ui.tab import Tab, customer_cookie, in_app, running_app

ADA, EVE = "ada@example.com", "eve@example.com"
HERE = "/box/settings"
OWNER, OTHER = 111222333, 444555666


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {HERE: State.load}) as client:
        yield client


@pytest.fixture
def open_tab(client):
    tabs = []

    def open_one(email):
        tab = Tab(client, HERE, State, cookie=customer_cookie(client, email))
        tab.__enter__()
        tabs.append(tab)
        tab.open()
        return tab

    yield open_one
    for tab in tabs:
        tab.__exit__(None, None, None)


async def give_box(email, *, tier=Tier.PRO, **fields):
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        subscription = await make_subscription(session, customer=customer, tier=tier)
        return await make_box(session, subscription=subscription, **fields)


async def rows(model):
    async with session_scope() as session:
        return list((await session.exec(select(model))).all())


async def newest():
    async with session_scope() as session:
        statement = select(BoxRevision).order_by(col(BoxRevision.generation).desc()).limit(1)
        return (await session.exec(statement)).one()


def form(**changed):
    return {
        "language": "en",
        "model": "kimi-coding/k2p5",
        "thinking_level": "medium",
        "use_case": "",
        "style": "",
        "limit_behaviour": "polite",
        **changed,
    }


def test_the_form_begins_with_what_is_set(client, open_tab):
    in_app(client, give_box, ADA, language="de", thinking_level="high")
    tab = open_tab(ADA)
    assert [tab.sees(name) for name in ("language", "thinking_level", "limit_behaviour")] == [
        "de",
        "high",
        "polite",
    ]
    assert tab.sees("people") == [{"id": str(OWNER), "role": "owner"}]
    assert tab.sees("people_note") == "The Pro plan is for 3 people. There is room for 2 more."
    assert next(one["value"] for one in tab.sees("models")) == tab.sees("model")


def test_a_change_is_shown_before_it_is_saved(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    tab.does(State.look_at, form=form(thinking_level="high", language="de"))
    assert tab.sees("is_asking") is True
    assert {(one["before"], one["after"]) for one in tab.sees("changes")} == {
        ("English", "German"),
        ("medium", "high"),
    }
    assert RESTART_TAKES in tab.sees("takes")
    assert in_app(client, rows, OperatorJob) == []
    heard = tab.does(State.save)
    assert "Saved." in heard
    assert tab.sees("is_asking") is False
    assert tab.sees("thinking_level") == "high"
    assert (tab.sees("badge"), in_app(client, newest).spec["language"]) == ("Being applied", "de")
    assert len(in_app(client, rows, OperatorJob)) == 1
    (line,) = [row for row in in_app(client, rows, AuditLog) if row.action == "box.settings"]
    assert line.diff == {"changed": ["language", "thinking_level"]}


def test_what_was_not_confirmed_is_not_saved(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    tab.does(State.save)
    tab.does(State.look_at, form=form(thinking_level="high"))
    tab.does(State.stop_asking, is_open=False)
    tab.does(State.save)
    assert in_app(client, rows, OperatorJob) == []
    assert [box.thinking_level for box in in_app(client, rows, Box)] == ["medium"]


def test_somebody_is_added_and_taken_off_again(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    tab.does(State.add_person, form={"person": " 444 555 666 "})
    assert [one["id"] for one in tab.sees("people")] == [str(OWNER), str(OTHER)]
    tab.does(State.refresh, _date="now")
    assert len(tab.sees("people")) == 2  # a look at the database does not take a draft away
    tab.does(State.look_at, form=form())
    tab.does(State.save)
    assert [box.telegram_user_ids for box in in_app(client, rows, Box)] == [[OWNER, OTHER]]
    tab.does(State.remove_person, person=str(OTHER))
    tab.does(State.remove_person, person=str(OWNER))
    assert [one["id"] for one in tab.sees("people")] == [str(OWNER)]
    tab.does(State.look_at, form=form())
    assert tab.sees("restarts") is True  # somebody who is shut out must be out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("@ada", "Names with an @ do not work"),
        ("", "A Telegram id is a number"),
        ("0", "A Telegram id is a number"),
        ("9" * 30, "A Telegram id is a number"),
        ("٣٤٥", "A Telegram id is a number"),
        (str(OWNER), "on the list already"),
        (None, "A Telegram id is a number"),
    ],
)
def test_a_wrong_id_is_said_beside_it(text, problem):
    with pytest.raises(ValidationError, match=problem):
        reading.person(text, [OWNER], 3, "Pro")


def test_a_full_list_names_the_plan(client, open_tab):
    in_app(client, give_box, ADA, tier=Tier.STARTER)
    tab = open_tab(ADA)
    assert tab.sees("is_full") is True
    tab.does(State.add_person, form={"person": str(OTHER)})
    assert "The Starter plan is for 1 person. Upgrade" in tab.sees("person_problem")
    assert len(tab.sees("people")) == 1


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"language": "xx"}, "Choose a language"),
        ({"language": None}, "Choose a language"),
        ({"thinking_level": "huge"}, "Choose a thinking level"),
        ({"limit_behaviour": "shout"}, "at the limit"),
        ({"model": "kimi-coding/k3"}, "does not have this model"),
        ({"use_case": "x" * 501}, "may have 500 characters"),
        ({"style": ["a"], "language": {"a": 1}}, "Choose a language"),
    ],
)
def test_a_mistake_is_said_and_nothing_typed_is_lost(client, open_tab, changed, problem):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    version = tab.sees("version")
    tab.does(State.add_person, form={"person": str(OTHER)})
    tab.does(State.look_at, form=form(**changed))
    assert problem in tab.sees("problem")
    assert not tab.sees("is_asking")
    assert (tab.sees("version"), len(tab.sees("people"))) == (version, 2)
    tab.does(State.look_at, form=form(thinking_level="low"))
    assert tab.sees("problem") == ""
    assert in_app(client, rows, OperatorJob) == []


def test_without_a_change_there_is_nothing_to_save(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    tab.does(State.look_at, form=form(use_case="  "))
    assert "nothing to save" in tab.sees("note")
    assert not tab.sees("is_asking")


def test_what_happens_at_the_limit_needs_no_job(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    tab.does(State.look_at, form=form(limit_behaviour="error"))
    assert [one["name"] for one in tab.sees("changes")] == ["At the limit"]
    assert (tab.sees("takes"), tab.sees("restarts")) == ("Takes effect at once.", False)
    tab.does(State.save)
    assert [box.limit_behaviour for box in in_app(client, rows, Box)] == ["error"]
    assert in_app(client, rows, OperatorJob) == []


def test_settings_that_did_not_work_are_said_to_have_gone_back(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    tab.does(State.look_at, form=form(thinking_level="max"))
    tab.does(State.save)

    async def fail():
        async with session_scope() as session:
            found = (await session.exec(select(BoxRevision))).all()
            await revisions.give_up(session, max(found, key=lambda one: one.generation), reason="x")

    in_app(client, fail)
    tab.does(State.refresh, _date="now")
    assert tab.sees("badge") == "Went back"
    assert "former settings" in tab.sees("applied")


def test_nobody_sees_or_changes_another_customers_settings(client, open_tab):
    in_app(client, give_box, ADA, telegram_user_ids=[OTHER])
    in_app(client, give_box, EVE)
    eve = open_tab(EVE)
    eve.does(State.look_at, form=form(thinking_level="high"))
    eve.does(State.save)
    assert str(OTHER) not in eve.heard
    levels = {box.telegram_user_ids[0]: box.thinking_level for box in in_app(client, rows, Box)}
    assert levels == {OTHER: "medium", OWNER: "high"}


def test_without_a_session_nothing_happens(client):
    in_app(client, give_box, ADA)
    with Tab(client, HERE, State) as tab:
        tab.open()
        assert "/login" in tab.does(State.load)
        assert "/login" in tab.does(State.look_at, form=form(thinking_level="high"))
        assert "/login" in tab.does(State.save)
        assert "/login" in tab.does(State.add_person, form={"person": str(OTHER)})
    assert [box.thinking_level for box in in_app(client, rows, Box)] == ["medium"]


def test_without_an_assistant_there_is_nothing_to_set(open_tab):
    tab = open_tab(EVE)
    assert (tab.sees("is_loaded"), bool(tab.sees("has_box"))) == (True, False)
    tab.does(State.look_at, form=form())
    assert tab.sees("problem") == "There is no assistant."


def test_the_page_can_be_drawn():
    drawn = str(box_settings_page())
    for mark in ("person", "look-at", "userinfobot", "thinking_level", "limit_behaviour"):
        assert mark in drawn
