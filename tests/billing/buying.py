"""The steps of a purchase, for tests: come to the page, have events delivered, look."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlmodel import SQLModel, select

from openclaw_web.accounts.models import Customer
from openclaw_web.billing import checkouts, redaction
from openclaw_web.billing import service as billing
from openclaw_web.billing.checkouts import Sale
from openclaw_web.billing.models import Checkout, Tier
from openclaw_web.core import secrets
from openclaw_web.core.database import session_scope
from openclaw_web.integrations import payment_client
from openclaw_web.jobs import inbox
from openclaw_web.jobs.inbox import Received
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState
from openclaw_web.onboarding.service import BOT_TOKEN_PURPOSE
from openclaw_web.workflows import stripe_events
from openclaw_web.workflows import subscription as workflow
from tests.billing.stripe_world import CANCEL_URL, SUCCESS_URL
from tests.factories import make_customer, make_onboarding

TIER = Tier.PRO
Row = TypeVar("Row", bound=SQLModel)


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Somebody whose chat has come to the payment."""

    customer: Customer
    chat: OnboardingSession
    checkout: Checkout

    @property
    def page(self) -> str:
        return self.checkout.stripe_session_id or ""

    @property
    def id(self) -> UUID:
        return self.customer.id


async def finish_the_chat() -> tuple[Customer, OnboardingSession]:
    """Return somebody whose chat lacks nothing but the payment."""
    async with session_scope() as session:
        customer = await make_customer(session)
        chat = await make_onboarding(
            session,
            state=OnboardingState.AWAITING_PAYMENT,
            customer_id=customer.id,
            telegram_user_id=111222333,
        )
        token = f"123456:{chat.id.hex}"
        session.add(
            OnboardingSecret(
                session_id=chat.id,
                telegram_token_ct=secrets.encrypt(BOT_TOKEN_PURPOSE, token),
                token_fingerprint=token,
                bot_id=123456,
                bot_username="a_test_bot",
                key_id=secrets.KEY_ID,
            )
        )
    return customer, chat


async def come_to_pay() -> Visitor:
    customer, chat = await finish_the_chat()
    checkout = await start_checkout(customer, chat)
    return Visitor(customer=customer, chat=chat, checkout=checkout)


async def start_checkout(
    customer: Customer, chat: OnboardingSession | None, tier: Tier = TIER
) -> Checkout:
    return await checkouts.start_checkout(
        Sale(
            customer_id=customer.id,
            tier=tier,
            onboarding_session_id=chat.id if chat else None,
            success_url=SUCCESS_URL,
            cancel_url=CANCEL_URL,
        )
    )


async def reach(key: str, url: str) -> None:
    await payment_client.close_payments()
    payment_client.open_payments(key, url)


async def sync(customer_id: UUID) -> None:
    async with session_scope() as session:
        await billing.request_sync(session, customer_id)
    await workflow.sync(customer_id)


async def deliver(events: Iterable[dict[str, Any]]) -> None:
    """Store events as the webhook does, and do what the worker does."""
    for event in events:
        async with session_scope() as session:
            await inbox.keep(
                session,
                [
                    Received(
                        provider="stripe",
                        event_id=event["id"],
                        event_type=event["type"],
                        payload=redaction.without_people(event),
                        object_id=event["data"]["object"]["id"],
                        livemode=False,
                        api_version=event["api_version"],
                    )
                ],
            )
        await stripe_events.apply_webhook_events()
        for customer_id in await workflow.due_syncs():
            await workflow.sync(customer_id)


async def rows(table: type[Row]) -> list[Row]:
    async with session_scope() as session:
        return list((await session.exec(select(table))).all())


async def only(table: type[Row]) -> Row:
    found = await rows(table)
    assert len(found) == 1, found
    return found[0]


async def stripe_id_of(visitor: Visitor) -> str:
    async with session_scope() as session:
        customer = await session.get_one(Customer, visitor.id)
    return customer.stripe_customer_id or ""
