"""Who may be served right now: the one question that the token proxy asks of billing.

Apart from `service`, so that a process that only asks this does not load Stripe's library.
"""

from datetime import datetime
from typing import Protocol

from openclaw_web.billing.facts import Desired
from openclaw_web.billing.models import SubscriptionStatus

SERVED = frozenset(
    {SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE}
)


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
    return subscription is not None and is_entitled(
        subscription.status,
        now=now,
        period_end=subscription.current_period_end,
        cancel_at_period_end=subscription.cancel_at_period_end,
        trial_end=subscription.trial_end,
        grace_until=subscription.grace_until,
    )


def is_entitled(
    status: SubscriptionStatus,
    *,
    now: datetime,
    period_end: datetime,
    cancel_at_period_end: bool = False,
    trial_end: datetime | None = None,
    grace_until: datetime | None = None,
) -> bool:
    """Say the same of a subscription that is not a row yet."""
    if status not in SERVED or (cancel_at_period_end and now >= period_end):
        return False
    if status is SubscriptionStatus.TRIALING:
        return trial_end is None or now < trial_end
    if status is SubscriptionStatus.PAST_DUE:
        return grace_until is not None and now < grace_until
    return True


def desired_of(status: SubscriptionStatus) -> Desired:
    """Return what the box should do; it runs until somebody is told that it is paused."""
    return Desired.ACTIVE if status in SERVED else Desired.SUSPENDED
