"""Who may be served right now: the one question that the token proxy asks of billing.

Apart from `service`, so that a process that only asks this does not load Stripe's library.
"""

from datetime import datetime
from typing import Protocol

from openclaw_web.billing import mapping
from openclaw_web.billing.models import SubscriptionStatus


class Promise(Protocol):
    """What of a subscription the answer depends on: the row, or a few columns of it."""

    @property
    def status(self) -> SubscriptionStatus: ...
    @property
    def current_period_end(self) -> datetime: ...
    @property
    def cancel_at_period_end(self) -> bool: ...
    @property
    def trial_end(self) -> datetime | None: ...
    @property
    def grace_until(self) -> datetime | None: ...


def entitled(subscription: Promise | None, now: datetime) -> bool:
    """Say whether the token proxy serves this customer at this moment of business time."""
    return subscription is not None and mapping.is_entitled(
        subscription.status,
        now=now,
        period_end=subscription.current_period_end,
        cancel_at_period_end=subscription.cancel_at_period_end,
        trial_end=subscription.trial_end,
        grace_until=subscription.grace_until,
    )
