"""What Stripe's API answers. With STRIPE_TEST_KEY set, Stripe itself is asked."""

import json
import uuid

import pytest
import stripe

from tests.contracts.stripe_contract import flaws
from tests.contracts.stripe_running import (
    KEY,
    REAL_KEY,
    item_of,
    make_price,
    make_session,
    make_subscription,
    simulator_only,
)

pytest_plugins = ["tests.contracts.stripe_fixtures"]


@pytest.fixture(scope="module")
def simulator(stripe_simulator):
    return stripe_simulator


@pytest.fixture(scope="module")
def client(stripe_account):
    return stripe_account


@pytest.fixture(scope="module")
def paid(client):
    return make_subscription(client)


def as_json(answer):
    return json.loads(str(answer))


ANSWERS = {
    "customer": lambda v1, paid: v1.customers.retrieve(paid.customer),
    "product": lambda v1, paid: v1.products.retrieve(item_of(paid).price.product),
    "price": lambda v1, paid: v1.prices.retrieve(item_of(paid).price.id),
    "subscription": lambda v1, paid: v1.subscriptions.retrieve(paid.id),
    "subscriptions": lambda v1, paid: v1.subscriptions.list(
        {"customer": paid.customer, "status": "all", "expand": ["data.latest_invoice"]}
    ),
    "invoice": lambda v1, paid: v1.invoices.retrieve(
        paid.latest_invoice, {"expand": ["payments.data.payment.payment_intent"]}
    ),
    "invoices": lambda v1, paid: v1.invoices.list({"subscription": paid.id}),
    "preview": lambda v1, paid: v1.invoices.create_preview({"subscription": paid.id}),
    "charges": lambda v1, paid: v1.charges.list({"customer": paid.customer}),
    "payment intents": lambda v1, paid: v1.payment_intents.list({"customer": paid.customer}),
    "payment methods": lambda v1, paid: v1.payment_methods.list(
        {"customer": paid.customer, "type": "card"}
    ),
    "events": lambda v1, _: v1.events.list({"limit": 50}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_has_the_form_that_the_library_promises(client, paid, name):
    assert flaws(as_json(ANSWERS[name](client.v1, paid))) == []


def test_a_checkout_session_has_the_promised_form(client):
    session = make_session(client, make_price(client), expand=["line_items"])
    assert flaws(as_json(session)) == []
    assert session.status == "open"
    assert session.line_items.data[0].amount_total == 2000


def test_a_broken_answer_is_flagged(client, paid):
    broken = as_json(client.v1.subscriptions.retrieve(paid.id))
    del broken["status"]
    broken |= {"cancel_at_period_end": "yes", "collection_method": "by_post", "colour": "red"}
    found = " | ".join(flaws(broken))
    assert "subscription.status is missing" in found
    assert "subscription.cancel_at_period_end is str, not bool" in found
    assert "subscription.collection_method is 'by_post'" in found
    assert "subscription.colour is unknown" in found


def test_a_subscription_is_active_and_its_invoice_is_paid(client, paid):
    invoice = client.v1.invoices.retrieve(paid.latest_invoice)
    item = item_of(paid)
    assert (paid.status, invoice.status, invoice.amount_paid) == ("active", "paid", 2000)
    assert invoice.parent.subscription_details.subscription == paid.id
    assert 27 < (item.current_period_end - item.current_period_start) / 86400 < 32


def test_the_same_idempotency_key_gives_the_same_answer(client):
    key = {"idempotency_key": str(uuid.uuid4())}
    first = client.v1.customers.create({"email": "once@example.com"}, key)
    again = client.v1.customers.create({"email": "once@example.com"}, key)
    assert first.id == again.id
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        client.v1.customers.create({"email": "twice@example.com"}, key)


def test_an_unknown_parameter_is_refused_by_name(client):
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.customers.create({"emial": "ada@example.com"})
    assert (caught.value.code, caught.value.param) == ("parameter_unknown", "emial")


def test_an_unknown_nested_parameter_is_refused_by_name(client):
    with pytest.raises(stripe.InvalidRequestError) as caught:
        make_session(client, make_price(client), subscription_data={"metdata": {"a": "b"}})
    assert caught.value.param == "subscription_data[metdata]"


def test_an_id_that_names_nothing_is_missing(client):
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.customers.retrieve("cus_nobody")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


def test_a_wrong_key_is_refused(simulator):
    wrong = "sk_test_of_somebody_else"
    client = stripe.StripeClient(wrong) if REAL_KEY else simulator.client(wrong)
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key provided"):
        client.v1.customers.list()


@simulator_only
def test_what_is_not_simulated_says_so_and_never_pretends(client):
    with pytest.raises(stripe.InvalidRequestError, match="does not support the parameter shipping"):
        client.v1.customers.create({"shipping": {"name": "Ada"}})
    with pytest.raises(stripe.InvalidRequestError, match="not support POST /v1/setup_intents"):
        client.v1.setup_intents.create({})
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.raw_request("get", "/v1/unicorns")


def test_a_list_is_walked_page_by_page(client):
    mail = f"{uuid.uuid4()}@example.com"
    made = [client.v1.customers.create({"email": mail}).id for _ in range(3)]
    page = client.v1.customers.list({"email": mail, "limit": 2})
    assert [one.id for one in page.data] == [made[2], made[1]]
    assert page.has_more
    assert [one.id for one in page.auto_paging_iter()] == made[::-1]
    newer = client.v1.customers.list({"email": mail, "ending_before": made[0]})
    assert [one.id for one in newer.data] == [made[2], made[1]]


def test_metadata_is_merged_and_an_empty_value_removes_its_key(client):
    customer = client.v1.customers.create({"metadata": {"a": "1", "b": "2"}})
    customer = client.v1.customers.update(customer.id, {"metadata": {"a": "", "c": "3"}})
    assert as_json(customer)["metadata"] == {"b": "2", "c": "3"}


def test_a_price_is_found_by_its_lookup_key(client):
    key = f"plus_{uuid.uuid4()}"
    price = make_price(client, lookup_key=key)
    assert [one.id for one in client.v1.prices.list({"lookup_keys": [key]}).data] == [price.id]
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        make_price(client, lookup_key=key)


def test_an_upgrade_now_bills_the_difference_and_begins_a_new_period(client):
    before = make_subscription(client)
    bigger = make_price(client, unit_amount=5000)
    change = {
        "items": [{"id": item_of(before).id, "price": bigger.id}],
        "billing_cycle_anchor": {"type": "now"},
        "proration_behavior": "always_invoice",
    }
    preview = client.v1.invoices.create_preview(
        {"subscription": before.id, "subscription_details": change}
    )
    after = client.v1.subscriptions.update(
        before.id,
        {**change, "payment_behavior": "pending_if_incomplete", "expand": ["latest_invoice"]},
    )
    assert item_of(after).price.id == bigger.id
    assert abs(after.latest_invoice.amount_paid - 3000) < 5
    assert abs(preview.amount_due - after.latest_invoice.amount_paid) < 5
    assert after.pending_update is None


@simulator_only
def test_a_refused_upgrade_stays_pending_until_its_invoice_is_paid(client):
    before = make_subscription(client)
    bad = client.v1.payment_methods.attach(
        "pm_card_chargeCustomerFail", {"customer": before.customer}
    )
    client.v1.subscriptions.update(before.id, {"default_payment_method": bad.id})
    bigger = make_price(client, unit_amount=5000)
    change = {
        "items": [{"id": item_of(before).id, "price": bigger.id}],
        "proration_behavior": "always_invoice",
    }
    with pytest.raises(stripe.CardError):
        client.v1.subscriptions.update(
            before.id, {**change, "payment_behavior": "error_if_incomplete"}
        )
    waiting = client.v1.subscriptions.update(
        before.id, {**change, "payment_behavior": "pending_if_incomplete"}
    )
    assert waiting.status == "active"
    assert item_of(waiting).price.unit_amount == 2000
    assert flaws(as_json(waiting)) == []
    good = client.v1.payment_methods.attach("pm_card_visa", {"customer": before.customer})
    client.v1.invoices.pay(waiting.latest_invoice, {"payment_method": good.id})
    after = client.v1.subscriptions.retrieve(before.id)
    assert (item_of(after).price.unit_amount, after.pending_update) == (5000, None)


def test_a_downgrade_without_proration_costs_nothing_now(client):
    before = make_subscription(client)
    smaller = make_price(client, unit_amount=900)
    after = client.v1.subscriptions.update(
        before.id,
        {
            "items": [{"id": item_of(before).id, "price": smaller.id}],
            "proration_behavior": "none",
        },
    )
    assert item_of(after).price.id == smaller.id
    assert item_of(after).current_period_end == item_of(before).current_period_end
    assert after.latest_invoice == before.latest_invoice


def test_cancelling_at_the_end_can_be_undone_and_cancelling_now_cannot(client):
    made = make_subscription(client)
    later = client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert later.cancel_at == item_of(made).current_period_end
    undone = client.v1.subscriptions.update(made.id, {"cancel_at_period_end": False})
    assert (undone.cancel_at, undone.status) == (None, "active")
    assert client.v1.subscriptions.cancel(made.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.subscriptions.cancel(made.id)


def test_a_full_refund_is_given_once(client):
    made = make_subscription(client)
    invoice = client.v1.invoices.retrieve(made.latest_invoice, {"expand": ["payments"]})
    intent = invoice.payments.data[0].payment.payment_intent
    key = {"idempotency_key": f"refund:{intent}"}
    refund = client.v1.refunds.create({"payment_intent": intent}, key)
    assert (refund.amount, refund.status) == (2000, "succeeded")
    assert client.v1.refunds.create({"payment_intent": intent}, key).id == refund.id
    assert client.v1.charges.retrieve(refund.charge).refunded
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.refunds.create({"payment_intent": intent})
    assert caught.value.code == "charge_already_refunded"


def test_a_deleted_customer_takes_the_subscriptions_along(client):
    made = make_subscription(client)
    assert client.v1.customers.delete(made.customer).deleted
    assert client.v1.subscriptions.retrieve(made.id).status == "canceled"
    assert client.v1.customers.retrieve(made.customer).deleted


@simulator_only
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the library's own call
async def test_the_asynchronous_client_works_alike(simulator):
    client = stripe.StripeClient(KEY, base_addresses={"api": simulator.url})
    customer = await client.v1.customers.create_async({"email": "async@example.com"})
    found = await client.v1.customers.list_async({"email": "async@example.com"})
    assert [one.id for one in found.data] == [customer.id]
    await client._requestor._get_http_client().close_async()  # noqa: SLF001 - no public way
