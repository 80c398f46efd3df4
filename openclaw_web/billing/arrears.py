"""What a subscription's invoices say: what is owed and since when, and which period was paid.

Every answer comes from Stripe's dates alone, so it is the same whenever we look.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription

# While Stripe says `active` it is still trying. An upgrade's invoice ends after 23 hours.
ON_ITS_WAY = timedelta(days=2)
UNBILLED = timedelta(days=3)  # Stripe finalises a draft after about an hour
OWED = frozenset({"open", "uncollectible"})


def overdue_since(
    one: StripeSubscription, invoices: Sequence[StripeInvoice], now: datetime
) -> datetime | None:
    """Return when the oldest invoice became due that should have been paid by now.

    The newest one of a subscription that Stripe calls active is given two days. An older invoice
    that was written off is forgiven; the newest is not, as nothing was paid since.
    """
    newest = newest_of(one, invoices)
    dates = []
    for invoice in of_subscription(one, invoices):
        is_newest = newest is not None and invoice.id == newest.id
        due_at = invoice.due_at or invoice.finalized_at
        if due_at is None or not _is_owed(invoice, is_newest=is_newest):
            continue
        patience = ON_ITS_WAY if is_newest and one.status == "active" else timedelta(0)
        if due_at + patience <= now:
            dates.append(due_at)
    return min(dates, default=None)


def is_period_paid(one: StripeSubscription, invoices: Sequence[StripeInvoice]) -> bool:
    """Say whether the running period was paid for; a trial's invoice is paid, too, with nothing.

    Only the invoice counts that billed it: where the period was begun anew, the one that paid for
    the old one covers its start as well.
    """
    billing = billing_of_period(one, invoices)
    return billing is not None and billing.status == "paid"


def owes(one: StripeSubscription, invoices: Sequence[StripeInvoice]) -> bool:
    """Say whether any of its invoices waits for money, be it due by now or not."""
    return any(_is_owed(invoice, is_newest=True) for invoice in of_subscription(one, invoices))


def has_paid(one: StripeSubscription, invoices: Sequence[StripeInvoice]) -> bool:
    """Say whether any money ever came from this subscription."""
    return any(
        invoice.status == "paid" and invoice.paid_cents > 0
        for invoice in of_subscription(one, invoices)
    )


def billing_of_period(
    one: StripeSubscription, invoices: Sequence[StripeInvoice]
) -> StripeInvoice | None:
    """Return the invoice that the running period was billed with, paid or not."""
    covering = [
        invoice
        for invoice in of_subscription(one, invoices)
        if invoice.status != "void" and covers(invoice, one.period_start)
    ]
    return max(covering, key=lambda one: (one.created, one.id), default=None)


def is_unbilled(
    one: StripeSubscription, invoices: Sequence[StripeInvoice], now: datetime
) -> StripeInvoice | None:
    """Return the newest invoice if Stripe made it days ago and has not asked for the money."""
    newest = newest_of(one, invoices)
    is_stuck = newest is not None and newest.status == "draft" and newest.created + UNBILLED <= now
    return newest if is_stuck and not one.is_collection_paused else None


def newest_of(one: StripeSubscription, invoices: Sequence[StripeInvoice]) -> StripeInvoice | None:
    """Return the newest invoice that stands: of two made at once, the one that is named latest."""
    return max(
        (invoice for invoice in of_subscription(one, invoices) if invoice.status != "void"),
        key=lambda invoice: (invoice.created, invoice.id == one.latest_invoice_id, invoice.id),
        default=None,
    )


def of_subscription(
    one: StripeSubscription, invoices: Sequence[StripeInvoice]
) -> list[StripeInvoice]:
    return [invoice for invoice in invoices if invoice.stripe_subscription_id == one.id]


def covers(invoice: StripeInvoice, moment: datetime) -> bool:
    """Say whether an invoice is for the time that begins at this moment."""
    start, end = invoice.period_start, invoice.period_end
    return start is not None and end is not None and start <= moment < end


def _is_owed(invoice: StripeInvoice, *, is_newest: bool) -> bool:
    if invoice.finalized_at is None or invoice.remaining_cents <= 0:
        return False
    return invoice.status in OWED if is_newest else invoice.status == "open"
