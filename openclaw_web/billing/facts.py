"""What goes into the decision about a customer's subscription, and what comes out of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription


class Desired(StrEnum):
    """What the subscription wants of the box; a pause by the customer is the box's own affair."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class ConcernCode(StrEnum):
    DUPLICATE = "duplicate_subscription"
    UNKNOWN_STATUS = "unknown_stripe_status"
    UNKNOWN_PRICE = "unknown_stripe_price"
    MISSING = "subscription_missing_at_stripe"
    CUSTOMER_DELETED = "stripe_customer_deleted"
    UNBILLED = "stripe_invoice_stuck"


@dataclass(frozen=True, kw_only=True)
class Concern:
    """Something that an admin should look at; `subject` is a Stripe id."""

    code: ConcernCode
    subject: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """Our row of before: the live one, or the newest that ended."""

    stripe_subscription_id: str | None
    status: SubscriptionStatus
    tier: Tier
    period_start: datetime
    period_end: datetime
    stripe_price_id: str | None = None
    cancel_at_period_end: bool = False
    trial_end: datetime | None = None
    past_due_since: datetime | None = None
    pending_tier: Tier | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the decision depends on; `now` is business time, `released_at` the last hold's."""

    subscriptions: tuple[StripeSubscription, ...]
    now: datetime
    invoices: tuple[StripeInvoice, ...] = ()
    holds: tuple[str, ...] = ()
    released_at: datetime | None = None
    extra_grace: timedelta = timedelta(0)
    extra_tokens: int = 0
    known: Known | None = None
    is_customer_deleted: bool = False

    @property
    def live(self) -> Known | None:
        """Our row, unless it has ended."""
        has_ended = self.known is None or self.known.status is SubscriptionStatus.CANCELLED
        return None if has_ended else self.known

    def known_of(self, one: StripeSubscription) -> Known | None:
        """Return our row of this subscription."""
        known = self.known
        return known if known and known.stripe_subscription_id == one.id else None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What our row should say, and what follows.

    `tokens_limit` is the plan's and what admins gave, `period_limit` what the running period has of
    it: a quarter of the plan's until its invoice is paid. `delete_after` is set only once the
    subscription ended; the release of a hold, at `released_at`, may have moved it.
    """

    stripe_subscription_id: str
    stripe_price_id: str | None
    stripe_status: str
    status: SubscriptionStatus
    tier: Tier
    tokens_limit: int
    period_start: datetime
    period_end: datetime
    is_period_paid: bool
    is_entitled: bool
    desired: Desired
    cancel_at_period_end: bool
    trial_end: datetime | None
    past_due_since: datetime | None
    grace_until: datetime | None
    pending_tier: Tier | None
    delete_after: datetime | None
    released_at: datetime | None = None
    period_limit: int = 0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision, or none when there is nothing to write, and what looked odd."""

    current: Decision | None
    concerns: tuple[Concern, ...] = ()
