"""Our adapter towards Stripe: what is asked again changes nothing, and its errors are ours."""

from dataclasses import replace
from uuid import uuid4

import pytest

from openclaw_web.billing import service as billing
from openclaw_web.billing.tiers import plans
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import payment_client, payments
from openclaw_web.integrations.payment_objects import CheckoutRequest, SaleItem
from tests.billing.stripe_world import KEY, stripe_world

ITEM = SaleItem(
    lookup_key="test_price", name="Test", amount_cents=1000, currency="usd", tier="starter"
)


@pytest.fixture(scope="session")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process):
    payment_client.open_payments(KEY, stripe_process.url)
    yield stripe_process
    await payment_client.close_payments()


async def test_the_catalogue_is_published_once(stripe):
    first = await billing.publish_catalogue()
    assert await billing.publish_catalogue() == first
    assert set(first) == {plan.lookup_key for plan in plans()}
    products = stripe.api("GET", "/products", params={"limit": 100})["data"]
    names = [product["name"] for product in products]
    assert names.count("OpenClaw Cloud Pro") == 1


async def test_a_new_price_takes_the_name_over_and_says_its_tier(stripe):
    old = (await payments.ensure_catalogue([ITEM]))[ITEM.lookup_key]
    dearer = replace(ITEM, amount_cents=1200)
    new = (await payments.ensure_catalogue([dearer]))[ITEM.lookup_key]
    assert new != old
    before = stripe.api("GET", f"/prices/{old}")
    assert (before["lookup_key"], before["metadata"]) == (None, {"tier": "starter"})
    assert before["product"] == stripe.api("GET", f"/prices/{new}")["product"]


async def test_a_customer_is_made_once(stripe):
    assert stripe
    customer_id = uuid4()
    made = {(await payments.ensure_customer("a@example.com", customer_id)).id for _ in range(2)}
    assert len(made) == 1


async def test_the_portal_shows_card_and_invoices_only(stripe):
    customer = await payments.ensure_customer("b@example.com", uuid4())
    url = await payments.create_portal_session(customer.id, return_url="http://localhost:3000/")
    assert "/p/session/" in url
    (portal,) = stripe.api("GET", "/billing_portal/configurations")["data"]
    assert not portal["features"]["subscription_update"]["enabled"]


async def test_a_price_that_nobody_published_is_named(stripe):
    assert stripe
    customer = await payments.ensure_customer("c@example.com", uuid4())
    request = CheckoutRequest(
        stripe_customer_id=customer.id,
        price_lookup_key="nobody_published_this",
        checkout_id=str(uuid4()),
        success_url="http://localhost:3000/",
        cancel_url="http://localhost:3000/",
    )
    with pytest.raises(VendorError, match="nobody_published_this") as refused:
        await payments.create_checkout_session(request, idempotency_key=str(uuid4()))
    assert (refused.value.can_retry, refused.value.code) == (False, "no_such_price")


async def test_a_wrong_key_cannot_be_retried_and_is_not_repeated_in_the_error(stripe):
    await payment_client.close_payments()
    payment_client.open_payments("sk_test_a_wrong_key_of_ours", stripe.url)
    with pytest.raises(VendorError) as refused:
        await payments.subscriptions_of("cus_1")
    assert not refused.value.can_retry
    assert "a_wrong_key" not in str(refused.value)


async def test_a_stripe_that_is_away_can_be_asked_again(stripe, monkeypatch):
    assert stripe
    monkeypatch.setattr(payment_client, "NETWORK_RETRIES", 0)
    await payment_client.close_payments()
    payment_client.open_payments(KEY, "http://127.0.0.1:9")
    with pytest.raises(VendorError) as failed:
        await payments.invoices_of("cus_1")
    assert failed.value.can_retry
