"""What the stories about money taken back share: a Stripe, a buyer, the worker's turns."""

from contextlib import asynccontextmanager
from datetime import timedelta

import sqlalchemy as sa

from openclaw_web.billing import service as billing
from openclaw_web.billing.models import BillingSync, Reversal
from openclaw_web.billing.tiers import plan_of
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations import payment_client, payments
from openclaw_web.jobs.models import Alert
from openclaw_web.workflows import delivery
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import TIER, Visitor, come_to_pay, rows, stripe_id_of, sync
from tests.billing.stripe_world import GOOD_CARD, KEY, StripeWorld

PRICE_CENTS = plan_of(TIER).price_cents


@asynccontextmanager
async def adapter_of(process: StripeWorld):
    payment_client.open_payments(KEY, process.url)
    await billing.publish_catalogue()
    yield process
    await payment_client.close_payments()


async def buyer(stripe: StripeWorld, *, card: str = GOOD_CARD) -> Visitor:
    """Return somebody who has paid and was synced once."""
    visitor = await come_to_pay()
    assert stripe.pay(visitor.page, card=card).is_redirect
    await sync(visitor.id)
    return visitor


async def turn() -> None:
    """Do what the worker's timers and syncs do, whatever pause a failure had earned."""
    async with session_scope() as session:
        await session.exec(sa.update(Reversal).values(run_after=sa.func.now()))
        await session.exec(sa.update(BillingSync).values(lease_until=None))
    await delivery.turn_timers()
    await do_syncs()


async def do_syncs() -> None:
    for customer_id in await workflow.due_syncs():
        await workflow.sync(customer_id)


async def later(span: timedelta) -> None:
    async with session_scope() as session:
        await advance_clock(session, span.total_seconds(), by="test")


async def open_alerts() -> set[str]:
    return {alert.code for alert in await rows(Alert) if alert.resolved_at is None}


async def subscription_statuses(visitor: Visitor) -> list[str]:
    found = await payments.subscriptions_of(await stripe_id_of(visitor))
    return sorted(one.status for one in found)


async def charges_of(stripe: StripeWorld, visitor: Visitor) -> list[dict]:
    found = stripe.api("GET", "/charges", params={"customer": await stripe_id_of(visitor)})
    return found["data"]


async def pay_twice(stripe: StripeWorld, visitor: Visitor) -> str:
    """Have a second subscription paid by the same customer, past our own pages."""
    prices = await billing.publish_catalogue()
    return stripe.subscribe(await stripe_id_of(visitor), prices[plan_of(TIER).lookup_key])
