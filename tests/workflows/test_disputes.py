"""A bank takes a payment back: the customer is held while it decides, and nothing is deleted."""

from datetime import timedelta

from openclaw_web.accounts.models import OutboxMail
from openclaw_web.billing import entitlement
from openclaw_web.billing.models import Hold, Invoice, Subscription, SubscriptionStatus
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.desired import Desired, Why
from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.jobs.models import Alert, OperatorJob, WebhookEvent
from openclaw_web.workflows import brakes, disputes
from openclaw_web.workflows.brakes import Switch
from tests.billing.buying import deliver, only, rows, sync
from tests.billing.stripe_world import StripeWorld
from tests.workflows.money_world import (
    PRICE_CENTS,
    buyer,
    charges_of,
    open_alerts,
    pay_twice,
    subscription_statuses,
    turn,
)

DISPUTED_CARD = "4000000000000259"
WARNED_CARD = "4000000000005423"


def dispute_of(stripe: StripeWorld, charge: dict) -> str:
    (found,) = stripe.api("GET", "/disputes", params={"charge": charge["id"]})["data"]
    return found["id"]


async def is_served() -> bool:
    async with session_scope() as session:
        return entitlement.entitled(await only(Subscription), await business_now(session))


async def desired() -> tuple[Desired, Why]:
    async with session_scope() as session:
        return await boxes.desired_of(session, await only(Box))


async def test_an_event_that_names_no_customer_finds_the_one_who_is_disputed(stripe: StripeWorld):
    visitor = await buyer(stripe)
    (charge,) = await charges_of(stripe, visitor)
    stripe.act("dispute", charge["id"])
    events = stripe.api("GET", "/events", params={"type": "charge.dispute.created", "limit": 1})
    assert "customer" not in events["data"][0]["data"]["object"]
    await deliver(events["data"])
    assert (await only(WebhookEvent)).outcome == "applied"
    assert (await only(Hold)).kind == "dispute"


async def test_while_a_dispute_is_open_the_box_sleeps_and_nothing_is_deleted(stripe: StripeWorld):
    visitor = await buyer(stripe)
    (charge,) = await charges_of(stripe, visitor)
    stripe.act("dispute", charge["id"])
    await sync(visitor.id)
    assert (await only(Subscription)).status is SubscriptionStatus.SUSPENDED
    assert not await is_served()
    assert await desired() == (Desired.SUSPENDED, Why.HOLD)
    assert await open_alerts() == {disputes.DISPUTE_ALERT}
    kinds = [mail.kind for mail in await rows(OutboxMail)]
    assert kinds.count("dispute_opened") == 1
    async with session_scope() as session:
        box = await boxes.get_any_box(session, (await only(Box)).id)
        box.delete_after = await business_now(session) - timedelta(days=1)
    assert await desired() == (Desired.SUSPENDED, Why.HOLD)


async def test_a_card_that_is_disputed_at_once_starts_no_box(stripe: StripeWorld):
    await buyer(stripe, card=DISPUTED_CARD)
    assert (await only(Subscription)).status is SubscriptionStatus.SUSPENDED
    assert await rows(Box) == []


async def test_a_dispute_that_is_won_lets_go(stripe: StripeWorld):
    visitor = await buyer(stripe)
    (charge,) = await charges_of(stripe, visitor)
    stripe.act("dispute", charge["id"])
    await sync(visitor.id)
    stripe.act("won", dispute_of(stripe, charge))
    await sync(visitor.id)
    assert await is_served()
    assert (await only(Hold)).released_at is not None
    assert await open_alerts() == set()
    assert (await only(OperatorJob)).payload["actions"][-1] == "reactivate"


async def test_a_lost_dispute_ends_the_subscription_first_and_keeps_the_memory_a_while(
    stripe: StripeWorld,
):
    visitor = await buyer(stripe)
    (charge,) = await charges_of(stripe, visitor)
    stripe.act("dispute", charge["id"])
    await sync(visitor.id)
    stripe.act("lost", dispute_of(stripe, charge))
    await sync(visitor.id)
    assert (await only(Hold)).released_at is None
    await turn()
    assert await subscription_statuses(visitor) == ["canceled"]
    assert (await only(Subscription)).status is SubscriptionStatus.CANCELLED
    assert (await only(Hold)).released_at is not None
    delete_after = (await only(Box)).delete_after
    async with session_scope() as session:
        assert delete_after is not None
        assert delete_after > await business_now(session) + timedelta(days=6)
    assert (await desired())[0] is Desired.SUSPENDED


async def test_a_dispute_that_was_lost_long_ago_does_not_end_a_new_subscription(
    stripe: StripeWorld,
):
    visitor = await buyer(stripe)
    (charge,) = await charges_of(stripe, visitor)
    stripe.act("dispute", charge["id"])
    stripe.act("lost", dispute_of(stripe, charge))
    await sync(visitor.id)
    await turn()
    await pay_twice(stripe, visitor)
    await sync(visitor.id)
    await turn()
    assert await subscription_statuses(visitor) == ["active", "canceled"]


async def warned(stripe: StripeWorld):
    visitor = await buyer(stripe, card=WARNED_CARD)
    kind = "radar.early_fraud_warning.created"
    events = stripe.api("GET", "/events", params={"type": kind, "limit": 1})
    await deliver(events["data"])
    return visitor


async def test_a_fraud_warning_is_told_and_costs_nothing_by_itself(stripe: StripeWorld):
    visitor = await warned(stripe)
    await turn()
    assert await open_alerts() == {disputes.WARNING_ALERT}
    assert (await only(Alert)).detail["customer_id"] == str(visitor.id)
    assert await is_served()


async def test_switched_on_a_fraud_warning_gives_the_money_back_once(stripe: StripeWorld):
    visitor = await warned(stripe)
    async with session_scope() as session:
        await brakes.turn(
            session, Switch.REFUND_FRAUD_WARNINGS, is_on=True, by="admin:test", reason="A test."
        )
    for _ in range(3):
        await turn()
    (charge,) = await charges_of(stripe, visitor)
    assert charge["amount_refunded"] == PRICE_CENTS
    assert await subscription_statuses(visitor) == ["canceled"]
    assert (await only(Invoice)).refunded_cents == PRICE_CENTS
    assert await open_alerts() == set()
