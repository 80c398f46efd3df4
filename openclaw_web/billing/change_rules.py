"""When a plan cannot be changed, and what its customer does first."""

from datetime import datetime, timedelta

from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations.payment_changes import Terms
from openclaw_web.ui import format as written

QUOTE_LASTS = timedelta(minutes=15)  # a price that was worked out longer ago is shown anew
CLOCKS_APART = timedelta(minutes=1)


class ChangeRefusedError(ValidationError):
    """This change is not possible now; the text says why and what to do first."""


def refuse_unless_changeable(row: Subscription, tier: Tier) -> None:
    ends = written.day(row.current_period_end)
    refused = {
        SubscriptionStatus.PAST_DUE: "A payment is overdue. Fix your card first; then you can "
        "change your plan.",
        SubscriptionStatus.SUSPENDED: "Your plan is suspended. Settle what is open first; then you "
        "can change it.",
        SubscriptionStatus.TRIALING: "You are on trial. You can change your plan once it is over.",
    }
    if row.status in refused:
        raise ChangeRefusedError(refused[row.status])
    if row.cancel_at_period_end:
        raise ChangeRefusedError(
            f"Your plan ends on {ends}. Keep it first; then you can change it."
        )
    if tier is row.tier:
        raise ChangeRefusedError("This is your plan already.")


def refuse_unpaid(terms: Terms) -> None:
    if terms.has_open_invoice:
        raise ChangeRefusedError(
            "A payment for this period is still on its way. You can change to a bigger plan once "
            "it has arrived, usually within an hour."
        )


def refuse_old_quote(proration_date: int, now: datetime) -> None:
    age = timedelta(seconds=now.timestamp() - proration_date)
    if not -CLOCKS_APART <= age <= QUOTE_LASTS:
        raise ChangeRefusedError("This price was worked out a while ago. Look at it once more.")
