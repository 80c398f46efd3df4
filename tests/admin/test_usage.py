"""The admin's page of the meters: what differs, what was refused, and what may be done about it."""

from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts.models import AuditLog, CustomerAuth, Role
from openclaw_web.accounts.service import find_customer_by_email
from openclaw_web.admin.usage.page import usage_page
from openclaw_web.admin.usage.state import AdminUsageState, verdict
from openclaw_web.core.database import session_scope
from openclaw_web.metering import service as metering
from openclaw_web.metering import tasks
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.models import UsageMonthly, UsageReject
from openclaw_web.metering.overview import MeterFigures
from tests.factories import make_box, make_customer, make_period, make_subscription, now
from tests.ui.tab import Tab, admin_cookie, customer_cookie, in_app, running_app

ADA = "ada@example.com"


@pytest.fixture
def client(database, valkey_server):
    pages = {"/admin/usage": AdminUsageState.load}
    with running_app(database, valkey_server.url, pages) as client:
        yield client


@pytest.fixture
def root(client):
    return admin_cookie(client, "root@example.com")


async def refuse_an_event():
    """Have the ledger refuse an event of a period that is not there; return the period's start."""
    async with session_scope() as session:
        customer = await make_customer(session, email=ADA)
        subscription = await make_subscription(session, customer=customer)
        box = await make_box(session, subscription=subscription)
        await make_period(session, subscription=subscription)
        start = now() - timedelta(days=90)
        event = Event(
            request_id=f"req_{uuid4()}",
            customer_id=customer.id,
            box_id=box.id,
            period_start=start,
            timestamp=start + timedelta(hours=1),
            model="k2p5",
            prompt_tokens=1_000,
            completion_tokens=234,
        )
        await metering.settle(session, [event])
        return customer.id, start


async def open_period(customer_id, start):
    async with session_scope() as session:
        await metering.open_period(
            session,
            customer_id=customer_id,
            period_start=start,
            period_end=start + timedelta(days=30),
            tokens_limit=9,
        )


async def spoil_and_check(customer_id):
    async with session_scope() as session:
        await session.exec(
            sa.update(UsageMonthly)
            .where(col(UsageMonthly.customer_id) == customer_id)
            .values(tokens_used=7)
        )
    await tasks.check_meter(customer_id)


async def rows(table):
    async with session_scope() as session:
        return list((await session.exec(select(table))).all())


def figures(tab):
    return {one["name"]: one["value"] for one in tab.sees("figures")}


def test_without_trouble_the_page_says_so(client, root):
    with Tab(client, "/admin/usage", AdminUsageState, cookie=root) as tab:
        tab.open()
        assert figures(tab) == {
            "Meters checked": "0 of 0",
            "Meters that differ": "0",
            "Set right": "0",
            "Refused events": "0",
        }
        assert tab.sees("rejects") in (None, [])
        assert tab.sees("may_act") is True


def test_a_refused_event_is_tried_again_until_it_is_written(client, root):
    customer_id, start = in_app(client, refuse_an_event)
    with Tab(client, "/admin/usage", AdminUsageState, cookie=root) as tab:
        tab.open()
        (row,) = tab.sees("rejects")
        assert (row["customer"], row["tokens"], row["tries"]) == (ADA, "1,234", "")
        assert row["reason"] == "The customer has no such period."
        assert "refused it again" in tab.does(AdminUsageState.retry, reject_id=row["id"])
        assert tab.sees("rejects")[0]["tries"].startswith("tried again once, ")
        in_app(client, open_period, customer_id, start)
        assert "in the ledger now" in tab.does(AdminUsageState.retry, reject_id=row["id"])
        assert tab.sees("rejects") == []
        assert "settled already" in tab.does(AdminUsageState.retry, reject_id=row["id"])
    written = [row for row in in_app(client, rows, AuditLog) if row.resource_type == "usage_reject"]
    assert [(row.action, row.actor_type) for row in written] == [("usage.reject_written", "admin")]


def test_setting_aside_asks_why(client, root):
    in_app(client, refuse_an_event)
    with Tab(client, "/admin/usage", AdminUsageState, cookie=root) as tab:
        tab.open()
        tab.does(AdminUsageState.choose, reject_id=tab.sees("rejects")[0]["id"])
        assert "Say why" in tab.does(AdminUsageState.set_aside)
        tab.does(AdminUsageState.set_reason, text="A load test\x00 of ours")
        assert "set aside" in tab.does(AdminUsageState.set_aside)
        assert (tab.sees("rejects"), tab.sees("chosen")) == ([], "")
    (reject,) = in_app(client, rows, UsageReject)
    assert (reject.resolution, reject.note) == ("set_aside", "A load test of ours")


def test_a_meter_that_was_set_right_is_listed(client, root):
    customer_id, _ = in_app(client, refuse_an_event)
    in_app(client, spoil_and_check, customer_id)
    with Tab(client, "/admin/usage", AdminUsageState, cookie=root) as tab:
        tab.open()
        assert figures(tab)["Set right"] == "1"
        (row,) = tab.sees("meters")
        assert (row["customer"], row["verdict"], row["tokens"]) == (ADA, "agrees", "0")
        assert row["repairs"].startswith("1, ")


def test_nonsense_changes_nothing(client, root, caplog):
    with Tab(client, "/admin/usage", AdminUsageState, cookie=root) as tab:
        tab.open()
        for nonsense in ("", "x", None, 7, {"a": 1}, "\x00", "\ud800", str(uuid4())):
            assert "no such refused event" in tab.does(AdminUsageState.retry, reject_id=nonsense)
            tab.does(AdminUsageState.choose, reject_id=nonsense)
            tab.does(AdminUsageState.set_reason, text=nonsense)
            tab.does(AdminUsageState.set_aside)
    assert "Traceback" not in caplog.text


async def make_support(email):
    async with session_scope() as session:
        customer = await find_customer_by_email(session, email)
        assert customer is not None
        auth = await session.get(CustomerAuth, customer.id)
        assert auth is not None
        auth.role = Role.SUPPORT
        session.add(auth)


def test_support_may_look_and_not_touch(client):
    in_app(client, refuse_an_event)
    cookie = customer_cookie(client, "help@example.com")
    in_app(client, make_support, "help@example.com")
    with Tab(client, "/admin/usage", AdminUsageState, cookie=cookie) as tab:
        tab.open()
        (row,) = tab.sees("rejects")
        assert tab.sees("may_act") in {None, False}
        assert "Only an admin" in tab.does(AdminUsageState.retry, reject_id=row["id"])
        assert "Only an admin" in tab.does(AdminUsageState.set_aside)


def test_a_customer_sees_and_does_nothing_here(client):
    in_app(client, refuse_an_event)
    (reject,) = in_app(client, rows, UsageReject)
    eve = customer_cookie(client, "eve@example.com")
    with Tab(client, "/admin/usage", AdminUsageState, cookie=eve) as tab:
        assert '"/home"' in tab.open()
        tab.does(AdminUsageState.retry, reject_id=str(reject.id))
        assert ADA not in tab.heard
    (after,) = in_app(client, rows, UsageReject)
    assert after.attempt == 0


def test_the_page_can_be_drawn():
    drawn = str(usage_page())
    assert 'id:"rejects"' in drawn
    assert 'id:"meters"' in drawn


@pytest.mark.parametrize(
    ("checked", "differing", "said"),
    [(0, 0, "of those checked so far"), (4, 0, "all agree"), (4, 1, "a person has to look")],
)
def test_what_nobody_has_checked_is_not_said_to_agree(checked, differing, said):
    found = MeterFigures(
        running=4, checked=checked, differing=differing, repaired=0, oldest_check=None
    )
    assert verdict(found) == said
