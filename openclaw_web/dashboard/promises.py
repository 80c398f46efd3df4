"""What a customer reads about a payment that has not led to an assistant."""

from openclaw_web.billing.deliveries import Promise, PromiseState
from openclaw_web.ui import format as fmt

LATE = "Your payment arrived, but your assistant does not answer yet. We're on it, and keep trying."
OVERDUE = "It takes longer than we promised, so a person decides about your money now."


def sentence_of(promise: Promise | None) -> str:
    """Return what we are doing about it, or nothing while all is well."""
    if promise is None:
        return ""
    if promise.state is PromiseState.LATE:
        return f"{LATE} {OVERDUE if promise.is_overdue else _until(promise)}"
    if promise.state is PromiseState.REFUNDING:
        return "We could not set up your assistant in time, and are giving your money back now."
    amount = f" ({fmt.money(promise.refunded_cents, promise.currency)})"
    return (
        f"We gave your money back{amount if promise.refunded_cents else ''} because we could not "
        "set up your assistant. Banks take five to ten days to show it; nothing more is charged."
    )


def _until(promise: Promise) -> str:
    return (
        f"If we cannot start it by {fmt.day_and_time(promise.deliver_by)}, you get your money back "
        "without asking."
    )
