"""Test clocks, and what a subscription does while one is moved. Stripe itself can be asked."""

import pytest
import stripe

from tests.contracts.stripe_running import (
    at,
    day_of,
    item_of,
    make_clock,
    make_customer,
    make_price,
    move,
)

pytest_plugins = ["tests.contracts.stripe_fixtures"]
DAY = 86_400


@pytest.fixture(scope="module")
def client(stripe_account):
    return stripe_account


@pytest.fixture
def clock(client):
    """A test clock on the last day of a January, forgotten afterwards."""
    made = make_clock(client, "2027-01-31T10:00")
    yield made
    client.v1.test_helpers.test_clocks.delete(made.id)


def subscribe(client, clock, card="pm_card_visa", **more):
    """Return a new subscription of a new customer on the clock."""
    customer = make_customer(client, card, test_clock=clock.id)
    wish = {"items": [{"price": make_price(client).id}], "customer": customer.id}
    return client.v1.subscriptions.create({**wish, **more})


def again(client, subscription, *expand):
    return client.v1.subscriptions.retrieve(subscription.id, {"expand": list(expand)})


def starts_of(client, subscription):
    """Return the days on which the paid periods began, the first one first."""
    invoices = client.v1.invoices.list({"subscription": subscription.id, "limit": 100}).data
    return [day_of(one.lines.data[0].period.start) for one in reversed(invoices)]


def kinds_of(client, subscription):
    events = client.v1.events.list({"limit": 100}).data
    return {one.type for one in events if one.data.object.id == subscription.id}


def test_a_customer_on_a_clock_lives_in_its_time_alone(client, clock):
    made = subscribe(client, clock)
    assert (made.test_clock, made.created) == (clock.id, clock.frozen_time)
    assert client.v1.invoices.retrieve(made.latest_invoice).created == clock.frozen_time
    listed = client.v1.customers.list({"test_clock": clock.id}).data
    assert [one.id for one in listed] == [made.customer]
    assert client.v1.customers.list({"email": "ada@example.com", "limit": 1}).data != listed


def test_an_anchor_on_the_last_day_of_january_keeps_to_the_last_days(client, clock):
    made = subscribe(client, clock)
    for moment in ("2027-03-30T12:00", "2027-05-30T12:00", "2027-06-01T12:00"):
        move(client, clock, at(moment))
    assert starts_of(client, made) == [
        "2027-01-31",
        "2027-02-28",
        "2027-03-31",
        "2027-04-30",
        "2027-05-31",
    ]


def test_a_renewal_is_a_draft_for_an_hour_and_then_paid(client, clock):
    made = subscribe(client, clock)
    turn = item_of(made).current_period_end
    move(client, clock, turn)
    drafted = again(client, made, "latest_invoice")
    assert (drafted.status, drafted.latest_invoice.status) == ("active", "draft")
    assert drafted.latest_invoice.automatically_finalizes_at == turn + 3600
    move(client, clock, turn + 3700)
    paid = again(client, made, "latest_invoice").latest_invoice
    assert (paid.status, paid.billing_reason) == ("paid", "subscription_cycle")


def test_a_clock_goes_forwards_and_at_most_two_periods_at_once(client, clock):
    clocks = client.v1.test_helpers.test_clocks
    subscribe(client, clock)
    for moment in (clock.frozen_time, clock.frozen_time + 100 * DAY):
        with pytest.raises(stripe.InvalidRequestError):
            clocks.advance(clock.id, {"frozen_time": moment})


def test_a_deleted_clock_takes_its_customers_along(client):
    clock = make_clock(client, "2027-01-31T10:00")
    made = subscribe(client, clock)
    assert client.v1.test_helpers.test_clocks.delete(clock.id).deleted
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.test_helpers.test_clocks.retrieve(clock.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.subscriptions.cancel(made.id)


def test_a_trial_costs_nothing_is_announced_and_then_paid(client, clock):
    made = subscribe(client, clock, trial_period_days=14)
    assert made.status == "trialing"
    assert made.trial_end == made.billing_cycle_anchor == clock.frozen_time + 14 * DAY
    assert client.v1.invoices.retrieve(made.latest_invoice).amount_paid == 0
    move(client, clock, made.trial_end - 3 * DAY + 60)
    assert "customer.subscription.trial_will_end" in kinds_of(client, made)
    move(client, clock, made.trial_end + 3700)
    after = again(client, made, "latest_invoice")
    assert (after.status, after.latest_invoice.amount_paid) == ("active", 2000)
    assert item_of(after).current_period_start == made.trial_end


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [("cancel", "canceled"), ("pause", "paused"), ("create_invoice", "past_due")],
)
def test_a_trial_without_a_card_ends_as_was_chosen(client, clock, behavior, expected):
    made = subscribe(
        client,
        clock,
        card=None,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": behavior}},
    )
    move(client, clock, made.trial_end + 3700)
    assert again(client, made).status == expected


def test_a_paused_subscription_is_resumed_with_a_card(client, clock):
    made = subscribe(
        client,
        clock,
        card=None,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": "pause"}},
    )
    move(client, clock, made.trial_end + 10 * DAY)
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": made.customer})
    client.v1.subscriptions.update(made.id, {"default_payment_method": card.id})
    resumed = client.v1.subscriptions.resume(made.id, {"billing_cycle_anchor": {"type": "now"}})
    assert resumed.status == "active"
    assert item_of(resumed).current_period_start == made.trial_end + 10 * DAY


def test_a_trial_can_be_ended_now(client, clock):
    made = subscribe(client, clock, trial_period_days=14)
    move(client, clock, clock.frozen_time + 2 * DAY)
    ended = client.v1.subscriptions.update(
        made.id, {"trial_end": "now", "expand": ["latest_invoice"]}
    )
    assert (ended.status, ended.latest_invoice.amount_paid) == ("active", 2000)
    assert item_of(ended).current_period_start == clock.frozen_time + 2 * DAY


def test_a_chosen_day_of_the_month_is_billed_in_part_first(client):
    clock = make_clock(client, "2027-02-10T00:00")
    made = subscribe(client, clock, billing_cycle_anchor_config={"day_of_month": 31})
    assert day_of(item_of(made).current_period_end) == "2027-02-28"
    first = client.v1.invoices.retrieve(made.latest_invoice)
    assert first.amount_paid == round(2000 * 18 / 28)
    move(client, clock, at("2027-04-02T00:00"))
    assert starts_of(client, made) == ["2027-02-10", "2027-02-28", "2027-03-31"]
    client.v1.test_helpers.test_clocks.delete(clock.id)


def test_an_anchor_without_prorations_gives_the_first_days_away(client, clock):
    anchor = clock.frozen_time + 5 * DAY
    made = subscribe(client, clock, billing_cycle_anchor=anchor, proration_behavior="none")
    assert (made.billing_cycle_anchor, item_of(made).current_period_end) == (anchor, anchor)
    move(client, clock, anchor + 3700)
    assert again(client, made, "latest_invoice").latest_invoice.amount_paid == 2000


def test_a_leap_day_is_billed_on_the_last_of_february(client):
    clock = make_clock(client, "2028-02-29T10:00")
    yearly = make_price(client, recurring={"interval": "year"})
    made = subscribe(client, clock, items=[{"price": yearly.id}])
    assert day_of(item_of(made).current_period_end) == "2029-02-28"
    move(client, clock, at("2029-03-01T10:00"))
    assert day_of(item_of(again(client, made)).current_period_end) == "2030-02-28"
    client.v1.test_helpers.test_clocks.delete(clock.id)


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [("keep_as_draft", "draft"), ("void", "void"), ("mark_uncollectible", "uncollectible")],
)
def test_a_pause_of_the_collection_holds_invoices_back(client, clock, behavior, expected):
    made = subscribe(client, clock)
    turn = item_of(made).current_period_end
    pause = {"behavior": behavior, "resumes_at": turn + 10 * DAY}
    assert client.v1.subscriptions.update(made.id, {"pause_collection": pause}).status == "active"
    move(client, clock, turn + 3700)
    held = again(client, made, "latest_invoice")
    assert (held.status, held.latest_invoice.status) == ("active", expected)
    move(client, clock, turn + 11 * DAY)
    assert again(client, made).pause_collection is None


def test_a_first_payment_that_needs_the_customer_expires_after_a_day(client, clock):
    made = subscribe(client, clock, card=None, payment_behavior="default_incomplete")
    assert made.status == "incomplete"
    move(client, clock, clock.frozen_time + DAY)
    assert again(client, made, "latest_invoice").status == "incomplete_expired"


def test_an_upgrade_after_ten_days_costs_what_is_left(client, clock):
    made = subscribe(client, clock)
    bigger = make_price(client, unit_amount=5000)
    now = clock.frozen_time + 10 * DAY
    move(client, clock, now)
    change = {
        "items": [{"id": item_of(made).id, "price": bigger.id}],
        "proration_behavior": "always_invoice",
    }
    preview = client.v1.invoices.create_preview(
        {"subscription": made.id, "subscription_details": change}
    )
    after = client.v1.subscriptions.update(made.id, {**change, "expand": ["latest_invoice"]})
    period = item_of(made).current_period_end - item_of(made).current_period_start
    left = (item_of(made).current_period_end - now) / period
    assert after.latest_invoice.total == preview.total == round(5000 * left) - round(2000 * left)
    assert item_of(after).current_period_end == item_of(made).current_period_end


def test_an_end_in_the_middle_can_be_set_and_taken_back(client, clock):
    made = subscribe(client, clock)
    moment = clock.frozen_time + 9 * DAY
    wish = {"cancel_at": moment, "proration_behavior": "none"}
    assert client.v1.subscriptions.update(made.id, wish).cancel_at == moment
    assert client.v1.subscriptions.update(made.id, {"cancel_at": ""}).cancel_at is None
    client.v1.subscriptions.update(made.id, wish)
    move(client, clock, moment + DAY)
    ended = again(client, made)
    assert (ended.status, ended.ended_at) == ("canceled", moment)
