"""Selling tiers: the catalogue, the request to look at Stripe, and its page for cards.

`checkouts.py` opens the payment page.
"""

from collections.abc import Mapping
from functools import partial
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.billing import leases, queries
from openclaw_web.billing.tiers import plans
from openclaw_web.core.database import after_commit
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations import payments, redis
from openclaw_web.integrations.payment_objects import SaleItem

BELL = "sync"


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


async def request_syncs(session: AsyncSession, wishes: Mapping[UUID, int]) -> None:
    """Ask for the syncs of many customers, each as often as is said. Call it last, as the other."""
    await leases.raise_requests(session, wishes)
    for customer_id in wishes:
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
