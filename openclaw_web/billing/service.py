"""Selling a tier: the payment page, the request to look at Stripe, and who is entitled."""

from datetime import datetime
from functools import partial
from uuid import UUID, uuid5

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.billing import leases, queries, records
from openclaw_web.billing.entitlement import entitled
from openclaw_web.billing.models import Checkout, CheckoutStatus, Tier
from openclaw_web.billing.tiers import plan_of, plans
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations import payments, redis
from openclaw_web.integrations.payment_objects import CheckoutRequest, CheckoutSession, SaleItem

__all__ = [
    "AlreadySubscribedError",
    "entitled",
    "note_checkout_return",
    "portal_url",
    "publish_catalogue",
    "request_sync",
    "start_checkout",
]

BELL = "sync"
# A checkout's id is made from its key: repeated after a crash, the request is the same to Stripe.
CHECKOUT_IDS = UUID("6f0c9f0e-3f6b-4b0e-9d53-0d7f6a3f5a51")


class AlreadySubscribedError(ValidationError):
    """The customer has a subscription; a second one is never sold."""


async def publish_catalogue() -> dict[str, str]:
    """Make sure that Stripe knows every tier, at every start; returns price ids by lookup key."""
    return await payments.ensure_catalogue(
        [
            SaleItem(
                lookup_key=plan.lookup_key,
                name=plan.name,
                amount_cents=plan.price_cents,
                currency=plan.currency,
                tier=plan.tier.value,
            )
            for plan in plans()
        ]
    )


async def start_checkout(
    session: AsyncSession,
    *,
    customer: Customer,
    tier: Tier,
    onboarding_session_id: UUID | None,
    success_url: str,
    cancel_url: str,
) -> Checkout:
    """Return a payment page for this tier: the open one, or a new one instead of another tier's.

    Asks Stripe while the transaction is open, under a lock on this customer, so that two clicks or
    two tabs end on the same page. If the commit fails, the next call gets the same page again.
    `success_url` may hold Stripe's `{CHECKOUT_SESSION_ID}`. If the last page was paid a moment ago,
    that checkout comes back: its status is complete, its `url` the success page.

    Raises:
        AlreadySubscribedError: there is a subscription already.
        VendorError: Stripe refused or did not answer.
    """
    await _lock_checkouts(session, customer.id)
    if await queries.find_live_subscription(session, customer.id):
        raise AlreadySubscribedError("You have a plan already; change it on the billing page.")
    now = await business_now(session)
    before = await queries.find_open_checkout(session, customer.id)
    if before is not None:
        is_same = (before.tier, before.onboarding_session_id) == (tier, onboarding_session_id)
        await _follow_page(session, before, is_kept=is_same, success_url=success_url, now=now)
        if before.status != CheckoutStatus.EXPIRED:
            return before
    await _ensure_stripe_customer(session, customer)
    checkout = await _new_checkout(session, customer.id, Tier(tier), onboarding_session_id)
    found = await _open_page(customer, checkout, success_url=success_url, cancel_url=cancel_url)
    checkout.stripe_session_id = found.id
    checkout.url = found.url
    checkout.expires_at = found.expires_at
    checkout.created_at = now
    session.add(checkout)
    await session.flush()
    after_commit(session, partial(redis.announce_change, customer.id))
    return checkout


async def note_checkout_return(
    session: AsyncSession, *, customer_id: UUID, stripe_session_id: str
) -> bool:
    """Have Stripe looked at when a customer comes back from paying; `False`: not their page."""
    checkout = await queries.find_checkout_of_page(session, customer_id, stripe_session_id)
    if checkout is None:
        return False
    await request_sync(session, customer_id)
    return True


async def request_sync(session: AsyncSession, customer_id: UUID) -> None:
    """Ask a worker to compare this customer with Stripe. Call it last: it locks a row."""
    await leases.raise_request(session, customer_id)
    after_commit(session, partial(redis.ring, BELL, str(customer_id)))


async def portal_url(customer: Customer, *, return_url: str) -> str:
    """Return Stripe's own page for this customer's card and invoices.

    Raises:
        ValidationError: the customer never came to pay.
        VendorError: Stripe refused or did not answer.
    """
    if customer.stripe_customer_id is None:
        raise ValidationError("There is no card to manage yet; choose a plan first.")
    return await payments.create_portal_session(customer.stripe_customer_id, return_url=return_url)


async def _lock_checkouts(session: AsyncSession, customer_id: UUID) -> None:
    """Let only one transaction at a time open or close this customer's pages."""
    key = sa.func.hashtextextended(f"checkout:{customer_id}", 0)
    await session.scalar(sa.select(sa.func.pg_advisory_xact_lock(key)))


async def _follow_page(
    session: AsyncSession, row: Checkout, *, is_kept: bool, success_url: str, now: datetime
) -> None:
    """See what became of an open page, and close it if it is no longer wanted."""
    page_id = row.stripe_session_id or ""
    ask = payments.retrieve_checkout_session if is_kept else payments.expire_checkout_session
    await records.note_checkout(session, row, await ask(page_id), now=now)
    if row.status == CheckoutStatus.COMPLETE:
        row.url = success_url.replace("{CHECKOUT_SESSION_ID}", page_id)
        await request_sync(session, row.customer_id)


async def _ensure_stripe_customer(session: AsyncSession, customer: Customer) -> None:
    if customer.stripe_customer_id is None:
        found = await payments.ensure_customer(customer.email, customer.id)
        customer.stripe_customer_id = found.id
        session.add(customer)
        await session.flush()


async def _new_checkout(
    session: AsyncSession, customer_id: UUID, tier: Tier, onboarding_session_id: UUID | None
) -> Checkout:
    start = f"checkout:{onboarding_session_id or customer_id}:{tier.value}:"
    key = f"{start}{await queries.count_checkouts(session, start)}"
    return Checkout(
        id=uuid5(CHECKOUT_IDS, key),
        customer_id=customer_id,
        onboarding_session_id=onboarding_session_id,
        tier=tier,
        idempotency_key=key,
        expires_at=await business_now(session),
    )


async def _open_page(
    customer: Customer, checkout: Checkout, *, success_url: str, cancel_url: str
) -> CheckoutSession:
    metadata = {"customer_id": str(customer.id), "tier": checkout.tier.value}
    if checkout.onboarding_session_id:
        metadata["onboarding_session_id"] = str(checkout.onboarding_session_id)
    request = CheckoutRequest(
        stripe_customer_id=customer.stripe_customer_id or "",
        price_lookup_key=plan_of(checkout.tier).lookup_key,
        checkout_id=str(checkout.id),
        success_url=success_url,
        cancel_url=cancel_url,
        metadata=metadata,
    )
    return await payments.create_checkout_session(request, idempotency_key=checkout.idempotency_key)
