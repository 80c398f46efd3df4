"""Giving money back through our adapter: once for each key, and never a second time by mistake."""

from uuid import uuid4

import pytest

from openclaw_web.billing import service as billing
from openclaw_web.billing.tiers import plan_of
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import payment_client, payments
from openclaw_web.integrations import payment_reversals as reversals
from tests.billing.stripe_world import KEY, stripe_world

PRICE = plan_of("pro").price_cents


@pytest.fixture(scope="module")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process):
    payment_client.open_payments(KEY, stripe_process.url)
    yield stripe_process
    await payment_client.close_payments()


async def pays(stripe, card: str = "pm_card_visa") -> tuple[str, str]:
    """Return the ids of a Stripe customer and of a subscription that was paid."""
    prices = await billing.publish_catalogue()
    made = await payments.ensure_customer(f"{uuid4().hex}@example.com", uuid4())
    subscription = stripe.subscribe(made.id, prices[plan_of("pro").lookup_key], card=card)
    return made.id, subscription


async def refund(intent: str, key: str, **fields) -> reversals.StripeRefund:
    return await reversals.refund_payment(
        intent, idempotency_key=key, metadata={"why": "test"}, **fields
    )


async def test_the_same_key_gives_a_payment_back_once(stripe):
    customer, subscription = await pays(stripe)
    (payment,) = await reversals.invoice_payments_of(customer)
    assert (payment.stripe_subscription_id, payment.paid_cents) == (subscription, PRICE)
    key = f"refund:{payment.payment_intent_id}"
    first, second = [await refund(payment.payment_intent_id, key) for _ in range(2)]
    assert first == second
    assert (first.amount_cents, first.is_given_back) == (PRICE, True)
    assert await reversals.refunds_of(customer) == (first,)
    (charge,) = await reversals.charges_of(customer)
    assert (charge.refunded_cents, charge.is_disputed) == (PRICE, False)


async def test_another_key_is_told_that_it_is_done_already(stripe):
    customer, _ = await pays(stripe)
    (payment,) = await reversals.invoice_payments_of(customer)
    await refund(payment.payment_intent_id, "a")
    with pytest.raises(VendorError) as caught:
        await refund(payment.payment_intent_id, f"b-{uuid4()}")
    assert (caught.value.code, caught.value.can_retry) == ("charge_already_refunded", False)


async def test_a_part_leaves_the_rest(stripe):
    customer, _ = await pays(stripe)
    (payment,) = await reversals.invoice_payments_of(customer)
    intent = payment.payment_intent_id
    await refund(intent, f"part:{intent}", amount_cents=500, reason="requested_by_customer")
    await refund(intent, f"rest:{intent}")
    given = sorted(one.amount_cents for one in await reversals.refunds_of_payment(intent))
    assert given == [500, PRICE - 500]


async def test_ending_what_has_ended_changes_nothing(stripe):
    customer, subscription = await pays(stripe)
    for _ in range(2):
        await reversals.cancel_now(subscription)
    await reversals.cancel_now("sub_never_was")
    (found,) = await payments.subscriptions_of(customer)
    assert found.status == "canceled"


async def test_a_dispute_is_seen_until_it_is_decided(stripe):
    customer, _ = await pays(stripe, "pm_card_createDispute")
    charges = await reversals.charges_of(customer)
    (dispute,) = await reversals.disputes_of(charges)
    assert (dispute.is_open, dispute.charge_id) == (True, charges[0].id)
    with pytest.raises(VendorError) as caught:
        await refund(charges[0].payment_intent_id or "", f"c-{uuid4()}")
    assert caught.value.code == "charge_disputed"
    stripe.act("lost", dispute.id)
    (dispute,) = await reversals.disputes_of(await reversals.charges_of(customer))
    assert (dispute.is_open, dispute.is_lost) == (False, True)


async def test_a_banks_warning_belongs_to_a_charge_and_its_customer(stripe):
    customer, _ = await pays(stripe, "pm_card_createIssuerFraudRecord")
    (charge,) = await reversals.charges_of(customer)
    (warning,) = await reversals.fraud_warnings_of(charge.id)
    assert warning.is_actionable
    found = await reversals.find_charge(warning.charge_id)
    assert found is not None
    assert found.stripe_customer_id == customer
    assert await reversals.find_charge("ch_never_was") is None
