"""A customer of the run's own: everything a real one has, and limits that are not in the way."""

import os
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from bench.stack import Stack
from openclaw_web import tables
from openclaw_web.billing.models import Tier
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.settings import load
from openclaw_web.local import support
from tests.factories import make_box, make_customer, make_period, make_subscription

ENDLESS = 10**15


@dataclass(frozen=True)
class Holder:
    """Whose requests are measured."""

    customer_id: UUID
    token: str = field(repr=False)


async def make_holder(
    stack: Stack, *, tokens_limit: int = ENDLESS, tokens_used: int = 0, tier: Tier = Tier.STARTER
) -> Holder:
    """Make a customer with a box, a period and a token without the tier's rate limits.

    The token comes from where `admin issue-token --unthrottled` has it from.
    """
    os.environ.update(stack.environment())
    tables.resolve()
    open_database(stack.database_url)
    email = f"{uuid4().hex[:12]}@example.com"
    try:
        async with session_scope() as session:
            customer = await make_customer(session, email=email)
            subscription = await make_subscription(
                session, customer=customer, tier=tier, tokens_limit=tokens_limit
            )
            await make_box(session, subscription=subscription)
            await make_period(
                session,
                subscription=subscription,
                tokens_used=tokens_used,
                tokens_limit=tokens_limit,
            )
    finally:
        await close_database()
    chosen = load(os.environ)
    token = await support.issue_token(chosen, email, is_unthrottled=True)
    return Holder(customer.id, token)
