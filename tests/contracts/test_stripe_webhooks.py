"""Events reach their receivers: signed, again after a failure, and also after a crash."""

import json
import queue
import signal
import time

import pytest
import stripe

from tests.contracts.stripe_contract import flaws
from tests.contracts.stripe_running import (
    make_price,
    make_session,
    make_subscription,
)

EVENTS_OF_A_PURCHASE = 16  # kinds of events; some come in the same breath, in any order

pytest_plugins = ["tests.contracts.stripe_fixtures"]


@pytest.fixture(scope="module")
def simulator(stripe_simulator):
    return stripe_simulator


@pytest.fixture(scope="module")
def client(simulator):
    return simulator.client()


@pytest.fixture
def fresh(fresh_stripe):
    return fresh_stripe


@pytest.fixture
def receiver(stripe_receiver):
    return stripe_receiver


@pytest.fixture
def secret(simulator, client, receiver):
    endpoint = client.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": ["*"]})
    assert endpoint.secret.startswith("whsec_")
    yield endpoint.secret
    client.v1.webhook_endpoints.delete(endpoint.id)
    usual = {"delay_seconds": 0, "duplicate": False, "drop": False, "shuffle": False}
    simulator.browser().post("/_control/delivery", json=usual)


def test_an_event_arrives_signed(client, receiver, secret):
    customer = client.v1.customers.create({"email": "ada@example.com"})
    event = receiver.next(secret)
    assert (event.type, event.data.object.id) == ("customer.created", customer.id)
    assert event.api_version == stripe.api_version
    assert event.request.id.startswith("req_")
    client.v1.customers.update(customer.id, {"name": "Ada"})
    with pytest.raises(stripe.SignatureVerificationError):
        receiver.next("whsec_of_somebody_else")


def test_a_paid_checkout_tells_its_whole_story(client, simulator, receiver, secret):
    session = make_session(client, make_price(client))
    form = {"email": "a@b.example", "name": "Ada", "card": "4242424242424242"}
    assert simulator.browser().post(f"/c/pay/{session.id}", data=form).status_code == 303
    found = set()
    while "checkout.session.completed" not in found or len(found) < EVENTS_OF_A_PURCHASE:
        found.add(receiver.next(secret).type)
    assert found >= {
        "customer.created",
        "payment_method.attached",
        "customer.subscription.created",
        "customer.subscription.updated",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    }


def test_an_update_says_what_it_was_before(client, receiver, secret):
    customer = client.v1.customers.create({"email": "old@example.com"})
    client.v1.customers.update(customer.id, {"email": "new@example.com"})
    arrived = {event.type: event for event in (receiver.next(secret), receiver.next(secret))}
    event = arrived["customer.updated"]  # events may overtake each other, as Stripe's do
    assert event.data.previous_attributes.to_dict() == {"email": "old@example.com"}


def test_a_refused_delivery_is_tried_again(client, receiver, secret):
    receiver.answers = [500]
    client.v1.customers.create({"email": "again@example.com"})
    first, second = receiver.next(secret), receiver.next(secret)
    assert first.id == second.id
    assert client.v1.events.retrieve(first.id).pending_webhooks in {0, 1}


def test_what_was_answered_and_undelivered_survives_a_kill(fresh, receiver):
    client = fresh.client()
    wanted = {"url": receiver.url, "enabled_events": ["*"]}
    secret = client.v1.webhook_endpoints.create(wanted).secret
    receiver.answers = [500]
    customer = client.v1.customers.create({"email": "survivor@example.com"})
    event = receiver.next(secret)
    fresh.stop(signal.SIGKILL)
    fresh.start()
    assert receiver.next(secret).id == event.id
    assert fresh.client().v1.customers.retrieve(customer.id).email == "survivor@example.com"


def test_an_endpoint_gets_only_what_it_asked_for(client, receiver):
    endpoint = client.v1.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["product.created"]}
    )
    make_price(client)
    assert receiver.next(endpoint.secret).type == "product.created"
    client.v1.webhook_endpoints.update(endpoint.id, {"disabled": True})
    make_price(client)
    with pytest.raises(queue.Empty):
        receiver.next(endpoint.secret, seconds=0.3)
    listed = client.v1.webhook_endpoints.list().data
    assert [(one.id, one.status) for one in listed] == [(endpoint.id, "disabled")]
    assert client.v1.webhook_endpoints.delete(endpoint.id).deleted
    assert client.v1.webhook_endpoints.list().data == []


def test_only_this_machine_is_told(client):
    with pytest.raises(stripe.InvalidRequestError, match="outside 127"):
        client.v1.webhook_endpoints.create(
            {"url": "https://example.com/hook", "enabled_events": ["*"]}
        )


def test_switches_duplicate_drop_and_redeliver(simulator, client, receiver, secret):
    browser = simulator.browser()
    assert browser.post("/_control/delivery", json={"duplicate": True}).json()["duplicate"]
    client.v1.customers.create({"email": "twice@example.com"})
    assert receiver.next(secret).id == receiver.next(secret).id
    browser.post("/_control/delivery", json={"duplicate": False, "drop": True})
    client.v1.customers.create({"email": "dropped@example.com"})
    with pytest.raises(queue.Empty):
        receiver.next(secret, seconds=0.3)
    browser.post("/_control/delivery", json={"drop": False})
    event = client.v1.events.list({"limit": 1}).data[0]
    again = browser.post(f"/_control/events/{event.id}/redeliver", json={})
    assert len(again.json()["endpoints"]) == 1
    assert receiver.next(secret).id == event.id


def test_delayed_and_shuffled_events_all_arrive(simulator, client, receiver, secret):
    browser = simulator.browser()
    browser.post("/_control/delivery", json={"delay_seconds": 0.2, "shuffle": True})
    began = time.monotonic()
    made = make_subscription(client)
    arrived = []
    while len(arrived) < 12 or made.id not in {event.data.object.id for event in arrived}:
        arrived.append(receiver.next(secret))
    assert time.monotonic() - began > 0.4
    assert all(flaws(json.loads(str(event))) == [] for event in arrived)


@pytest.mark.parametrize(
    "wrong", [{"colour": 1}, {"drop": "yes"}, {"delay_seconds": -1}, [], "x"], ids=str
)
def test_a_wrong_switch_is_refused(simulator, wrong):
    assert simulator.browser().post("/_control/delivery", json=wrong).status_code == 400
