"""Refunds, disputes and fraud warnings: what happens to money that was paid."""

import uuid

import pytest
import stripe

from tests.contracts.stripe_running import make_subscription, simulator_only

pytest_plugins = ["tests.contracts.stripe_fixtures"]


@pytest.fixture(scope="module")
def client(stripe_account):
    return stripe_account


@pytest.fixture(scope="module")
def browser(stripe_simulator):
    return stripe_simulator.browser()


def charge_of(client, subscription):
    return client.v1.charges.list({"customer": subscription.customer}).data[0]


def kinds_about(client, identifier):
    events = client.v1.events.list({"limit": 100}).data
    return [one.type for one in reversed(events) if one.data.object.id == identifier]


def test_a_charge_is_refunded_in_parts_up_to_its_amount(client):
    charge = charge_of(client, make_subscription(client))
    key = {"idempotency_key": str(uuid.uuid4())}
    part = {"charge": charge.id, "amount": 500, "reason": "requested_by_customer"}
    first = client.v1.refunds.create(part, key)
    assert client.v1.refunds.create(part, key).id == first.id
    halfway = client.v1.charges.retrieve(charge.id)
    assert (halfway.amount_refunded, halfway.refunded) == (500, False)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        client.v1.refunds.create({"charge": charge.id, "amount": 1501})
    client.v1.refunds.create({"charge": charge.id})
    done = client.v1.charges.retrieve(charge.id, {"expand": ["refunds"]})
    assert (done.refunded, [one.amount for one in done.refunds.data]) == (True, [1500, 500])
    noted = client.v1.refunds.update(first.id, {"metadata": {"ticket": "7"}})
    assert noted.metadata["ticket"] == "7"


def test_a_disputing_card_pays_and_takes_back(client):
    made = make_subscription(client, "pm_card_createDispute")
    charge = charge_of(client, made)
    assert made.status == "active"
    (dispute,) = client.v1.disputes.list({"charge": charge.id}).data
    assert (dispute.status, dispute.amount) == ("needs_response", 2000)
    assert client.v1.charges.retrieve(charge.id).disputed
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"charge": charge.id})


@pytest.mark.parametrize(
    ("evidence", "expected"), [("winning_evidence", "won"), ("losing_evidence", "lost")]
)
@simulator_only
def test_evidence_decides_a_dispute(client, evidence, expected):
    charge = charge_of(client, make_subscription(client, "pm_card_createDispute"))
    (dispute,) = client.v1.disputes.list({"charge": charge.id}).data
    draft = client.v1.disputes.update(
        dispute.id, {"evidence": {"product_description": "A box"}, "submit": False}
    )
    assert (draft.status, draft.evidence_details.submission_count) == ("needs_response", 0)
    closed = client.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": evidence}})
    assert closed.status == expected
    assert "charge.dispute.closed" in kinds_about(client, dispute.id)


def test_a_dispute_can_be_accepted(client):
    charge = charge_of(client, make_subscription(client, "pm_card_createDispute"))
    (dispute,) = client.v1.disputes.list({"charge": charge.id}).data
    assert client.v1.disputes.close(dispute.id).status == "lost"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.disputes.close(dispute.id)


def test_a_bank_may_warn_of_fraud(client):
    made = make_subscription(client, "pm_card_createIssuerFraudRecord")
    charge = charge_of(client, made)
    (warning,) = client.v1.radar.early_fraud_warnings.list({"charge": charge.id}).data
    assert (warning.charge, warning.actionable) == (charge.id, True)
    assert not client.v1.charges.retrieve(charge.id).disputed


@simulator_only
@pytest.mark.parametrize(
    ("verdict", "last"),
    [("won", "charge.dispute.funds_reinstated"), ("lost", "charge.dispute.closed")],
)
def test_a_button_opens_and_decides_a_dispute(client, browser, verdict, last):
    charge = charge_of(client, make_subscription(client))
    dispute = browser.post(f"/_control/dispute/{charge.id}").json()
    assert browser.post(f"/_control/dispute/{charge.id}").status_code == 400
    assert browser.post(f"/_control/{verdict}/{dispute['id']}").json()["status"] == verdict
    assert kinds_about(client, dispute["id"])[0] == "charge.dispute.created"
    assert kinds_about(client, dispute["id"])[-1] == last


@simulator_only
def test_a_dispute_that_nobody_answers_is_lost(client, stripe_simulator):
    charge = charge_of(client, make_subscription(client, "pm_card_createDispute"))
    stripe_simulator.advance(days=10)
    (dispute,) = client.v1.disputes.list({"charge": charge.id}).data
    assert (dispute.status, dispute.evidence_details.past_due) == ("lost", True)
