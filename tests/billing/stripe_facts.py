"""What Stripe could list, for tests of the decision: name only what the test is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from openclaw_web.billing.facts import Decision, Facts, Known, Verdict
from openclaw_web.billing.mapping import decide
from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SUB = StripeSubscription(
    id="sub_1",
    stripe_customer_id="cus_1",
    status="active",
    price_id="price_pro",
    price_lookup_key=plan_of(Tier.PRO).lookup_key,
    price_tier="pro",
    period_start=NOW - 10 * DAY,
    period_end=NOW + 20 * DAY,
    cancel_at_period_end=False,
    trial_end=None,
    created=NOW - 40 * DAY,
)
PAID = StripeInvoice(
    id="in_paid",
    status="paid",
    currency="usd",
    due_cents=4900,
    paid_cents=4900,
    remaining_cents=0,
    created=SUB.period_start,
    stripe_subscription_id="sub_1",
    finalized_at=SUB.period_start,
    due_at=SUB.period_start,
    period_start=SUB.period_start,
    period_end=SUB.period_end,
    price_id="price_pro",
    price_cents=4900,
)
KNOWN = Known(
    stripe_subscription_id="sub_1",
    status=SubscriptionStatus.ACTIVE,
    tier=Tier.PRO,
    period_start=SUB.period_start,
    period_end=SUB.period_end,
)


def priced(tier: Tier, one: StripeSubscription = SUB) -> StripeSubscription:
    """Return the subscription at another tier's price."""
    key = plan_of(tier).lookup_key
    return replace(one, price_id=f"price_{tier}", price_lookup_key=key, price_tier=tier.value)


def billed(tier: Tier, invoice: StripeInvoice = PAID) -> StripeInvoice:
    """Return the invoice at another tier's price."""
    cents = plan_of(tier).price_cents
    return replace(invoice, price_id=f"price_{tier}", price_cents=cents)


def unpaid(*, since: datetime, id: str = "in_open") -> StripeInvoice:  # noqa: A002 - Stripe's word
    return replace(
        PAID, id=id, status="open", paid_cents=0, remaining_cents=4900,
        created=since, finalized_at=since, due_at=since,
    )  # fmt: skip


def facts(*subscriptions: StripeSubscription, **fields: Any) -> Facts:
    return Facts(subscriptions=subscriptions or (SUB,), now=fields.pop("now", NOW), **fields)


def decided(given: Facts) -> Decision:
    decision = decide(given).current
    assert decision is not None
    return decision


def chosen(verdict: Verdict) -> str:
    assert verdict.current is not None
    return verdict.current.stripe_subscription_id


def written(decision: Decision) -> Known:
    """Return our row as it is after this decision was written."""
    return Known(
        stripe_subscription_id=decision.stripe_subscription_id,
        status=decision.status,
        tier=decision.tier,
        period_start=decision.period_start,
        period_end=decision.period_end,
        stripe_price_id=decision.stripe_price_id,
        cancel_at_period_end=decision.cancel_at_period_end,
        trial_end=decision.trial_end,
        past_due_since=decision.past_due_since,
        pending_tier=decision.pending_tier,
    )
