"""A customer who pays for a plan, for tests of what they change about it."""

from datetime import timedelta
from uuid import UUID

from openclaw_web.accounts.models import AuditLog, OutboxMail
from openclaw_web.billing.models import Subscription, Tier
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import advance_clock
from tests.billing.buying import Visitor, finish_the_chat, only, rows, start_checkout, sync
from tests.billing.stripe_world import GOOD_CARD, StripeWorld

REFUSED_LATER = "pm_card_chargeCustomerFail"
AN_HOUR = timedelta(hours=1)
CHALLENGED = "pm_card_authenticationRequired"


async def subscribe(stripe: StripeWorld, tier: Tier = Tier.PRO, *, card: str = GOOD_CARD) -> UUID:
    """Let a new customer buy a plan an hour ago, and return who it is."""
    await pass_time(stripe, timedelta(0))  # other tests have moved its clock
    customer, chat = await finish_the_chat()
    checkout = await start_checkout(customer, chat, tier)
    visitor = Visitor(customer=customer, chat=chat, checkout=checkout)
    stripe.pay(visitor.page, card=card)
    await sync(visitor.id)
    await pass_time(stripe, AN_HOUR)
    return visitor.id


async def pass_time(stripe: StripeWorld, span: timedelta) -> None:
    """Move Stripe's clock, and ours to where that is."""
    stripe.advance(int(span.total_seconds()))
    async with session_scope() as session:
        ours = (await business_now(session)) - real_now()
        ahead = stripe.offset_seconds() - ours.total_seconds()
        await advance_clock(session, max(0.0, ahead), by="test")


async def use_card(stripe: StripeWorld, name: str) -> None:
    """Have the next payments of the one subscription taken from another card."""
    row = await only(Subscription)
    found = stripe.api("GET", f"/subscriptions/{row.stripe_subscription_id}")
    card = stripe.api(
        "POST", f"/payment_methods/{name}/attach", data={"customer": found["customer"]}
    )
    stripe.api("POST", f"/subscriptions/{found['id']}", data={"default_payment_method": card["id"]})


async def at_stripe(stripe: StripeWorld) -> dict:
    row = await only(Subscription)
    return stripe.api("GET", f"/subscriptions/{row.stripe_subscription_id}")


async def invoices(stripe: StripeWorld) -> list[dict]:
    """Return the one customer's invoices, the newest first."""
    found = await at_stripe(stripe)
    return stripe.api("GET", "/invoices", params={"customer": found["customer"]})["data"]


async def mail_kinds() -> list[str]:
    return [mail.kind for mail in await rows(OutboxMail) if mail.kind != "welcome"]


async def actions() -> list[str]:
    return [line.action for line in await rows(AuditLog) if line.action.startswith("plan.")]
