"""API access: a switch, keys that are shown once, and nobody else's."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlmodel import select

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import AuditLog
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.dashboard.api_access.page import api_access_page
from openclaw_web.dashboard.api_access.state import ApiAccessState
from openclaw_web.metering import queries, service, tokens
from openclaw_web.metering.models import ProxyToken, TokenKind
from tests.factories import make_box, make_subscription
from tests.ui.tab import Tab, customer_cookie, in_app, running_app

ADA, EVE = "ada@example.com", "eve@example.com"
HERE = "/api-access"


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {HERE: ApiAccessState.load}) as client:
        yield client


@pytest.fixture
def ada(client):
    in_app(client, give_box, ADA, api_access=True)
    return customer_cookie(client, ADA)


async def give_box(email, **fields):
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        subscription = await make_subscription(session, customer=customer)
        return await make_box(session, subscription=subscription, **fields)


async def rows(model):
    async with session_scope() as session:
        return list((await session.exec(select(model))).all())


async def audited():
    return sorted(row.action for row in await rows(AuditLog) if row.action.startswith("api."))


def opened(client, cookie):
    tab = Tab(client, HERE, ApiAccessState, cookie=cookie)
    tab.__enter__()
    tab.open()
    return tab


@pytest.fixture
def open_tab(client):
    tabs = []

    def open_one(cookie):
        tabs.append(opened(client, cookie))
        return tabs[-1]

    yield open_one
    for tab in tabs:
        tab.__exit__(None, None, None)


def test_turning_on_and_off_is_written_down(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(customer_cookie(client, ADA))
    assert (tab.sees("has_box"), tab.sees("is_on")) == (True, False)
    tab.does(ApiAccessState.turn_on)
    assert tab.sees("is_on") is True
    tab.does(ApiAccessState.turn_on)
    tab.does(ApiAccessState.turn_off)
    assert tab.sees("is_on") is False
    assert in_app(client, audited) == ["api.off", "api.on"]


def test_a_key_is_shown_once_and_kept_by_name(client, ada, open_tab):
    tab = open_tab(ada)
    tab.does(ApiAccessState.create, form={"label": "  Notebook   at home "})
    clear = tab.sees("new_key")
    assert tokens.looks_like_token(clear)
    (row,) = tab.sees("keys")
    assert (row["label"], row["shown"]) == ("Notebook at home", f"ocp_…{clear[-4:]}")
    assert row["used"] == "never"
    (stored,) = in_app(client, rows, ProxyToken)
    assert (stored.kind, stored.is_unthrottled) == (TokenKind.API, False)
    assert stored.token_hmac == tokens.token_hmac(clear)
    tab.does(ApiAccessState.forget_new_key)
    assert tab.sees("new_key") == ""
    again = open_tab(ada)
    assert clear not in again.heard
    assert in_app(client, audited) == ["api.key_created"]
    told = [row.model_dump_json() for row in in_app(client, rows, AuditLog)]
    assert not any("Notebook" in line or clear in line for line in told)


def test_a_name_that_will_not_do_is_said_beside_it(client, ada, open_tab):
    tab = open_tab(ada)
    for label, problem in (
        ("   ", "Give the key a name"),
        ("x" * 61, "A name may have 60 characters."),
        ("a\x00b", "characters that cannot be shown"),
        (tokens.spell(uuid4(), "s" * 43), "This is a key, not a name."),
        (5, "Give the key a name"),
        (None, "Give the key a name"),
    ):
        tab.does(ApiAccessState.create, form={"label": label})
        assert problem in tab.sees("problem")
    assert in_app(client, rows, ProxyToken) == []


def test_ten_keys_are_enough(client, ada, open_tab):
    tab = open_tab(ada)
    for number in range(11):
        tab.does(ApiAccessState.create, form={"label": f"Program {number}"})
    assert tab.sees("is_full") is True
    assert "10 keys at once are enough" in tab.sees("problem")
    assert len(in_app(client, rows, ProxyToken)) == 10
    tab.does(ApiAccessState.revoke, key_id=tab.sees("keys")[0]["id"])
    assert tab.sees("is_full") is False


def test_while_it_is_off_no_key_is_made(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(customer_cookie(client, ADA))
    tab.does(ApiAccessState.create, form={"label": "Too early"})
    assert tab.sees("problem") == "Turn API access on first."
    assert in_app(client, rows, ProxyToken) == []


def test_a_revoked_key_is_gone(client, ada, open_tab):
    tab = open_tab(ada)
    tab.does(ApiAccessState.create, form={"label": "Old"})
    heard = tab.does(ApiAccessState.revoke, key_id=tab.sees("keys")[0]["id"])
    assert "was revoked" in heard
    assert tab.sees("keys") == []
    (stored,) = in_app(client, rows, ProxyToken)
    assert stored.revoked_at is not None
    assert "There is no such key any more." in tab.does(
        ApiAccessState.revoke, key_id=str(stored.id)
    )
    assert in_app(client, audited) == ["api.key_created", "api.key_revoked"]


def test_a_replaced_key_goes_on_for_a_quarter_of_an_hour(client, ada, open_tab):
    tab = open_tab(ada)
    tab.does(ApiAccessState.create, form={"label": "Shop"})
    old = tab.sees("keys")[0]["id"]
    first = tab.sees("new_key")
    tab.does(ApiAccessState.replace, key_id=old)
    assert tab.sees("new_key") not in {first, "", None}
    assert [key["label"] for key in tab.sees("keys")] == ["Shop", "Shop"]
    assert [bool(key["ending"]) for key in tab.sees("keys")] == [False, True]
    ending = next(row for row in in_app(client, rows, ProxyToken) if str(row.id) == old)
    left = ending.expires_at - real_now()
    assert timedelta(minutes=10) < left <= timedelta(minutes=15)
    assert "was replaced already" in tab.does(ApiAccessState.replace, key_id=old)


def test_nobody_reaches_another_customers_keys(client, ada, open_tab):
    tab = open_tab(ada)
    tab.does(ApiAccessState.create, form={"label": "Ada's own"})
    key_id = tab.sees("keys")[0]["id"]
    in_app(client, give_box, EVE, api_access=True)
    eve = open_tab(customer_cookie(client, EVE))
    assert eve.sees("keys") in (None, [])
    for handler in (ApiAccessState.revoke, ApiAccessState.replace):
        for asked in (key_id, str(uuid4()), "x", None, 5, {"id": key_id}):
            assert "There is no such key any more." in eve.does(handler, key_id=asked)
    eve.does(ApiAccessState.turn_off)
    for secret in (key_id, "Ada's own", tab.sees("new_key")):
        assert secret not in eve.heard
    tab.does(ApiAccessState.refresh, _date="now")
    assert [key["id"] for key in tab.sees("keys")] == [key_id]
    assert tab.sees("is_on") is True
    (stored,) = in_app(client, rows, ProxyToken)
    assert (stored.revoked_at, stored.expires_at) == (None, None)


def test_without_a_session_nothing_happens(client):
    in_app(client, give_box, ADA)
    key_id = str(uuid4())
    with Tab(client, HERE, ApiAccessState) as tab:
        tab.open()
        assert "/login" in tab.does(ApiAccessState.load)
        assert "/login" in tab.does(ApiAccessState.turn_on)
        assert "/login" in tab.does(ApiAccessState.create, form={"label": "x"})
        assert "/login" in tab.does(ApiAccessState.revoke, key_id=key_id)
        assert "/login" in tab.does(ApiAccessState.replace, key_id=key_id)
    assert in_app(client, rows, ProxyToken) == []
    assert [box.api_access for box in in_app(client, rows, Box)] == [False]


@pytest.mark.parametrize("status", [None, BoxStatus.DESTROYED])
def test_without_an_assistant_there_is_nothing_to_turn_on(client, open_tab, status):
    if status is not None:
        in_app(client, give_box, ADA, status=status)
    tab = open_tab(customer_cookie(client, ADA))
    assert tab.sees("is_loaded") is True
    assert tab.sees("has_box") in {None, False}
    assert "There is no assistant." in tab.does(ApiAccessState.turn_on)
    tab.does(ApiAccessState.create, form={"label": "x"})
    assert tab.sees("problem") == "There is no assistant."


def test_a_paused_assistant_says_that_its_keys_rest(client, open_tab):
    in_app(client, give_box, ADA, api_access=True, status=BoxStatus.SUSPENDED)
    assert open_tab(customer_cookie(client, ADA)).sees("is_asleep") is True


def test_the_examples_name_our_address(ada, open_tab):
    tab = open_tab(ada)
    assert tab.sees("base_url") == "http://localhost:3000/proxy/v1"
    for example in ("curl", "python"):
        assert tab.sees("base_url") in tab.sees(example)
        assert "k2p5" in tab.sees(example)


def test_a_failure_is_said_in_one_sentence(ada, open_tab, monkeypatch, caplog):
    async def broken(*_args, **_named):
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(queries, "api_keys_of_customer", broken)
    tab = open_tab(ada)
    assert tab.sees("error").startswith("This page could not be loaded")
    assert "a secret of ours" not in tab.heard
    assert "a secret of ours" in caplog.text


def test_the_page_can_be_drawn():
    drawn = str(api_access_page())
    assert "turn-on" in drawn
    assert str(service.MOST_API_KEYS) in drawn
