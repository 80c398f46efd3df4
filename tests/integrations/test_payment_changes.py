"""Our adapter for changes of a running subscription: previewed, collected, undone, ended."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from openclaw_web.billing import service as billing
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import payment_changes as changes
from openclaw_web.integrations import payment_client, payments
from openclaw_web.integrations.payment_changes import Card
from tests.billing.stripe_world import KEY, stripe_world

GOOD, REFUSED, CHALLENGED = (
    "pm_card_visa",
    "pm_card_chargeCustomerFail",
    "pm_card_authenticationRequired",
)


@pytest.fixture(scope="module")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process):
    payment_client.open_payments(KEY, stripe_process.url)
    await billing.publish_catalogue()
    yield stripe_process
    await payment_client.close_payments()


async def subscribe(stripe, plan="pro"):
    """Have somebody pay for a plan with a good card, and return their subscription's id."""
    customer = await payments.ensure_customer(f"{uuid4().hex}@example.com", uuid4())
    card = attach(stripe, customer.id, GOOD)
    made = stripe.api(
        "POST",
        "/subscriptions",
        data={
            "customer": customer.id,
            "items[0][price]": await price(plan),
            "default_payment_method": card,
        },
    )
    assert made["status"] == "active"
    stripe.advance(60)
    return made["id"]


def attach(stripe, customer, name):
    fields = {"customer": customer}
    return stripe.api("POST", f"/payment_methods/{name}/attach", data=fields)["id"]


def use_card(stripe, subscription, name):
    customer = stripe.api("GET", f"/subscriptions/{subscription}")["customer"]
    fields = {"default_payment_method": attach(stripe, customer, name)}
    stripe.api("POST", f"/subscriptions/{subscription}", data=fields)


async def price(plan):
    return await changes.price_named(f"openclaw_{plan}_monthly")


def date_of(terms):
    return int(terms.period_start.timestamp()) + 1


async def upgrade(terms, plan="team", key=None):
    await changes.change_now(
        terms,
        await price(plan),
        proration_date=date_of(terms),
        idempotency_key=key or str(uuid4()),
    )


async def test_the_quoted_amount_is_what_is_charged(stripe):
    subscription = await subscribe(stripe)
    terms = await changes.terms_of(subscription)
    quote = await changes.quote_now(terms, await price("team"), proration_date=date_of(terms))
    await upgrade(terms)
    paid = stripe.api("GET", "/invoices", params={"subscription": subscription})["data"][0]
    assert (paid["status"], paid["amount_paid"]) == ("paid", quote.due_now_cents)
    assert quote.next_charge_cents == 12900
    after = await changes.terms_of(subscription)
    assert after.price_tier == "team"
    # The new period begins when we pay, which is a moment after we were told the price.
    assert timedelta(0) <= after.period_end - quote.next_charge_at < timedelta(minutes=1)
    assert after.period_start > terms.period_start


async def test_the_same_key_charges_once(stripe):
    subscription = await subscribe(stripe)
    terms = await changes.terms_of(subscription)
    for _ in range(2):
        await upgrade(terms, key=f"plan:{subscription}")
    assert len(stripe.api("GET", "/invoices", params={"subscription": subscription})["data"]) == 2


async def test_a_refused_card_leaves_everything_as_it_was(stripe):
    subscription = await subscribe(stripe)
    use_card(stripe, subscription, REFUSED)
    before = await changes.terms_of(subscription)
    with pytest.raises(changes.CardRefusedError, match="Your card was declined"):
        await upgrade(before)
    after = await changes.terms_of(subscription)
    assert (after.price_id, after.period_end) == (before.price_id, before.period_end)
    assert (after.status, after.pending_invoice_id, after.has_open_invoice) == (
        "active",
        None,
        False,
    )


async def test_a_bank_that_asks_its_customer_keeps_the_change_waiting(stripe):
    subscription = await subscribe(stripe)
    use_card(stripe, subscription, CHALLENGED)
    before = await changes.terms_of(subscription)
    with pytest.raises(changes.ConfirmationNeededError) as asked:
        await upgrade(before)
    waiting = await changes.terms_of(subscription)
    assert (waiting.price_id, waiting.pending_price_id) == (before.price_id, await price("team"))
    assert waiting.pending_address == asked.value.address
    assert (await changes.payer_of(subscription)).confirmation_address == asked.value.address
    for _ in range(2):
        await changes.drop_pending_change(waiting.pending_invoice_id or "")
    assert (await changes.terms_of(subscription)).pending_invoice_id is None


async def test_a_smaller_price_is_billed_at_the_turn_and_can_be_taken_back(stripe):
    subscription = await subscribe(stripe)
    before = await changes.terms_of(subscription)
    starter = await price("starter")
    quote = await changes.quote_at_turn(before, starter)
    assert (quote.due_now_cents, quote.next_charge_cents) == (0, 1900)
    assert quote.next_charge_at == before.period_end
    await changes.change_at_turn(before, starter, price_before=before.price_id)
    waiting = await changes.terms_of(subscription)
    assert (waiting.price_tier, waiting.price_before) == ("starter", before.price_id)
    assert (waiting.period_start, waiting.period_end) == (before.period_start, before.period_end)
    charge = await changes.find_next_charge(subscription)
    assert charge is not None
    assert (charge.amount_cents, charge.at) == (1900, before.period_end)
    await changes.change_at_turn(waiting, before.price_id, price_before=before.price_id)
    assert (await changes.terms_of(subscription)).price_id == before.price_id


async def test_an_end_is_set_with_its_reason_and_taken_back(stripe):
    subscription = await subscribe(stripe)
    await changes.cancel_at_period_end(subscription, reason="too_expensive", comment="Rent is due")
    assert (await changes.terms_of(subscription)).cancel_at_period_end
    details = stripe.api("GET", f"/subscriptions/{subscription}")["cancellation_details"]
    assert (details["feedback"], details["comment"]) == ("too_expensive", "Rent is due")
    assert await changes.find_next_charge(subscription) is None
    for _ in range(2):
        await changes.keep_after_period_end(subscription)
    assert not (await changes.terms_of(subscription)).cancel_at_period_end


async def test_the_card_that_pays_is_known(stripe):
    payer = await changes.payer_of(await subscribe(stripe))
    assert payer.card is not None
    assert (payer.card.brand, payer.card.last4) == ("visa", "4242")
    assert payer.confirmation_address is None
    assert payer.card.ends_at > datetime.now(UTC) + timedelta(days=300)


def test_a_card_is_good_until_the_end_of_its_month():
    card = Card(brand="visa", last4="4242", exp_month=12, exp_year=2026)
    assert card.ends_at == datetime(2027, 1, 1, tzinfo=UTC)


async def test_a_price_that_nobody_published_is_named(stripe):
    assert stripe
    with pytest.raises(VendorError, match="nobody_published_this"):
        await changes.price_named("nobody_published_this")
