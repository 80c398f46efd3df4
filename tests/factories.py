"""Valid rows in one call: a test names only what it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from openclaw_web.accounts.models import Customer, CustomerAuth, CustomerProfile
from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.onboarding.models import OnboardingSession, OnboardingState

TOKENS_LIMIT = 10_000_000
PERIOD = timedelta(days=30)


def now() -> datetime:
    return datetime.now(UTC)


async def make_customer(
    session: AsyncSession, *, email: str | None = None, **fields: Any
) -> Customer:
    customer = Customer(
        email=email or f"{uuid4().hex[:12]}@example.com", created_at=now(), **fields
    )
    session.add(customer)
    await session.flush()
    session.add(CustomerAuth(customer_id=customer.id, email_verified_at=now()))
    session.add(CustomerProfile(customer_id=customer.id))
    await session.flush()
    return customer


async def make_subscription(
    session: AsyncSession,
    *,
    customer: Customer | None = None,
    tier: Tier = Tier.STARTER,
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE,
    **fields: Any,
) -> Subscription:
    customer = customer or await make_customer(session)
    start = fields.pop("current_period_start", now() - timedelta(days=1))
    subscription = Subscription(
        customer_id=customer.id,
        tier=tier,
        status=status,
        tokens_limit=fields.pop("tokens_limit", TOKENS_LIMIT),
        current_period_start=start,
        current_period_end=fields.pop("current_period_end", start + PERIOD),
        stripe_subscription_id=fields.pop("stripe_subscription_id", f"sub_{uuid4().hex}"),
        **fields,
    )
    session.add(subscription)
    await session.flush()
    return subscription


async def make_box(
    session: AsyncSession,
    *,
    subscription: Subscription | None = None,
    status: BoxStatus = BoxStatus.ACTIVE,
    **fields: Any,
) -> Box:
    subscription = subscription or await make_subscription(session)
    box_id = fields.pop("id", uuid4())
    box = Box(
        id=box_id,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        k8s_namespace=f"customer-{box_id}",
        telegram_user_ids=fields.pop("telegram_user_ids", [111222333]),
        status=status,
        created_at=fields.pop("created_at", now()),
        status_changed_at=fields.pop("status_changed_at", now()),
        **fields,
    )
    session.add(box)
    await session.flush()
    return box


async def make_period(
    session: AsyncSession,
    *,
    subscription: Subscription | None = None,
    tokens_used: int = 0,
    tokens_limit: int = TOKENS_LIMIT,
    **fields: Any,
) -> UsageMonthly:
    subscription = subscription or await make_subscription(session)
    period = UsageMonthly(
        customer_id=subscription.customer_id,
        period_start=fields.pop("period_start", subscription.current_period_start),
        period_end=fields.pop("period_end", subscription.current_period_end),
        tokens_used=tokens_used,
        tokens_limit=tokens_limit,
        **fields,
    )
    session.add(period)
    await session.flush()
    return period


async def make_onboarding(
    session: AsyncSession, *, state: OnboardingState = OnboardingState.GREETING, **fields: Any
) -> OnboardingSession:
    onboarding = OnboardingSession(
        session_token=fields.pop("session_token", uuid4().hex),
        state=state,
        created_at=now(),
        updated_at=now(),
        expires_at=fields.pop("expires_at", now() + timedelta(hours=24)),
        **fields,
    )
    session.add(onboarding)
    await session.flush()
    return onboarding
