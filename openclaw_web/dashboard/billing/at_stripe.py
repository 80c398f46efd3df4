"""What only Stripe knows of a customer, asked for with little patience."""

import asyncio
import logging
from dataclasses import dataclass

from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations import payment_changes
from openclaw_web.integrations.payment_changes import Charge, Payer

logger = logging.getLogger(__name__)

SECONDS = 6  # a page does not wait longer for what it can do without


@dataclass(frozen=True, kw_only=True)
class AtStripe:
    """The card, what its bank wants confirmed, and the next charge."""

    payer: Payer
    charge: Charge | None


async def look(stripe_subscription_id: str) -> AtStripe | None:
    """Return what Stripe says, or nothing when it is away or too slow."""
    try:
        async with asyncio.timeout(SECONDS):
            return AtStripe(
                payer=await payment_changes.payer_of(stripe_subscription_id),
                charge=await payment_changes.find_next_charge(stripe_subscription_id),
            )
    except (TimeoutError, OpenClawError) as error:
        logger.warning("The billing page does without Stripe: %s", error or "too slow")
        return None
