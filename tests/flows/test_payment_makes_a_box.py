"""A payment becomes a subscription, a period, a box and a job: once, whatever Stripe sends."""

import asyncio
from itertools import pairwise

import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool

from openclaw_web.accounts.models import AuditLog, OutboxMail
from openclaw_web.billing import entitlement, queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import (
    Checkout,
    CheckoutStatus,
    Invoice,
    Subscription,
    SubscriptionStatus,
    Tier,
)
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import engine, session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations import payment_client, payments
from openclaw_web.jobs.models import Alert, JobType, OperatorJob, WebhookEvent
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState
from openclaw_web.workflows import stripe_events
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import (
    TIER,
    Visitor,
    come_to_pay,
    deliver,
    finish_the_chat,
    only,
    reach,
    rows,
    start_checkout,
    stripe_id_of,
    sync,
)
from tests.billing.stripe_world import (
    DECLINED_CARD,
    KEY,
    SUCCESS_URL,
    StripeWorld,
    shuffled,
    stripe_world,
)


@pytest.fixture(scope="session")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process, database, redis):
    """Open our adapter towards a Stripe that knows the catalogue."""
    assert database
    assert redis
    payment_client.open_payments(KEY, stripe_process.url)
    await billing.publish_catalogue()
    yield stripe_process
    await payment_client.close_payments()


@pytest.fixture
async def visitor(stripe) -> Visitor:
    assert stripe
    return await come_to_pay()


async def check_everything_exists_once(visitor: Visitor) -> None:
    subscription = await only(Subscription)
    assert subscription.customer_id == visitor.id
    assert (subscription.status, subscription.tier) == (SubscriptionStatus.ACTIVE, TIER)
    period = await only(UsageMonthly)
    assert period.period_start == subscription.current_period_start
    assert (period.tokens_limit, period.is_provisional) == (plan_of(TIER).tokens_limit, False)
    box = await only(Box)
    assert (box.subscription_id, box.status) == (subscription.id, BoxStatus.PENDING)
    assert (await only(OperatorJob)).job_type is JobType.PROVISION
    assert [mail.kind for mail in await rows(OutboxMail)] == ["welcome"]
    checkout = await only(Checkout)
    assert checkout.status == CheckoutStatus.COMPLETE
    assert checkout.paid_at is not None
    assert (await only(OnboardingSession)).state is OnboardingState.PROVISIONING
    invoice = await only(Invoice)
    assert (invoice.status, invoice.paid_cents) == ("paid", plan_of(TIER).price_cents)
    assert await rows(Alert) == []


async def test_a_payment_makes_one_of_everything(stripe: StripeWorld, visitor):
    assert stripe.pay(visitor.page).is_redirect
    await sync(visitor.id)
    await check_everything_exists_once(visitor)
    actions = [row.action for row in await rows(AuditLog)]
    assert actions.count("subscription.active") == 1


@pytest.mark.parametrize("seed", range(4))
async def test_the_order_and_number_of_events_do_not_matter(seed, stripe: StripeWorld, visitor):
    stripe.pay(visitor.page)
    events = stripe.events_of(await stripe_id_of(visitor))
    assert {"checkout.session.completed", "invoice.paid"} <= {event["type"] for event in events}
    await deliver(shuffled(events, seed))
    await check_everything_exists_once(visitor)
    assert all(event.processed for event in await rows(WebhookEvent))


async def test_one_event_is_enough(stripe: StripeWorld, visitor):
    stripe.pay(visitor.page)
    events = stripe.events_of(await stripe_id_of(visitor))
    await deliver([event for event in events if event["type"] == "checkout.session.completed"])
    await check_everything_exists_once(visitor)


async def test_an_event_of_a_stranger_waits_and_is_then_ignored(stripe: StripeWorld, visitor):
    stripe.pay(visitor.page)
    event = stripe.events_of(await stripe_id_of(visitor))[-1]
    event["data"]["object"] = {"id": "cus_stranger", "object": "customer"}
    event["type"] = "customer.deleted"
    await deliver([event])
    waiting = await only(WebhookEvent)
    assert (waiting.processed, waiting.attempt) == (False, 1)
    async with session_scope() as session:
        waiting.attempt, waiting.run_after = stripe_events.STRANGER_ATTEMPTS - 1, waiting.created_at
        session.add(waiting)
    await deliver([])
    await stripe_events.apply_webhook_events()
    assert (await only(WebhookEvent)).outcome == "ignored"
    assert await rows(Subscription) == []


async def test_coming_back_from_the_page_is_enough(stripe: StripeWorld, visitor):
    stripe.pay(visitor.page)
    async with session_scope() as session:
        is_theirs = await billing.note_checkout_return(
            session, customer_id=visitor.id, stripe_session_id=visitor.page
        )
    assert is_theirs
    await workflow.sync(visitor.id)
    await check_everything_exists_once(visitor)


async def test_coming_back_with_another_customers_page_changes_nothing(stripe, visitor):
    other = await come_to_pay()
    assert stripe
    async with session_scope() as session:
        is_theirs = await billing.note_checkout_return(
            session, customer_id=visitor.id, stripe_session_id=other.page
        )
        assert not is_theirs
        assert await queries.any_customers_due_for_sync(session, limit=5) == []


async def test_workers_that_sync_at_once_do_it_once(stripe: StripeWorld, visitor):
    stripe.pay(visitor.page)
    await asyncio.gather(*(sync(visitor.id) for _ in range(6)))
    await check_everything_exists_once(visitor)
    async with session_scope() as session:
        row = await queries.find_sync(session, visitor.id)
    assert row is not None
    assert row.synced_seq == row.requested_seq == 6


async def test_a_second_sync_changes_nothing(stripe: StripeWorld, visitor):
    stripe.pay(visitor.page)
    for _ in range(3):
        await sync(visitor.id)
    await check_everything_exists_once(visitor)


async def test_without_a_payment_nothing_is_made(stripe: StripeWorld, visitor):
    await sync(visitor.id)
    assert stripe.pay(visitor.page, card=DECLINED_CARD).status_code != 303
    await sync(visitor.id)
    for table in (Subscription, UsageMonthly, Box, OperatorJob, OutboxMail):
        assert await rows(table) == []
    assert (await only(Checkout)).status == CheckoutStatus.OPEN


async def test_clicks_at_once_end_on_one_page(stripe: StripeWorld):
    assert stripe
    customer, chat = await finish_the_chat()
    found = await asyncio.gather(*(start_checkout(customer, chat) for _ in range(4)))
    assert len({one.url for one in found}) == 1
    assert (await only(Checkout)).id == found[0].id


async def test_while_stripe_is_asked_no_connection_is_held(stripe: StripeWorld, monkeypatch):
    assert stripe
    customer, chat = await finish_the_chat()
    held, create, pool = [], payments.create_checkout_session, engine().pool
    assert isinstance(pool, AsyncAdaptedQueuePool)

    async def look_and_create(request, *, idempotency_key):
        held.append(pool.checkedout())
        return await create(request, idempotency_key=idempotency_key)

    monkeypatch.setattr(payments, "create_checkout_session", look_and_create)
    assert (await start_checkout(customer, chat)).url
    assert held == [0]


async def test_tabs_that_want_different_tiers_end_on_one_page(stripe: StripeWorld):
    assert stripe
    customer, chat = await finish_the_chat()
    tiers = [TIER, Tier.TEAM, TIER]
    found = await asyncio.gather(
        *(start_checkout(customer, chat, tier) for tier in tiers), return_exceptions=True
    )
    assert any(isinstance(one, Checkout) for one in found)
    assert all(isinstance(one, Checkout | ValidationError) for one in found)
    open_ones = [one for one in await rows(Checkout) if one.status == CheckoutStatus.OPEN]
    assert len(open_ones) == 1


async def test_another_tier_closes_the_page_of_the_first(stripe: StripeWorld, visitor):
    other = await start_checkout(visitor.customer, visitor.chat, Tier.TEAM)
    assert other.id != visitor.checkout.id
    assert stripe.pay(visitor.page).status_code != 303
    back = await start_checkout(visitor.customer, visitor.chat, TIER)
    assert back.id not in {other.id, visitor.checkout.id}
    assert back.idempotency_key == f"checkout:{visitor.chat.id}:pro:4900usd:1"
    stripe.pay(back.stripe_session_id or "")
    await sync(visitor.id)
    assert (await only(Subscription)).tier is TIER
    statuses = sorted(one.status for one in await rows(Checkout))
    assert statuses == ["complete", "expired", "expired"]


async def test_a_page_that_is_forgotten_by_a_crash_is_found_again(stripe, visitor):
    assert stripe
    async with session_scope() as session:
        await session.delete(await session.get_one(Checkout, visitor.checkout.id))
    again = await start_checkout(visitor.customer, visitor.chat)
    assert (again.id, again.stripe_session_id) == (visitor.checkout.id, visitor.page)


async def test_paying_in_another_tab_leads_on_instead_of_selling_twice(
    stripe: StripeWorld, visitor
):
    stripe.pay(visitor.page)
    again = await start_checkout(visitor.customer, visitor.chat, Tier.TEAM)
    assert again.status == CheckoutStatus.COMPLETE
    assert again.url == SUCCESS_URL.replace("{CHECKOUT_SESSION_ID}", visitor.page)
    await workflow.sync(visitor.id)
    await check_everything_exists_once(visitor)
    with pytest.raises(billing.AlreadySubscribedError):
        await start_checkout(visitor.customer, visitor.chat)


async def test_when_stripe_is_away_the_request_waits(stripe: StripeWorld, visitor, monkeypatch):
    stripe.pay(visitor.page)
    monkeypatch.setattr(payment_client, "NETWORK_RETRIES", 0)
    await reach(KEY, "http://127.0.0.1:9")
    await sync(visitor.id)
    async with session_scope() as session:
        row = await queries.find_sync(session, visitor.id)
        assert row is not None
        assert (row.requested_seq, row.synced_seq) == (1, 0)
        assert row.error == "Stripe cannot be reached."
        assert await queries.any_customers_due_for_sync(session, limit=5) == []  # it rests
        row.lease_until = None
    await reach(KEY, stripe.url)
    assert list(await workflow.due_syncs()) == [visitor.id]
    await workflow.sync(visitor.id)
    await check_everything_exists_once(visitor)


async def test_a_key_that_stripe_refuses_is_told_to_an_admin(stripe: StripeWorld, visitor):
    await reach("sk_test_wrong", stripe.url)
    await sync(visitor.id)
    assert (await only(Alert)).code == workflow.FAILED_ALERT
    await reach(KEY, stripe.url)
    async with session_scope() as session:
        row = await queries.find_sync(session, visitor.id)
        assert row is not None
        row.lease_until = None
    await workflow.sync(visitor.id)
    assert (await only(Alert)).resolved_at is not None


async def test_a_payment_counts_even_when_the_box_cannot_be_made(stripe: StripeWorld, visitor):
    async with session_scope() as session:
        kept = await session.get_one(OnboardingSecret, visitor.chat.id)
        await session.delete(kept)
    stripe.pay(visitor.page)
    await sync(visitor.id)
    assert (await only(Subscription)).status is SubscriptionStatus.ACTIVE
    assert await rows(Box) == []
    assert (await only(Alert)).code == "paid_without_box"
    async with session_scope() as session:
        session.add(OnboardingSecret(**kept.model_dump()))
    await sync(visitor.id)
    assert (await only(Box)).status is BoxStatus.PENDING
    assert (await only(Alert)).resolved_at is not None


async def test_a_cancelled_subscription_suspends_its_box_and_keeps_it_a_while(
    stripe: StripeWorld, visitor
):
    stripe.pay(visitor.page)
    await sync(visitor.id)
    subscription = await only(Subscription)
    stripe.api("DELETE", f"/subscriptions/{subscription.stripe_subscription_id}")
    await sync(visitor.id)
    ended, box = await only(Subscription), await only(Box)
    assert (ended.status, ended.stripe_status) == (SubscriptionStatus.CANCELLED, "canceled")
    assert box.delete_after == ended.current_period_end
    async with session_scope() as session:
        assert not entitlement.entitled(ended, await business_now(session))
    assert [mail.kind for mail in await rows(OutboxMail)] == ["welcome", "suspended"]


async def test_a_customer_who_comes_back_gets_the_kept_box(stripe: StripeWorld, visitor):
    stripe.pay(visitor.page)
    await sync(visitor.id)
    first = await only(Subscription)
    stripe.api("DELETE", f"/subscriptions/{first.stripe_subscription_id}")
    await sync(visitor.id)
    again = await start_checkout(visitor.customer, None)
    stripe.pay(again.stripe_session_id or "")
    await sync(visitor.id)
    async with session_scope() as session:
        live = await queries.find_live_subscription(session, visitor.id)
    assert live is not None
    assert live.id != first.id
    box = await only(Box)
    assert (box.subscription_id, box.delete_after) == (live.id, None)
    assert len(await rows(Subscription)) == 2
    periods = sorted(await rows(UsageMonthly), key=lambda period: period.period_start)
    assert all(a.period_end <= b.period_start for a, b in pairwise(periods))


async def test_a_lost_webhook_is_made_up_for_after_a_quarter_of_an_hour(
    stripe: StripeWorld, visitor
):
    stripe.pay(visitor.page)
    assert await workflow.request_overdue_syncs() == 0
    async with session_scope() as session:
        row = await session.get_one(Checkout, visitor.checkout.id)
        row.created_at = await business_now(session) - queries.POLL_AFTER * 1.1
    assert await workflow.request_overdue_syncs() == 1
    await workflow.sync(visitor.id)
    await check_everything_exists_once(visitor)
    assert await workflow.request_overdue_syncs() == 0
