"""Invoices and balances: previewed, paid, voided, written off, credited. Stripe can be asked."""

import pytest
import stripe

from tests.contracts.stripe_running import (
    item_of,
    make_clock,
    make_customer,
    make_price,
    make_subscription,
    move,
)

pytest_plugins = ["tests.contracts.stripe_fixtures"]
HOUR, DAY = 3600, 86_400


@pytest.fixture(scope="module")
def client(stripe_account):
    return stripe_account


def unpaid(client, **more):
    """Return a subscription whose first invoice waits to be paid, and that invoice."""
    made = make_subscription(
        client, payment_behavior="default_incomplete", expand=["latest_invoice"], **more
    )
    return made, made.latest_invoice


def in_arrears(client):
    """Return a subscription on a clock whose renewal was refused, and the clock."""
    clock = make_clock(client, "2027-05-01T10:00")
    customer = make_customer(client, test_clock=clock.id)
    price = make_price(client)
    made = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]})
    bad = client.v1.payment_methods.attach("pm_card_chargeCustomerFail", {"customer": customer.id})
    client.v1.subscriptions.update(made.id, {"default_payment_method": bad.id})
    move(client, clock, item_of(made).current_period_end + 2 * HOUR)
    return client.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice"]}), clock


def test_an_unpaid_first_invoice_waits_and_is_paid(client):
    made, invoice = unpaid(client)
    assert (made.status, invoice.status, invoice.amount_remaining) == ("incomplete", "open", 2000)
    assert client.v1.invoices.pay(invoice.id).status == "paid"
    assert client.v1.subscriptions.retrieve(made.id).status == "active"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.invoices.pay(invoice.id)
    assert caught.value.code == "invoice_already_paid"


def test_the_intent_of_an_invoice_can_be_confirmed(client):
    made, invoice = unpaid(client)
    shown = client.v1.invoices.retrieve(invoice.id, {"expand": ["payments", "confirmation_secret"]})
    intent = shown.payments.data[0].payment.payment_intent
    assert shown.confirmation_secret.client_secret.startswith(intent)
    confirmed = client.v1.payment_intents.confirm(
        intent, {"payment_method": made.default_payment_method, "return_url": "https://a.example"}
    )
    assert confirmed.status == "succeeded"
    assert client.v1.subscriptions.retrieve(made.id).status == "active"


def test_a_refused_renewal_is_tried_again_later(client):
    late, clock = in_arrears(client)
    invoice = late.latest_invoice
    assert (late.status, invoice.status, invoice.attempt_count) == ("past_due", "open", 1)
    assert invoice.next_payment_attempt > clock.frozen_time
    good = client.v1.payment_methods.attach("pm_card_visa", {"customer": late.customer})
    client.v1.invoices.pay(invoice.id, {"payment_method": good.id})
    assert client.v1.subscriptions.retrieve(late.id).status == "active"
    client.v1.test_helpers.test_clocks.delete(clock.id)


def test_an_invoice_that_was_written_off_can_still_be_voided(client):
    late, clock = in_arrears(client)
    invoice = client.v1.invoices.mark_uncollectible(late.latest_invoice.id)
    assert (invoice.status, invoice.amount_remaining) == ("uncollectible", 2000)
    assert invoice.status_transitions.marked_uncollectible_at
    assert client.v1.invoices.void_invoice(invoice.id).status == "void"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.void_invoice(invoice.id)
    client.v1.test_helpers.test_clocks.delete(clock.id)


def test_an_invoice_may_be_paid_elsewhere(client):
    made, invoice = unpaid(client)
    assert client.v1.invoices.pay(invoice.id, {"paid_out_of_band": True}).status == "paid"
    assert client.v1.subscriptions.retrieve(made.id).status == "active"
    assert client.v1.charges.list({"customer": made.customer}).data == []


def test_credit_pays_first_and_is_given_back_by_a_void(client):
    customer = make_customer(client)
    client.v1.customers.balance_transactions.create(
        customer.id, {"amount": -500, "currency": "usd", "description": "Sorry"}
    )
    price = make_price(client)
    made = client.v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price": price.id}],
            "payment_behavior": "default_incomplete",
            "expand": ["latest_invoice"],
        }
    )
    invoice = made.latest_invoice
    assert (invoice.total, invoice.amount_due, invoice.starting_balance) == (2000, 1500, -500)
    assert client.v1.customers.retrieve(customer.id).balance == 0
    client.v1.invoices.void_invoice(invoice.id)
    assert client.v1.customers.retrieve(customer.id).balance == -500
    listed = client.v1.customers.balance_transactions.list(customer.id).data
    kinds = ["unapplied_from_invoice", "applied_to_invoice", "adjustment"]
    assert [one.type for one in listed] == kinds
    assert [one.ending_balance for one in listed] == [-500, 0, -500]


def test_a_cancellation_can_credit_the_rest_of_the_period(client):
    clock = make_clock(client, "2027-06-01T00:00")
    customer = make_customer(client, test_clock=clock.id)
    price = make_price(client)
    made = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]})
    move(client, clock, clock.frozen_time + 15 * DAY)
    ended = client.v1.subscriptions.cancel(
        made.id,
        {
            "prorate": True,
            "invoice_now": True,
            "cancellation_details": {"comment": "too dear", "feedback": "too_expensive"},
        },
    )
    assert (ended.status, ended.cancellation_details.feedback) == ("canceled", "too_expensive")
    assert client.v1.customers.retrieve(customer.id).balance == -1000
    client.v1.test_helpers.test_clocks.delete(clock.id)


def test_a_first_invoice_is_previewed_before_anything_exists(client):
    customer = make_customer(client)
    wish = {"items": [{"price": make_price(client).id, "quantity": 3}]}
    preview = client.v1.invoices.create_preview(
        {"customer": customer.id, "subscription_details": wish}
    )
    assert (preview.total, preview.lines.data[0].quantity) == (6000, 3)
    assert client.v1.subscriptions.list({"customer": customer.id}).data == []


def test_nothing_is_coming_for_whoever_leaves(client):
    made = make_subscription(client)
    client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.invoices.create_preview({"subscription": made.id})
    assert caught.value.code == "invoice_upcoming_none"


@pytest.mark.parametrize(
    "wish",
    [
        {"payment_behavior": "pending_if_incomplete"},
        {"trial_period_days": 0},
        {"trial_period_days": 3, "trial_end": 4_000_000_000},
        {"billing_cycle_anchor": 1},
        {"items": [{"quantity": 1}]},
        {"default_payment_method": "pm_of_nobody"},
    ],
    ids=str,
)
def test_a_subscription_without_sense_is_refused_and_not_made(client, wish):
    customer = make_customer(client)
    usual = {"customer": customer.id, "items": [{"price": make_price(client).id}]}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.subscriptions.create({**usual, **wish})
    assert client.v1.subscriptions.list({"customer": customer.id, "status": "all"}).data == []


def test_without_a_card_nothing_is_made(client):
    customer = make_customer(client, card=None)
    wish = {"customer": customer.id, "items": [{"price": make_price(client).id}]}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.subscriptions.create(wish)
    assert caught.value.code == "resource_missing"
    assert client.v1.subscriptions.list({"customer": customer.id, "status": "all"}).data == []
