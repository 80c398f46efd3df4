"""From the chosen tier to Stripe's page, with no transaction open while Stripe is asked."""

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import checkouts
from openclaw_web.billing.checkouts import Sale
from openclaw_web.billing.models import Checkout, Tier
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.onboarding import chats
from openclaw_web.onboarding.chats import StepError
from openclaw_web.onboarding.conversation import Step

AFTER_THE_PAGE = timedelta(hours=1)  # the chat outlives its payment page by so much


async def open_page(visitor_token: str) -> Checkout:
    """Open Stripe's payment page for the chosen tier, or return the one that is open.

    Raises:
        StepError: the chat is not at the payment.
        ValidationError: its customer has a subscription already.
        VendorError: Stripe cannot be reached.
    """
    async with session_scope() as session:
        sale = await _sale(session, visitor_token)
    opened = await checkouts.start_checkout(sale)
    async with session_scope() as session:
        chat, step = await chats.locked(session, visitor_token)
        if step is Step.PAY:
            chat.expires_at = opened.expires_at + AFTER_THE_PAGE
    return opened


async def _sale(session: AsyncSession, visitor_token: str) -> Sale:
    chat, step = await chats.locked(session, visitor_token)
    if step is not Step.PAY or chat.customer_id is None:
        raise StepError("There is nothing to pay just now.")
    base = settings().public_url
    return Sale(
        customer_id=chat.customer_id,
        tier=Tier((chat.derived_config or {})["tier"]),
        onboarding_session_id=chat.id,
        success_url=f"{base}/start?checkout={{CHECKOUT_SESSION_ID}}",
        cancel_url=f"{base}/start?payment=cancelled",
    )
