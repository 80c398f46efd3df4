"""Who may be served right now: the one question that the token proxy asks of billing.

Apart from `service`, so that a process that only asks this does not load Stripe's library.
"""

from datetime import datetime

from openclaw_web.billing import mapping
from openclaw_web.billing.models import Subscription


def entitled(subscription: Subscription | None, now: datetime) -> bool:
    """Say whether the token proxy serves this customer at this moment of business time."""
    return subscription is not None and mapping.is_entitled(
        subscription.status,
        now=now,
        period_end=subscription.current_period_end,
        cancel_at_period_end=subscription.cancel_at_period_end,
        trial_end=subscription.trial_end,
        grace_until=subscription.grace_until,
    )
