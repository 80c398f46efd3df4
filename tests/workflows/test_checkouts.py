"""When no second payment page is opened: money that we would only have to give back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from openclaw_web.billing import checkouts, holds, queries, records
from openclaw_web.billing.checkouts import PaymentArrivedError, Sale
from openclaw_web.billing.models import Checkout, CheckoutStatus, HoldKind, Subscription
from openclaw_web.billing.tiers import plan_of
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations import payments
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import TIER, come_to_pay, finish_the_chat, only, rows, start_checkout
from tests.billing.stripe_world import CANCEL_URL, SUCCESS_URL, StripeWorld


@pytest.mark.parametrize("kind", list(HoldKind))
async def test_whoever_is_held_cannot_pay_for_what_they_would_not_get(stripe: StripeWorld, kind):
    assert stripe
    customer, chat = await finish_the_chat()
    async with session_scope() as session:
        await holds.place(session, customer_id=customer.id, kind=kind, reason="A test.", by="t")
    with pytest.raises(ValidationError, match="on hold"):
        await start_checkout(customer, chat)
    assert await rows(Checkout) == []
    async with session_scope() as session:
        await holds.release(session, customer_id=customer.id, kind=kind, by="t")
    assert (await start_checkout(customer, chat)).url


async def test_a_payment_that_no_sync_has_seen_yet_is_not_asked_for_again(stripe: StripeWorld):
    visitor = await come_to_pay()
    assert stripe.pay(visitor.page).is_redirect
    assert (await start_checkout(visitor.customer, visitor.chat)).status == "complete"
    for chat in (visitor.chat, None):
        with pytest.raises(PaymentArrivedError, match="has arrived"):
            await start_checkout(visitor.customer, chat)
    assert len(await rows(Checkout)) == 1
    assert list(await workflow.due_syncs()) == [visitor.id]
    await workflow.sync(visitor.id)
    assert (await only(Subscription)).status == "active"


async def test_an_old_answer_does_not_open_a_page_again_that_is_complete(stripe: StripeWorld):
    visitor = await come_to_pay()
    old = await payments.retrieve_checkout_session(visitor.page)
    stripe.pay(visitor.page)
    new = await payments.retrieve_checkout_session(visitor.page)
    for found in (new, old):
        async with session_scope() as session:
            row = await session.get_one(Checkout, visitor.checkout.id)
            await records.note_checkout(session, row, found, now=await business_now(session))
    assert (await only(Checkout)).status == CheckoutStatus.COMPLETE
    assert (await only(Checkout)).paid_at is not None


@pytest.mark.parametrize(("days", "is_looked_at"), [(13, True), (15, False)])
async def test_a_payment_that_is_on_its_way_is_waited_for_two_weeks(
    stripe: StripeWorld, days, is_looked_at
):
    assert stripe
    visitor = await come_to_pay()
    async with session_scope() as session:
        row = await session.get_one(Checkout, visitor.checkout.id)
        row.status = CheckoutStatus.COMPLETE
        row.created_at = await business_now(session) - timedelta(days=days)
    async with session_scope() as session:
        now = await business_now(session)
        found = await queries.any_customers_to_sync(session, now)
        _, page = await queries.stripe_ids(session, visitor.id)
    assert (visitor.id in found, page is not None) == (is_looked_at, is_looked_at)


async def test_a_page_of_another_price_is_another_request(stripe: StripeWorld, monkeypatch):
    assert stripe
    visitor = await come_to_pay()
    dearer = replace(plan_of(TIER), price_cents=plan_of(TIER).price_cents + 100)
    monkeypatch.setattr(checkouts, "plan_of", lambda _tier: dearer)
    sale = Sale(
        customer_id=visitor.id,
        tier=TIER,
        onboarding_session_id=visitor.chat.id,
        success_url=SUCCESS_URL,
        cancel_url=CANCEL_URL,
    )
    async with session_scope() as session:
        known = await checkouts._look(session, sale)  # noqa: SLF001 - its key is what is tested
    assert known.key != visitor.checkout.idempotency_key
    assert str(dearer.price_cents) in known.key
