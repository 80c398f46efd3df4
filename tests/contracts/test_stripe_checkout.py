"""The simulator's pages: checkout, billing portal, hosted invoice, and the developer's board."""

from urllib.parse import urlsplit

import httpx
import pytest
import stripe

from tests.contracts.stripe_running import (
    PUBLIC_URL,
    item_of,
    make_price,
    make_session,
    make_subscription,
)

GOOD, DECLINED, CHALLENGED = "4242424242424242", "4000000000000002", "4000002500003155"


pytest_plugins = ["tests.contracts.stripe_fixtures"]


@pytest.fixture(scope="module")
def simulator(stripe_simulator):
    return stripe_simulator


@pytest.fixture(scope="module")
def client(simulator):
    return simulator.client()


@pytest.fixture(scope="module")
def browser(simulator):
    return simulator.browser()


def page_of(session):
    assert session.url.startswith(f"{PUBLIC_URL}/c/pay/cs_test_")
    return session.url.removeprefix(PUBLIC_URL)


def form(card=GOOD, **more):
    return {"email": "ada@example.com", "name": "Ada Lovelace", "card": card, **more}


def test_paying_makes_a_customer_with_an_active_subscription(client, browser):
    session = make_session(
        client,
        make_price(client),
        client_reference_id="onboarding-7",
        subscription_data={"metadata": {"tier": "plus"}},
    )
    answer = browser.post(page_of(session), data=form())
    assert answer.status_code == 303
    assert answer.headers["location"] == f"http://localhost:9/welcome?session={session.id}"
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]})
    assert (paid.status, paid.payment_status) == ("complete", "paid")
    assert paid.client_reference_id == "onboarding-7"
    assert (paid.subscription.status, paid.subscription.metadata["tier"]) == ("active", "plus")
    method = client.v1.payment_methods.retrieve(paid.subscription.default_payment_method)
    assert (method.card.brand, method.card.last4, method.card.exp_year) == ("visa", "4242", 2034)
    assert client.v1.customers.retrieve(paid.customer).email == "ada@example.com"


def test_a_known_customer_finds_the_address_filled_in(client, browser):
    customer = client.v1.customers.create({"email": "known@example.com", "name": "Known"})
    session = make_session(client, make_price(client), customer=customer.id)
    page = browser.get(page_of(session))
    assert 'value="known@example.com"' in page.text
    assert "Simulated Stripe - no money moves" in page.text
    assert 'href="http://localhost:9/plans"' in page.text
    assert f'action="{session.id}"' in page.text
    assert 'id="pay"' in page.text


def test_a_declined_card_keeps_the_session_open(client, browser):
    session = make_session(client, make_price(client))
    answer = browser.post(page_of(session), data=form(DECLINED))
    assert answer.status_code == 402
    assert "Your card was declined." in answer.text
    kept = client.v1.checkout.sessions.retrieve(session.id)
    assert (kept.status, kept.customer, kept.subscription) == ("open", None, None)
    assert browser.post(page_of(session), data=form()).status_code == 303


def test_three_d_secure_can_be_failed_and_completed(client, browser):
    session = make_session(client, make_price(client))
    challenge = browser.post(page_of(session), data=form(CHALLENGED))
    assert 'id="complete"' in challenge.text
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    failed = browser.post(page_of(session), data=form(CHALLENGED, outcome="fail"))
    assert "unable to authenticate" in failed.text
    done = browser.post(page_of(session), data=form(CHALLENGED, outcome="complete"))
    assert done.status_code == 303


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"email": "nobody"}, "Your email is incomplete."),
        ({"name": " "}, "Enter the name"),
        ({"card": "1"}, "Choose a test card."),
        ({"promotion_code": "FREE"}, "This code is invalid."),
    ],
    ids=["email", "name", "card", "code"],
)
def test_an_incomplete_form_is_shown_again_with_the_reason(client, browser, change, sentence):
    session = make_session(client, make_price(client))
    answer = browser.post(page_of(session), data=form(**change))
    assert answer.status_code == 402
    assert sentence in answer.text
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"


def test_paying_twice_charges_once(client, browser):
    session = make_session(client, make_price(client))
    assert browser.post(page_of(session), data=form()).status_code == 303
    again = browser.post(page_of(session), data=form())
    assert again.status_code == 410
    assert "This has been paid already" in again.text
    customer = client.v1.checkout.sessions.retrieve(session.id).customer
    assert len(client.v1.subscriptions.list({"customer": customer}).data) == 1


def test_an_expired_session_says_so(client, browser):
    session = make_session(client, make_price(client))
    assert client.v1.checkout.sessions.expire(session.id).status == "expired"
    answer = browser.post(page_of(session), data=form())
    assert answer.status_code == 410
    assert "This checkout has expired" in answer.text


def test_text_from_outside_is_escaped(client, browser):
    customer = client.v1.customers.create({"email": "a@b.example", "name": "<script>alert(1)"})
    session = make_session(client, make_price(client), customer=customer.id)
    assert "<script>alert" not in browser.get(page_of(session)).text
    assert "<script>alert" not in browser.get("/").text


def test_a_page_needs_the_token_and_our_origin(simulator, client, browser):
    session = make_session(client, make_price(client))
    assert httpx.get(simulator.url + page_of(session)).status_code == 401
    foreign = browser.post(page_of(session), data=form(), headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"


def test_the_portal_shows_and_changes_the_card(client, browser):
    made = make_subscription(client)
    session = client.v1.billing_portal.sessions.create(
        {"customer": made.customer, "return_url": "http://localhost:9/billing"}
    )
    path = session.url.removeprefix(PUBLIC_URL)
    page = browser.get(path).text
    assert "4242" in page
    assert "$20.00" in page
    assert 'href="http://localhost:9/billing"' in page
    assert "Your card was declined." in browser.post(path, data={"card": DECLINED}).text
    assert browser.post(path, data={"card": "5555555555554444"}).status_code == 303
    assert "Mastercard •••• 4444" in browser.get(path).text
    after = client.v1.subscriptions.retrieve(made.id, {"expand": ["default_payment_method"]})
    assert after.default_payment_method.card.last4 == "4444"


def test_a_hosted_invoice_that_is_open_can_be_paid(client, browser):
    made = make_subscription(client, "pm_card_chargeCustomerFail")
    assert made.status == "incomplete"
    invoice = client.v1.invoices.retrieve(made.latest_invoice)
    path = invoice.hosted_invoice_url.removeprefix(PUBLIC_URL)
    assert "Pay $20.00" in browser.get(path).text
    assert browser.post(path, data={"card": DECLINED}).status_code == 402
    assert browser.post(path, data={"card": GOOD}).status_code == 303
    assert "paid" in browser.get(path).text
    assert client.v1.subscriptions.retrieve(made.id).status == "active"


def test_the_board_shows_what_happened(client, browser):
    made = make_subscription(client)
    page = browser.get("/").text
    for expected in (made.id, made.customer, "customer.subscription.created", "Redeliver"):
        assert expected in page
    event = client.v1.events.list({"limit": 1}).data[0]
    again = browser.post("/redeliver", data={"event": event.id})
    assert (again.status_code, urlsplit(again.headers["location"]).path) == (303, "./")


def test_a_session_refuses_what_stripe_would_refuse(client):
    price = make_price(client)
    with pytest.raises(Exception, match="at least 30 minutes"):
        make_session(client, price, expires_at=1)
    client.v1.prices.update(price.id, {"active": False})
    with pytest.raises(Exception, match="price specified is inactive"):
        make_session(client, price)
    assert item_of(make_subscription(client)).price.active


@pytest.mark.parametrize("card", [CHALLENGED, "4000002760003184"])
def test_a_challenged_card_pays_once_its_owner_has_proved_it(client, browser, card):
    session = make_session(client, make_price(client))
    assert browser.post(page_of(session), data=form(card, outcome="complete")).status_code == 303
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]})
    assert paid.subscription.status == "active"


def test_somebody_can_leave_come_back_and_pay(client, browser):
    session = make_session(client, make_price(client))
    assert 'href="http://localhost:9/plans"' in browser.get(page_of(session)).text
    assert browser.get(page_of(session)).status_code == 200
    assert browser.post(page_of(session), data=form()).status_code == 303


def test_a_trial_is_offered_and_begun_on_the_page(client, browser):
    session = make_session(client, make_price(client), subscription_data={"trial_period_days": 14})
    assert "Start trial" in browser.get(page_of(session)).text
    assert browser.post(page_of(session), data=form()).status_code == 303
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]})
    assert (done.payment_status, done.subscription.status) == ("no_payment_required", "trialing")


@pytest.mark.parametrize(
    ("expires", "sentence"),
    [
        ("1 / 20", "in the past"),
        ("13 / 30", "is incomplete"),
        ("never", "is incomplete"),
    ],
)
def test_a_card_that_is_over_is_not_taken(client, browser, expires, sentence):
    session = make_session(client, make_price(client))
    answer = browser.post(page_of(session), data=form(expires=expires))
    assert answer.status_code == 402
    assert sentence in answer.text


def test_a_renewal_that_needs_the_customer_is_confirmed_on_the_banks_page(client, browser):
    made = make_subscription(client, "pm_card_authenticationRequired")
    assert made.status == "incomplete"
    invoice = client.v1.invoices.retrieve(made.latest_invoice, {"expand": ["payments"]})
    intent_id = invoice.payments.data[0].payment.payment_intent
    intent = client.v1.payment_intents.retrieve(intent_id)
    assert (intent.status, intent.next_action.type) == ("requires_action", "redirect_to_url")
    path = intent.next_action.redirect_to_url.url.removeprefix(PUBLIC_URL)
    assert "$20.00" in browser.get(path).text
    assert browser.post(path, data={"outcome": "fail"}).status_code == 303
    failed = client.v1.payment_intents.retrieve(intent_id)
    assert failed.last_payment_error.code == "payment_intent_authentication_failure"
    hosted = invoice.hosted_invoice_url.removeprefix(PUBLIC_URL)
    asked = browser.post(hosted, data={"card": "4000002760003184"})
    assert asked.headers["location"] == f"../3ds/{intent_id}"
    assert browser.post(path, data={"outcome": "complete"}).status_code == 303
    assert client.v1.subscriptions.retrieve(made.id).status == "active"
    kinds = {one.type for one in client.v1.events.list({"limit": 100}).data}
    assert "invoice.payment_action_required" in kinds


def test_a_portal_shows_only_what_its_configuration_allows(client, browser):
    made = make_subscription(client)
    configurations = client.v1.billing_portal.configurations
    only_invoices = configurations.create({"features": {"invoice_history": {"enabled": True}}})
    session = client.v1.billing_portal.sessions.create(
        {"customer": made.customer, "configuration": only_invoices.id}
    )
    path = session.url.removeprefix(PUBLIC_URL)
    page = browser.get(path).text
    assert "Update card" not in page
    assert "Invoices" in page
    features = {"payment_method_update": {"enabled": True}, "invoice_history": {"enabled": False}}
    configurations.update(only_invoices.id, {"features": features})
    page = browser.get(path).text
    assert "Update card" in page
    assert "<h2>Invoices</h2>" not in page
    with pytest.raises(stripe.InvalidRequestError, match="subscription_cancel"):
        configurations.create({"features": {"subscription_cancel": {"enabled": True}}})


def test_a_portal_opened_for_the_card_leads_back_when_it_is_saved(client, browser):
    made = make_subscription(client)
    flow = {
        "type": "payment_method_update",
        "after_completion": {"type": "redirect", "redirect": {"return_url": "http://a.example/"}},
    }
    session = client.v1.billing_portal.sessions.create(
        {"customer": made.customer, "flow_data": flow}
    )
    saved = browser.post(session.url.removeprefix(PUBLIC_URL), data={"card": GOOD})
    assert saved.headers["location"] == "http://a.example/"


def test_the_board_acts_on_payments_faults_and_codes(client, browser):
    made = make_subscription(client)
    charge = client.v1.charges.list({"customer": made.customer}).data[0]
    assert browser.post("/act", data={"what": "refund", "id": charge.id}).status_code == 303
    assert client.v1.charges.retrieve(charge.id).refunded
    assert (
        "already been refunded"
        in browser.post("/act", data={"what": "refund", "id": charge.id}).text
    )
    assert browser.post("/promotion", data={"code": "BOARD", "percent": "30"}).status_code == 303
    assert client.v1.promotion_codes.list({"code": "board"}).data[0].active
    assert browser.post("/faults", data={"kind": "rate_limit", "times": "3"}).status_code == 303
    assert "rate_limit, next 3" in browser.get("/").text
    assert browser.post("/mend").status_code == 303
    assert "rate_limit, next" not in browser.get("/").text
