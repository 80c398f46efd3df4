"""What goes wrong between a caller and Stripe, and what idempotency keys make of it."""

import uuid
from typing import cast

import pytest
import stripe

from tests.contracts.stripe_running import make_customer, make_price, simulator_only

pytest_plugins = ["tests.contracts.stripe_fixtures"]


@pytest.fixture(scope="module")
def client(stripe_account):
    return stripe_account


@pytest.fixture
def browser(stripe_simulator):
    opened = stripe_simulator.browser()
    yield opened
    opened.delete("/_control/faults")


@pytest.fixture
def stubborn(stripe_simulator):
    """A client that tries again, as the product's does."""
    return stripe_simulator.client(retries=2)


def arm(browser, kind, **more):
    answer = browser.post("/_control/faults", json={"kind": kind, **more})
    assert answer.status_code == 200, answer.text


def made_of(client, mail):
    return [one.id for one in client.v1.customers.list({"email": mail}).data]


@simulator_only
@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("rate_limit", stripe.RateLimitError, 429),
        ("lock_timeout", stripe.RateLimitError, 429),
        ("conflict", stripe.APIError, 409),
        ("server_error", stripe.APIError, 500),
        ("server_error_after", stripe.APIError, 500),
    ],
)
def test_a_fault_is_what_the_library_says_it_is(client, browser, kind, error, status):
    arm(browser, kind)
    with pytest.raises(error) as caught:
        client.v1.customers.create({})
    assert caught.value.http_status == status
    assert client.v1.customers.create({}).id


@simulator_only
def test_an_answer_may_be_lost_before_or_after_the_work(client, browser):
    for kind, expected in (("hang_up", 0), ("hang_up_after", 1)):
        mail = f"{uuid.uuid4()}@example.com"
        arm(browser, kind)
        with pytest.raises(stripe.APIConnectionError):
            client.v1.customers.create({"email": mail})
        assert len(made_of(client, mail)) == expected


@simulator_only
@pytest.mark.parametrize("kind", ["rate_limit", "server_error", "hang_up", "hang_up_after"])
def test_trying_again_with_the_same_key_does_it_once(stubborn, browser, kind):
    mail = f"{uuid.uuid4()}@example.com"
    arm(browser, kind, times=2, method="POST", path="/v1/customers")
    made = stubborn.v1.customers.create({"email": mail})
    assert made_of(stubborn, mail) == [made.id]


@simulator_only
def test_a_lost_success_stays_an_error_for_its_key(client, browser):
    mail, key = f"{uuid.uuid4()}@example.com", {"idempotency_key": str(uuid.uuid4())}
    arm(browser, "server_error_after")
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            client.v1.customers.create({"email": mail}, key)
    assert len(made_of(client, mail)) == 1


def test_a_refusal_is_remembered_with_its_key(client):
    customer = make_customer(client, "pm_card_chargeCustomerFail")
    wish = {
        "customer": customer.id,
        "items": [{"price": make_price(client).id}],
        "payment_behavior": "error_if_incomplete",
    }
    key = {"idempotency_key": str(uuid.uuid4())}
    messages = set()
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            client.v1.subscriptions.create(wish, key)
        messages.add(cast("dict", caught.value.json_body)["error"]["request_log_url"])
        good = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
        settings = {"default_payment_method": good.id}
        client.v1.customers.update(customer.id, {"invoice_settings": settings})
    assert len(messages) == 1
    assert client.v1.subscriptions.create(wish).status == "active"


def test_a_wrong_parameter_does_not_use_the_key_up(client):
    key = {"idempotency_key": str(uuid.uuid4())}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.create({"emial": "ada@example.com"}, key)
    assert client.v1.customers.create({"email": "ada@example.com"}, key).id


def test_a_key_belongs_to_one_address(client):
    key = {"idempotency_key": str(uuid.uuid4())}
    client.v1.customers.create({}, key)
    with pytest.raises(stripe.IdempotencyError):
        client.v1.products.create({"name": "Plus"}, key)


@simulator_only
def test_a_key_is_forgotten_after_a_day(client, stripe_simulator):
    key = {"idempotency_key": "once a day"}
    first = client.v1.customers.create({"email": "a@example.com"}, key)
    stripe_simulator.advance(hours=25)
    assert client.v1.customers.create({"email": "b@example.com"}, key).id != first.id


@simulator_only
@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"kind": "flood"},
        {"kind": "slow", "seconds": "much"},
        {"kind": "slow", "times": 0},
        {"kind": "slow", "colour": 1},
    ],
    ids=str,
)
def test_a_fault_without_sense_is_refused(browser, wrong):
    assert browser.post("/_control/faults", json=wrong).status_code == 400


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"currency": None}, "parameter_missing", "currency"),
        ({"unit_amount": "much"}, "parameter_invalid_integer", "unit_amount"),
        ({"recurring": {"interval": "fortnight"}}, None, "recurring[interval]"),
        ({"recurring": {}}, "parameter_missing", None),
        ({"product_data": {"metadata": {"a": "b"}}}, "parameter_missing", "product_data[name]"),
        ({"colour": "red"}, "parameter_unknown", "colour"),
        ({"metadata": {"k": "v" * 501}}, None, "metadata[k]"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_named(client, change, code, param):
    wish = {
        "currency": "usd",
        "unit_amount": 100,
        "recurring": {"interval": "month"},
        "product_data": {"name": "Plus"},
    }
    wish = {key: value for key, value in {**wish, **change}.items() if value not in (None, {})}
    if change == {"recurring": {}}:
        wish["recurring[interval_count]"] = 1
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.prices.create(wish)
    assert code in {None, caught.value.code}
    assert param in {None, caught.value.param}


@pytest.mark.parametrize("path", ["nonsense", "id", "email", "subscriptions.data.nonsense"])
def test_what_cannot_be_expanded_is_refused(client, path):
    customer = client.v1.customers.create({"email": "ada@example.com"})
    if path.startswith("subscriptions"):
        customer = make_customer(client)
        wish = {"customer": customer.id, "items": [{"price": make_price(client).id}]}
        client.v1.subscriptions.create(wish)
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        client.v1.customers.retrieve(customer.id, {"expand": [path]})
