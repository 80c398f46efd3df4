"""The simulated clock: periods turn, cards are tried again, sessions expire."""

import signal
from itertools import pairwise

import pytest

from simulators.stripe.anchors import period_end
from tests.contracts.stripe_running import (
    at,
    item_of,
    make_clock,
    make_customer,
    make_price,
    make_session,
    make_subscription,
    running,
    wait_for,
)

pytest_plugins = ["tests.contracts.stripe_fixtures"]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    """A simulator for this file alone: what other tests made would be renewed along the way."""
    with running(tmp_path_factory.mktemp("stripe")) as started:
        yield started


@pytest.fixture(scope="module")
def client(simulator):
    return simulator.client()


@pytest.fixture
def fresh(fresh_stripe):
    return fresh_stripe


def subscribe(client, simulator, card):
    """Subscribe on the page, where also the card that fails later pays."""
    session = make_session(client, make_price(client))
    form = {"email": "ada@example.com", "name": "Ada", "card": card}
    assert simulator.browser().post(f"/c/pay/{session.id}", data=form).status_code == 303
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]})
    return paid.subscription


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2026-01-31T10:00", "2026-02-28T10:00"),
        ("2026-02-28T10:00", "2026-03-31T10:00"),
        ("2026-03-31T10:00", "2026-04-30T10:00"),
        ("2026-03-30T09:00", "2026-03-31T10:00"),
        ("2027-12-31T10:00", "2028-01-31T10:00"),
        ("2028-01-31T10:00", "2028-02-29T10:00"),
    ],
)
def test_months_are_counted_from_the_anchor(after, expected):
    assert period_end(at("2026-01-31T10:00"), at(after), "month", 1) == at(expected)


@pytest.mark.parametrize(
    ("interval", "count", "expected"),
    [
        ("day", 1, "2026-02-01T10:00"),
        ("week", 2, "2026-02-14T10:00"),
        ("month", 3, "2026-04-30T10:00"),
        ("year", 1, "2027-01-31T10:00"),
    ],
)
def test_the_first_period_has_the_length_of_its_interval(interval, count, expected):
    start = at("2026-01-31T10:00")
    assert period_end(start, start, interval, count) == at(expected)


def test_a_period_turns_first_and_is_paid_an_hour_later(simulator, client):
    made = make_subscription(client)
    end = item_of(made).current_period_end
    now = simulator.browser().get("/_control/clock").json()
    assert now["now"] < now["next_due_at"] <= end
    simulator.advance(seconds=end - now["now"])
    turned = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
    assert item_of(turned).current_period_start == end
    assert (turned.status, turned.latest_invoice.status) == ("active", "draft")
    simulator.advance(hours=1, seconds=5)
    invoice = client.v1.invoices.retrieve(turned.latest_invoice.id)
    assert (invoice.status, invoice.billing_reason) == ("paid", "subscription_cycle")
    assert invoice.status_transitions.paid_at == end + 3600


def test_half_a_year_makes_six_paid_invoices_more(simulator, client):
    made = make_subscription(client)
    simulator.advance(days=186)
    invoices = client.v1.invoices.list({"subscription": made.id, "status": "paid"}).data
    assert len(invoices) == 7
    periods = [
        (one.lines.data[0].period.start, one.lines.data[0].period.end) for one in invoices[::-1]
    ]
    assert all(one[1] == two[0] for one, two in pairwise(periods))


def test_a_card_that_fails_makes_the_subscription_past_due_and_at_last_cancels_it(
    simulator, client
):
    made = subscribe(client, simulator, "4000000000000341")
    assert made.status == "active"
    simulator.advance(days=32)
    late = client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]})
    assert (late.status, late.latest_invoice.status) == ("past_due", "open")
    assert late.latest_invoice.attempt_count == 1
    assert late.latest_invoice.next_payment_attempt
    assert client.v1.customers.retrieve(made.customer).delinquent
    simulator.advance(days=16)
    gone = client.v1.subscriptions.retrieve(made.id)
    assert (gone.status, gone.cancellation_details.reason) == ("canceled", "payment_failed")
    assert client.v1.invoices.retrieve(late.latest_invoice.id).attempt_count == 4


def test_a_late_payment_makes_the_subscription_active_again(simulator, client):
    made = subscribe(client, simulator, "4000000000000341")
    simulator.advance(days=32)
    good = client.v1.payment_methods.attach("pm_card_visa", {"customer": made.customer})
    client.v1.subscriptions.update(made.id, {"default_payment_method": good.id})
    late = client.v1.subscriptions.retrieve(made.id)
    assert late.status == "past_due"
    assert client.v1.invoices.pay(late.latest_invoice).status == "paid"
    assert client.v1.subscriptions.retrieve(made.id).status == "active"
    assert not client.v1.customers.retrieve(made.customer).delinquent


def test_the_account_may_keep_unpaid_subscriptions(simulator, client):
    browser = simulator.browser()
    browser.post("/_control/settings", json={"after_last_retry": "unpaid"})
    made = subscribe(client, simulator, "4000000000000341")
    simulator.advance(days=48)
    assert client.v1.subscriptions.retrieve(made.id).status == "unpaid"
    browser.post("/_control/settings", json={"after_last_retry": "cancel"})


def test_a_cancellation_at_the_end_ends_at_the_end(simulator, client):
    made = make_subscription(client)
    made = client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert made.cancel_at_period_end
    simulator.advance(days=32)
    ended = client.v1.subscriptions.retrieve(made.id)
    assert (ended.status, ended.ended_at) == ("canceled", item_of(made).current_period_end)
    assert len(client.v1.invoices.list({"subscription": made.id}).data) == 1


def test_a_first_payment_that_never_comes_expires(simulator, client):
    made = make_subscription(client, "pm_card_chargeCustomerFail")
    assert made.status == "incomplete"
    simulator.advance(hours=24)
    assert client.v1.subscriptions.retrieve(made.id).status == "incomplete_expired"
    assert client.v1.invoices.retrieve(made.latest_invoice).status == "void"


def test_a_session_expires_by_itself(simulator, client):
    session = make_session(client, make_price(client))
    simulator.advance(hours=24, seconds=1)
    assert client.v1.checkout.sessions.retrieve(session.id).status == "expired"
    event = client.v1.events.list({"type": "checkout.session.expired"}).data[0]
    assert (event.data.object.id, event.created) == (session.id, session.expires_at)


def test_both_kinds_of_clocks_survive_a_kill(fresh):
    client = fresh.client()
    fresh.advance(days=10)
    before = client.v1.customers.create({}).created
    clock = make_clock(client, "2027-01-31T10:00")
    customer = make_customer(client, test_clock=clock.id)
    price = make_price(client)
    made = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]})
    target = at("2027-03-30T10:00")
    client.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": target})
    fresh.stop(signal.SIGKILL)
    fresh.start()
    client = fresh.client()
    wait_for(client, clock, target)
    assert len(client.v1.invoices.list({"subscription": made.id, "status": "paid"}).data) == 2
    assert 0 <= client.v1.customers.create({}).created - before < 3600
    refused = fresh.browser().post("/_control/clock/advance", json={"seconds": -1})
    assert refused.status_code == 400
    assert fresh.browser().get("/_control/clock").json()["offset_seconds"] == 10 * 86400


def test_a_change_without_an_invoice_waits_for_the_next_one(simulator, client):
    made = make_subscription(client)
    bigger = make_price(client, unit_amount=5000)
    simulator.advance(days=10)
    client.v1.subscriptions.update(
        made.id, {"items": [{"id": item_of(made).id, "price": bigger.id}]}
    )
    waiting = client.v1.invoice_items.list({"customer": made.customer, "pending": True}).data
    assert [one.amount < 0 for one in waiting] == [False, True]
    simulator.advance(days=22)
    invoice = client.v1.invoices.list({"subscription": made.id}).data[0]
    assert len(invoice.lines.data) == 3
    assert invoice.amount_paid == 5000 + sum(one.amount for one in waiting)


def test_a_card_that_ran_out_is_refused_unless_its_bank_tells_the_new_date(simulator, client):
    browser = simulator.browser()
    made = [make_subscription(client) for _ in range(2)]
    now = client.v1.subscriptions.retrieve(made[0].id).created
    for one in made:
        card = {"exp_month": 1, "exp_year": 1970 + now // 31_556_952}
        client.v1.payment_methods.update(one.default_payment_method, {"card": card})
    simulator.advance(days=32)
    late = client.v1.subscriptions.retrieve(made[0].id, {"expand": ["latest_invoice.payments"]})
    intent = late.latest_invoice.payments.data[0].payment.payment_intent
    failed = client.v1.payment_intents.retrieve(intent)
    assert (late.status, failed.last_payment_error.code) == ("past_due", "expired_card")
    assert browser.post("/_control/settings", json={"card_updater": True}).json()["card_updater"]
    simulator.advance(days=4)
    assert client.v1.subscriptions.retrieve(made[0].id).status == "active"
    kinds = {one.type for one in client.v1.events.list({"limit": 100}).data}
    assert "payment_method.automatically_updated" in kinds
    browser.post("/_control/settings", json={"card_updater": False})
