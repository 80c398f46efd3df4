"""What we keep when Stripe says nothing that we understand, and how long memory is kept."""

from datetime import timedelta

from openclaw_web.billing.entitlement import SERVED, desired_of, is_entitled
from openclaw_web.billing.facts import Decision, Desired, Facts, Known
from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.billing.tiers import plan_of
from openclaw_web.integrations.payment_objects import StripeSubscription

GRACE = timedelta(days=7)  # from the day on which the oldest open invoice became due
KEPT_AFTER_END = timedelta(days=7)  # memory is kept that long, and never less than what was paid
PROVISIONAL_SHARE = 4  # an unpaid period has a quarter of its plan's tokens


def unchanged(one: StripeSubscription, mine: Known, facts: Facts) -> Decision:
    """Keep what we knew under a status that we do not know; what ends by a date or a hold ends."""
    since = mine.past_due_since
    until = since + GRACE + facts.extra_grace if since else None
    status = mine.status
    is_served = not facts.holds and is_entitled(
        status,
        now=facts.now,
        period_end=mine.period_end,
        cancel_at_period_end=mine.cancel_at_period_end,
        trial_end=mine.trial_end,
        grace_until=until,
    )
    if status in SERVED and not is_served:
        status = SubscriptionStatus.SUSPENDED
    return Decision(
        stripe_subscription_id=one.id,
        stripe_price_id=mine.stripe_price_id,
        stripe_status=one.status,
        status=status,
        tier=mine.tier,
        tokens_limit=tokens_of(mine, facts),
        period_start=mine.period_start,
        period_end=mine.period_end,
        is_period_paid=False,
        is_entitled=is_served,
        desired=desired_of(status),
        cancel_at_period_end=mine.cancel_at_period_end,
        trial_end=mine.trial_end,
        past_due_since=since,
        grace_until=until,
        pending_tier=mine.pending_tier,
        delete_after=None,
        released_at=facts.released_at,
        period_limit=tokens_of(mine, facts, share=PROVISIONAL_SHARE),
    )


def orphaned(facts: Facts) -> Decision | None:
    """End a subscription that Stripe does not list any more, as it deleted its customer.

    Its end is decided once, and again when a hold was released, which had frozen the deletion.
    """
    mine, kept_from = facts.live, facts.now
    if mine is None and facts.released_at is not None and not facts.holds:
        mine, kept_from = facts.known, facts.released_at
    if mine is None or not facts.is_customer_deleted:
        return None
    kept_until = max(kept_from + KEPT_AFTER_END, mine.period_end)
    return Decision(
        stripe_subscription_id=mine.stripe_subscription_id or "",
        stripe_price_id=mine.stripe_price_id,
        stripe_status="canceled",
        status=SubscriptionStatus.CANCELLED,
        tier=mine.tier,
        tokens_limit=tokens_of(mine, facts),
        period_start=mine.period_start,
        period_end=mine.period_end,
        is_period_paid=False,
        is_entitled=False,
        desired=Desired.SUSPENDED,
        cancel_at_period_end=mine.cancel_at_period_end,
        trial_end=mine.trial_end,
        past_due_since=None,
        grace_until=None,
        pending_tier=None,
        delete_after=None if facts.holds else kept_until,
        released_at=facts.released_at,
        period_limit=tokens_of(mine, facts),
    )


def tokens_of(mine: Known, facts: Facts, *, share: int = 1) -> int:
    """Return a share of the plan's tokens with what admins gave, or took; never less than one."""
    return max(1, plan_of(mine.tier).tokens_limit // share + facts.extra_tokens)
