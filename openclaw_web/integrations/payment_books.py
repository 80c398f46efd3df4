"""What the payment vendor has on its books for everybody: for comparing them with ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import stripe

from openclaw_web.integrations.payment_client import client, in_our_words
from openclaw_web.integrations.payment_objects import StripeSubscription, subscription_from

PAGE = 100
RUNNING = frozenset({"active", "trialing", "past_due"})


@dataclass(frozen=True, kw_only=True)
class BookedInvoice:
    """One paid invoice: what came in for it, and what of that was given back, in cents."""

    id: str
    stripe_customer_id: str
    currency: str
    paid_cents: int
    refunded_cents: int
    paid_at: datetime


async def paid_invoices() -> tuple[BookedInvoice, ...]:
    """Return every invoice that brought money, of all customers."""
    with in_our_words():
        refunded = await _refunded()
        listed = await client().v1.invoices.list_async(
            {"status": "paid", "limit": PAGE, "expand": ["data.payments"]}
        )
        return tuple(
            [_booked(one, refunded) async for one in _all(listed) if one["amount_paid"] > 0]
        )


async def running_subscriptions() -> tuple[StripeSubscription, ...]:
    """Return every subscription that has not ended, of all customers."""
    with in_our_words():
        listed = await client().v1.subscriptions.list_async({"limit": PAGE})
        return tuple(
            [subscription_from(one) async for one in _all(listed) if one["status"] in RUNNING]
        )


async def _refunded() -> dict[str, int]:
    """Return what was given back, by the payment that it was taken with."""
    listed = await client().v1.charges.list_async({"limit": PAGE})
    refunded: dict[str, int] = {}
    async for charge in _all(listed):
        payment = _id(charge.get("payment_intent"))
        if payment and charge["amount_refunded"]:
            refunded[payment] = refunded.get(payment, 0) + charge["amount_refunded"]
    return refunded


async def _all(page: stripe.ListObject[Any]) -> Any:
    """Yield the objects of all pages, however many there are: a part of the books is no books."""
    async for one in page.auto_paging_iter():
        yield one.to_dict()


def _booked(found: Mapping[str, Any], refunded: Mapping[str, int]) -> BookedInvoice:
    payments = [
        _id(one["payment"].get("payment_intent"))
        for one in (found.get("payments") or {}).get("data") or []
    ]
    return BookedInvoice(
        id=found["id"],
        stripe_customer_id=_id(found["customer"]) or "",
        currency=found["currency"],
        paid_cents=found["amount_paid"],
        refunded_cents=sum(refunded.get(one or "", 0) for one in payments),
        paid_at=datetime.fromtimestamp(found["status_transitions"]["paid_at"], UTC),
    )


def _id(found: Any) -> str | None:
    return found["id"] if isinstance(found, Mapping) else found
