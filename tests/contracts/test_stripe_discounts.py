"""Coupons and promotion codes: who may use them, and what they take off. Stripe can be asked."""

import uuid

import pytest
import stripe

from tests.contracts.stripe_running import (
    PUBLIC_URL,
    item_of,
    make_clock,
    make_customer,
    make_price,
    make_session,
    make_subscription,
    move,
    simulator_only,
)

pytest_plugins = ["tests.contracts.stripe_fixtures"]
GOOD = "4242424242424242"


@pytest.fixture(scope="module")
def client(stripe_account):
    return stripe_account


@pytest.fixture(scope="module")
def browser(stripe_simulator):
    return stripe_simulator.browser()


def make_coupon(client, **wish):
    return client.v1.coupons.create({"duration": "once", **wish})


def make_code(client, coupon, **wish):
    promotion = {"type": "coupon", "coupon": coupon.id}
    return client.v1.promotion_codes.create({"promotion": promotion, **wish})


def discounted(client, coupon, **more):
    """Return a new subscription with a coupon, and its first invoice."""
    made = make_subscription(
        client, discounts=[{"coupon": coupon.id}], expand=["latest_invoice"], **more
    )
    return made, made.latest_invoice


@pytest.mark.parametrize(
    ("wish", "paid"),
    [
        ({"percent_off": 20}, 1600),
        ({"percent_off": 12.5}, 1750),
        ({"amount_off": 500, "currency": "usd"}, 1500),
        ({"amount_off": 5000, "currency": "usd"}, 0),
        ({"percent_off": 100}, 0),
    ],
    ids=str,
)
def test_a_coupon_takes_its_share_off_the_invoice(client, wish, paid):
    made, invoice = discounted(client, make_coupon(client, **wish))
    assert (made.status, invoice.status) == ("active", "paid")
    assert (invoice.subtotal, invoice.total, invoice.amount_paid) == (2000, paid, paid)
    (off,) = invoice.total_discount_amounts
    assert off.amount == 2000 - paid
    assert [one.amount for one in invoice.lines.data[0].discount_amounts] == [off.amount]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"duration": "once"}, [1000, 2000, 2000, 2000]),
        ({"duration": "repeating", "duration_in_months": 2}, [1000, 1000, 2000, 2000]),
        ({"duration": "forever"}, [1000, 1000, 1000, 1000]),
    ],
    ids=["once", "repeating", "forever"],
)
def test_a_coupon_lasts_as_long_as_it_says(client, wish, expected):
    clock = make_clock(client, "2027-03-05T10:00")
    customer = make_customer(client, test_clock=clock.id)
    coupon = make_coupon(client, percent_off=50, **wish)
    made = client.v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price": make_price(client).id}],
            "discounts": [{"coupon": coupon.id}],
        }
    )
    moment = clock.frozen_time
    for days in (57, 40):
        moment += days * 86_400
        move(client, clock, moment)
    invoices = client.v1.invoices.list({"subscription": made.id}).data
    assert [one.total for one in reversed(invoices)] == expected
    client.v1.test_helpers.test_clocks.delete(clock.id)


def test_a_discount_is_shown_and_can_be_taken_away(client):
    made, invoice = discounted(client, make_coupon(client, percent_off=50, duration="forever"))
    shown = client.v1.subscriptions.retrieve(made.id, {"expand": ["discounts.source.coupon"]})
    assert shown.discounts[0].source.coupon.percent_off == 50
    expanded = client.v1.invoices.retrieve(invoice.id, {"expand": ["discounts"]})
    assert expanded.discounts[0].source.type == "coupon"
    after = client.v1.subscriptions.update(made.id, {"discounts": ""})
    assert after.discounts == []
    assert client.v1.invoices.create_preview({"subscription": made.id}).total == 2000


def test_a_change_credits_only_what_was_paid(client):
    free = make_coupon(client, percent_off=100, duration="forever")
    made, _ = discounted(client, free)
    bigger = make_price(client, unit_amount=5000)
    change = {
        "items": [{"id": item_of(made).id, "price": bigger.id}],
        "billing_cycle_anchor": {"type": "now"},
        "proration_behavior": "always_invoice",
    }
    preview = client.v1.invoices.create_preview(
        {"subscription": made.id, "subscription_details": change}
    )
    assert (preview.subtotal, preview.total) == (5000, 0)
    after = client.v1.subscriptions.update(made.id, {**change, "expand": ["latest_invoice"]})
    assert (after.status, after.latest_invoice.amount_due) == ("active", 0)


def test_a_coupon_is_good_for_as_many_as_it_says(client):
    coupon = make_coupon(client, percent_off=10, max_redemptions=1)
    discounted(client, coupon)
    used = client.v1.coupons.retrieve(coupon.id)
    assert (used.times_redeemed, used.valid) == (1, False)
    with pytest.raises(stripe.InvalidRequestError):
        discounted(client, coupon)


def test_a_coupon_for_one_product_leaves_others_alone(client):
    mine, other = make_price(client), make_price(client)
    coupon = make_coupon(client, percent_off=50, applies_to={"products": [mine.product]})
    shown = client.v1.coupons.retrieve(coupon.id, {"expand": ["applies_to"]})
    assert shown.applies_to.products == [mine.product]
    items = [{"price": mine.id}, {"price": other.id}]
    _, invoice = discounted(client, coupon, items=items)
    assert (invoice.subtotal, invoice.total) == (4000, 3000)


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"percent_off": 10, "amount_off": 10, "currency": "usd"},
        {"percent_off": 101},
        {"amount_off": 100},
        {"percent_off": 5, "duration": "repeating"},
        {"percent_off": 5, "duration": "sometimes"},
    ],
    ids=str,
)
def test_a_coupon_without_sense_is_refused(client, wish):
    with pytest.raises(stripe.InvalidRequestError):
        make_coupon(client, **wish)


def test_a_promotion_code_is_found_whatever_the_case(client):
    coupon = make_coupon(client, percent_off=25)
    code = f"SAVE{uuid.uuid4().hex[:8]}".upper()
    promotion = make_code(client, coupon, code=code)
    found = client.v1.promotion_codes.list({"code": code.lower()}).data
    assert [one.id for one in found] == [promotion.id]
    with pytest.raises(stripe.InvalidRequestError):
        make_code(client, coupon, code=code.lower())
    client.v1.promotion_codes.update(promotion.id, {"active": False})
    assert client.v1.promotion_codes.list({"code": code, "active": True}).data == []


def test_a_promotion_code_gives_its_coupon(client):
    promotion = make_code(client, make_coupon(client, percent_off=25))
    made = make_subscription(
        client, discounts=[{"promotion_code": promotion.id}], expand=["latest_invoice"]
    )
    assert made.latest_invoice.amount_paid == 1500
    assert client.v1.promotion_codes.retrieve(promotion.id).times_redeemed == 1


def test_a_code_for_newcomers_is_refused_to_others(client):
    made = make_subscription(client)
    promotion = make_code(
        client,
        make_coupon(client, percent_off=25),
        restrictions={"first_time_transaction": True},
    )
    with pytest.raises(stripe.InvalidRequestError, match="prior"):
        client.v1.subscriptions.update(made.id, {"discounts": [{"promotion_code": promotion.id}]})


@simulator_only
def test_a_code_typed_on_the_page_lowers_the_price(client, browser):
    promotion = make_code(client, make_coupon(client, percent_off=25))
    session = make_session(client, make_price(client), allow_promotion_codes=True)
    path = session.url.removeprefix(PUBLIC_URL)
    page = browser.post(path, data={"promotion_code": promotion.code.lower(), "apply": "1"})
    assert "-$5.00" in page.text
    assert "$15.00" in page.text
    removed = browser.post(path, data={"remove": "1"})
    assert "-$5.00" not in removed.text
    form = {"email": "ada@example.com", "name": "Ada", "card": GOOD}
    paid = browser.post(path, data={**form, "promotion_code": promotion.code})
    assert paid.status_code == 303
    done = client.v1.checkout.sessions.retrieve(
        session.id, {"expand": ["discounts.promotion_code"]}
    )
    assert (done.amount_total, done.total_details.amount_discount) == (1500, 500)
    assert done.discounts[0].promotion_code.code == promotion.code


@simulator_only
@pytest.mark.parametrize(
    ("collection", "asks"), [("if_required", False), ("always", True)], ids=str
)
def test_a_free_start_asks_for_a_card_only_when_told_to(client, browser, collection, asks):
    free = make_coupon(client, percent_off=100, duration="forever")
    session = make_session(
        client,
        make_price(client),
        discounts=[{"coupon": free.id}],
        payment_method_collection=collection,
    )
    path = session.url.removeprefix(PUBLIC_URL)
    assert ('name="card"' in browser.get(path).text) is asks
    form = {"email": "ada@example.com", "name": "Ada", "card": GOOD}
    assert browser.post(path, data=form).status_code == 303
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]})
    assert (done.payment_status, done.subscription.status) == ("no_payment_required", "active")
    assert (done.subscription.default_payment_method is not None) is asks
