"""Usage: every token of a customer, counted in three ways that agree."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts import service as accounts
from openclaw_web.core.database import session_scope
from openclaw_web.dashboard.usage.page import usage_page
from openclaw_web.dashboard.usage.state import CHART_DAYS, EVENTS_SHOWN, UsageState, banner_of
from openclaw_web.jobs.models import Alert
from openclaw_web.metering import service as metering
from openclaw_web.metering import tasks as metering_tasks
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.metering.queries import CurrentUsage
from tests.factories import make_box, make_period, make_subscription, now
from tests.ui.tab import Tab, customer_cookie, in_app, running_app

ADA, EVE = "ada@example.com", "eve@example.com"


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {"/usage": UsageState.load}) as client:
        yield client


@pytest.fixture
def ada(client):
    return customer_cookie(client, ADA)


async def use(email, *, requests=0, days_ago=0, prompt=900, completion=100, **fields):
    """Let a customer's box ask the model, at the same hour on one day."""
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        start = now() - timedelta(days=10)
        subscription = await make_subscription(
            session, customer=customer, current_period_start=start
        )
        box = await make_box(session, subscription=subscription)
        period = await make_period(session, subscription=subscription)
        settled = await metering.settle(
            session,
            [
                Event(
                    request_id=f"req_{email}_{number}",
                    customer_id=customer.id,
                    box_id=box.id,
                    period_start=period.period_start,
                    timestamp=now() - timedelta(days=days_ago, milliseconds=requests - number),
                    model="k2p5",
                    prompt_tokens=prompt + number,
                    completion_tokens=completion,
                    **fields,
                )
                for number in range(requests)
            ],
        )
        assert not settled.rejected
        return customer.id


async def alerts():
    async with session_scope() as session:
        return list((await session.exec(select(Alert))).all())


async def spoil(customer_id):
    async with session_scope() as session:
        await session.exec(
            sa.update(UsageMonthly)
            .where(col(UsageMonthly.customer_id) == customer_id)
            .values(tokens_used=7)
        )


def opened(client, cookie):
    with Tab(client, "/usage", UsageState, cookie=cookie) as tab:
        tab.open()
        return tab


def test_without_use_the_page_is_empty_and_whole(client, ada):
    tab = opened(client, ada)
    assert tab.sees("is_loaded") is True
    assert len(tab.sees("days")) == CHART_DAYS
    assert {(row["prompt"], row["completion"]) for row in tab.sees("days")} == {(0, 0)}
    assert tab.sees("has_events") in {None, False}
    assert tab.sees("sums") in (None, [])


def test_requests_sums_and_chart_agree(client, ada):
    in_app(client, use, ADA, requests=4, latency_ms=2_345, cached_tokens=800)
    tab = opened(client, ada)
    assert [row["total"] for row in tab.sees("events")] == ["1,003", "1,002", "1,001", "1,000"]
    newest = tab.sees("events")[0]
    assert (newest["model"], newest["time"], newest["note"]) == ("k2p5", "2.3 s", "")
    assert {line["tokens"] for line in tab.sees("sums")} == {"4,006"}
    assert tab.sees("used") == "4,006"
    assert tab.sees("sums_agree") in {None, True}
    today = tab.sees("days")[-1]
    assert (today["prompt"], today["completion"]) == (3_606, 400)
    assert in_app(client, alerts) == []


def test_the_chart_has_a_place_for_each_day(client, ada):
    in_app(client, use, ADA, requests=1, days_ago=3)
    days = opened(client, ada).sees("days")
    assert [row["prompt"] for row in days].index(900) == CHART_DAYS - 4
    assert days[-1]["day"] == now().strftime("%-d %b")


def test_only_the_newest_requests_are_listed(client, ada):
    in_app(client, use, ADA, requests=EVENTS_SHOWN + 5)
    events = opened(client, ada).sees("events")
    assert len(events) == EVENTS_SHOWN
    assert events[0]["prompt"] == str(900 + EVENTS_SHOWN + 4)


def test_an_estimate_is_called_one(client, ada):
    in_app(client, use, ADA, requests=1, estimated=True)
    assert opened(client, ada).sees("events")[0]["note"] == "estimated"


def test_sums_that_disagree_are_shown_and_reported(client, ada):
    customer_id = in_app(client, use, ADA, requests=2)
    in_app(client, spoil, customer_id)
    tab = opened(client, ada)
    assert tab.sees("sums_agree") is False
    (alert,) = in_app(client, alerts)
    assert (alert.code, alert.subject) == ("meter_disagrees", str(customer_id))


def test_the_page_says_when_the_meter_was_checked(client, ada):
    customer_id = in_app(client, use, ADA, requests=4)
    tab = opened(client, ada)
    assert tab.sees("checked") == "Checked just now: 3 sums agree."
    in_app(client, metering_tasks.check_meter, customer_id)
    tab = opened(client, ada)
    assert tab.sees("checked") == "Checked just now: 3 sums agree."
    assert "Every single request was added up again just now" in tab.sees("checked_note")


def test_a_difference_on_a_page_has_the_meter_checked_and_mended(client, ada):
    customer_id = in_app(client, use, ADA, requests=2)
    in_app(client, metering_tasks.check_meter, customer_id)
    in_app(client, spoil, customer_id)
    assert opened(client, ada).sees("sums_agree") is False
    assert in_app(client, metering_tasks.check_meters) == 1
    assert opened(client, ada).sees("sums_agree") in {None, True}


def test_a_banner_tells_when_the_tokens_are_gone(client, ada):
    in_app(client, use, ADA, requests=1, prompt=10_000_000)
    tab = opened(client, ada)
    assert tab.sees("banner_tone") == "error"
    assert "All tokens of this period are used" in tab.sees("banner")


@pytest.mark.parametrize(
    ("used", "provisional", "tone", "word"),
    [
        (749, False, "", ""),
        (750, False, "warning", "75 %"),
        (900, False, "warning", "90 %"),
        (1_000, False, "error", "All tokens"),
        (999, True, "", "payment is on the way"),
    ],
)
def test_a_banner_tells_in_time(used, provisional, tone, word):
    usage = CurrentUsage(used, 1_000, now(), now(), used / 10, is_provisional=provisional)
    sentence, urgency = banner_of(usage)
    assert urgency == tone
    assert word in sentence
    assert bool(sentence) is bool(word)


def test_the_page_can_be_drawn():
    drawn = str(usage_page())
    assert 'id:"checked"' in drawn
    assert "/usage/export.csv" in drawn


def test_nothing_of_another_customer_appears(client, ada):
    customer_id = in_app(client, use, EVE, requests=3, prompt=555_000)
    tab = opened(client, ada)
    assert tab.sees("events") in (None, [])
    for secret in ("555,00", "555000", EVE, str(customer_id)):
        assert secret not in tab.heard


def test_a_customer_sees_only_their_own_among_many(client, ada):
    in_app(client, use, EVE, requests=3, prompt=555_000)
    in_app(client, use, ADA, requests=1)
    tab = opened(client, ada)
    assert [row["total"] for row in tab.sees("events")] == ["1,000"]
    assert sum(row["prompt"] for row in tab.sees("days")) == 900


def test_without_a_session_nothing_is_shown(client):
    in_app(client, use, ADA, requests=1, prompt=555_000)
    with Tab(client, "/usage", UsageState) as tab:
        assert "/login?next=%2Fusage" in tab.open()
        tab.does(UsageState.refresh, _date="now")
        assert "555,000" not in tab.heard
        assert "555000" not in tab.heard
