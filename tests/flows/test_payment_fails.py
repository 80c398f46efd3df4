"""A card that stops paying: a week of grace, then a pause; paid again, everything is back."""

from datetime import timedelta

import pytest

from openclaw_web.accounts.models import OutboxMail
from openclaw_web.billing import entitlement, queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.keeping import GRACE
from openclaw_web.billing.models import Hold, Subscription, SubscriptionStatus
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations import payment_client
from openclaw_web.jobs.models import Alert, OperatorJob
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import TIER, come_to_pay, only, rows, stripe_id_of, sync
from tests.billing.stripe_world import FAILS_LATER_CARD, KEY, StripeWorld, stripe_world


@pytest.fixture
async def stripe(tmp_path, database, redis):
    """Run a Stripe of this test's own, since its clock is moved."""
    assert database
    assert redis
    with stripe_world(tmp_path) as world:
        payment_client.open_payments(KEY, world.url)
        await billing.publish_catalogue()
        yield world
        await payment_client.close_payments()


async def advance(stripe: StripeWorld, span: timedelta) -> None:
    """Move Stripe's clock and ours, and do what the worker's timers do then."""
    stripe.advance(int(span.total_seconds()))
    async with session_scope() as session:
        await advance_clock(session, span.total_seconds(), by="test")
    await workflow.request_overdue_syncs()
    for customer_id in await workflow.due_syncs():
        await workflow.sync(customer_id)


async def is_entitled() -> bool:
    async with session_scope() as session:
        return entitlement.entitled(await only(Subscription), await business_now(session))


async def actions_asked_of_the_box() -> list[str]:
    """Return what the box's one waiting job is to do: requests are merged into it, in order."""
    return (await only(OperatorJob)).payload["actions"]


async def mails() -> list[str]:
    return sorted(mail.kind for mail in await rows(OutboxMail))


async def test_a_failed_card_is_served_for_a_week_then_paused_and_comes_back(stripe: StripeWorld):
    visitor = await come_to_pay()
    stripe.pay(visitor.page, card=FAILS_LATER_CARD)
    await sync(visitor.id)
    await advance(stripe, timedelta(days=31, hours=3))
    await check_the_grace()
    await advance(stripe, timedelta(days=7))
    await check_the_pause()
    (invoice,) = stripe.open_invoices(await stripe_id_of(visitor))
    assert stripe.pay_invoice(invoice).is_redirect
    await sync(visitor.id)
    await check_the_return()


async def check_the_grace() -> None:
    late = await only(Subscription)
    assert late.status is SubscriptionStatus.PAST_DUE
    assert late.grace_until is not None
    assert late.past_due_since is not None
    assert late.grace_until - late.past_due_since == GRACE
    assert await is_entitled()
    newest = max(await rows(UsageMonthly), key=lambda period: period.period_start)
    assert newest.period_start == late.current_period_start
    assert newest.is_provisional
    assert newest.tokens_limit == plan_of(TIER).tokens_limit // 4
    assert await actions_asked_of_the_box() == ["provision"]
    assert await mails() == ["payment_failed", "welcome"]


async def check_the_pause() -> None:
    assert (await only(Subscription)).status is SubscriptionStatus.SUSPENDED
    assert not await is_entitled()
    assert (await actions_asked_of_the_box())[-1] == "suspend"
    assert (await only(Box)).delete_after is None
    assert await mails() == ["payment_failed", "suspended", "welcome"]


async def check_the_return() -> None:
    paid = await only(Subscription)
    assert (paid.status, paid.grace_until) == (SubscriptionStatus.ACTIVE, None)
    assert await is_entitled()
    assert (await actions_asked_of_the_box())[-1] == "reactivate"
    newest = max(await rows(UsageMonthly), key=lambda period: period.period_start)
    assert (newest.is_provisional, newest.tokens_limit) == (False, plan_of(TIER).tokens_limit)
    assert "reactivated" in await mails()


async def test_a_hold_pauses_a_paying_customer_until_it_is_released(stripe: StripeWorld):
    visitor = await come_to_pay()
    stripe.pay(visitor.page)
    await sync(visitor.id)
    async with session_scope() as session:
        hold = Hold(customer_id=visitor.id, kind="abuse", reason="A test.")
        session.add(hold)
    await sync(visitor.id)
    assert (await only(Subscription)).status is SubscriptionStatus.SUSPENDED
    assert not await is_entitled()
    async with session_scope() as session:
        held = (await queries.open_holds(session, visitor.id))[0]
        held.released_at = await business_now(session)
    await sync(visitor.id)
    assert await is_entitled()
    assert (await actions_asked_of_the_box())[-1] == "reactivate"


async def test_a_renewal_that_is_paid_under_a_hold_is_told_to_an_admin(stripe: StripeWorld):
    visitor = await come_to_pay()
    stripe.pay(visitor.page)
    await sync(visitor.id)
    assert await rows(Alert) == []
    async with session_scope() as session:
        session.add(Hold(customer_id=visitor.id, kind="abuse", reason="A test."))
    await advance(stripe, timedelta(days=31, hours=3))
    assert (await only(Subscription)).status is SubscriptionStatus.SUSPENDED
    told = await only(Alert)
    assert (told.code, told.detail["paid_cents"]) == ("paid_under_hold", plan_of(TIER).price_cents)


async def test_a_renewal_opens_the_next_period_with_the_full_limit(stripe: StripeWorld):
    visitor = await come_to_pay()
    stripe.pay(visitor.page)
    await sync(visitor.id)
    await advance(stripe, timedelta(days=31, hours=3))
    first, second = sorted(await rows(UsageMonthly), key=lambda period: period.period_start)
    assert first.period_end == second.period_start
    assert (second.tokens_limit, second.is_provisional) == (plan_of(TIER).tokens_limit, False)
    assert await mails() == ["renewal_receipt", "welcome"]
