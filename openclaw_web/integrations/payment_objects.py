"""What the payment vendor's objects say, in our words: money in cents, times aware and in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SaleItem:
    """One price of ours that the vendor should know: a product, billed each month."""

    lookup_key: str
    name: str
    amount_cents: int
    currency: str
    tier: str


@dataclass(frozen=True, kw_only=True)
class CheckoutRequest:
    """One visit to the payment page; `checkout_id` is what the vendor gives back to us."""

    stripe_customer_id: str
    price_lookup_key: str
    checkout_id: str
    success_url: str
    cancel_url: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StripeCustomer:
    id: str
    email: str | None
    is_deleted: bool


@dataclass(frozen=True, kw_only=True)
class CheckoutSession:
    """A visit to the payment page. `status` is open, complete or expired."""

    id: str
    url: str | None
    status: str
    payment_status: str
    expires_at: datetime
    client_reference_id: str | None
    stripe_customer_id: str | None
    stripe_subscription_id: str | None
    metadata: Mapping[str, str]

    @property
    def is_paid(self) -> bool:
        return self.status == "complete" and self.payment_status in {"paid", "no_payment_required"}


@dataclass(frozen=True, kw_only=True)
class StripeSubscription:
    """A subscription with its one item's period; `price_tier` is what its price says of itself."""

    id: str
    stripe_customer_id: str
    status: str
    price_id: str | None
    price_lookup_key: str | None
    price_tier: str | None
    period_start: datetime
    period_end: datetime
    cancel_at_period_end: bool
    trial_end: datetime | None
    created: datetime
    ended_at: datetime | None = None
    canceled_at: datetime | None = None
    latest_invoice_id: str | None = None
    is_collection_paused: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StripeInvoice:
    """An invoice; `due_at` is when it had to be paid, which for a card is when it was finalised.

    Period and price are those of its newest line: what it pays for, and at which price. The payment
    intents are those that settled it, where they were asked for.
    """

    id: str
    status: str
    currency: str
    due_cents: int
    paid_cents: int
    remaining_cents: int
    created: datetime
    stripe_subscription_id: str | None = None
    number: str | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    finalized_at: datetime | None = None
    due_at: datetime | None = None
    paid_at: datetime | None = None
    hosted_url: str | None = None
    billing_reason: str | None = None
    price_id: str | None = None
    price_cents: int | None = None
    payment_intent_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class PaymentEvent:
    """A verified event: only a hint to look. Personal fields are still inside its `payload`."""

    id: str
    type: str
    livemode: bool
    api_version: str | None
    object_id: str | None
    payload: dict[str, Any]


def customer_from(found: Mapping[str, Any]) -> StripeCustomer:
    return StripeCustomer(
        id=found["id"], email=found.get("email"), is_deleted=bool(found.get("deleted"))
    )


def checkout_from(found: Mapping[str, Any]) -> CheckoutSession:
    return CheckoutSession(
        id=found["id"],
        url=found.get("url"),
        status=found.get("status") or "open",
        payment_status=found.get("payment_status") or "unpaid",
        expires_at=_moment(found["expires_at"]),
        client_reference_id=found.get("client_reference_id"),
        stripe_customer_id=_id(found.get("customer")),
        stripe_subscription_id=_id(found.get("subscription")),
        metadata=dict(found.get("metadata") or {}),
    )


def subscription_from(found: Mapping[str, Any]) -> StripeSubscription:
    item = found["items"]["data"][0]
    price = item.get("price") or {}
    return StripeSubscription(
        id=found["id"],
        stripe_customer_id=_id(found["customer"]) or "",
        status=found["status"],
        price_id=price.get("id"),
        price_lookup_key=price.get("lookup_key"),
        price_tier=(price.get("metadata") or {}).get("tier"),
        period_start=_moment(item["current_period_start"]),
        period_end=_moment(item["current_period_end"]),
        cancel_at_period_end=bool(found.get("cancel_at_period_end")),
        trial_end=_moment_or_none(found.get("trial_end")),
        created=_moment(found["created"]),
        ended_at=_moment_or_none(found.get("ended_at")),
        canceled_at=_moment_or_none(found.get("canceled_at")),
        latest_invoice_id=_id(found.get("latest_invoice")),
        is_collection_paused=bool(found.get("pause_collection")),
        metadata=dict(found.get("metadata") or {}),
    )


def invoice_from(found: Mapping[str, Any]) -> StripeInvoice:
    steps = found.get("status_transitions") or {}
    finalized_at = _moment_or_none(steps.get("finalized_at"))
    line = _newest_line(found)
    period, pricing = line.get("period") or {}, line.get("pricing") or {}
    return StripeInvoice(
        id=found["id"],
        status=found.get("status") or "draft",
        currency=found["currency"],
        due_cents=found["amount_due"],
        paid_cents=found["amount_paid"],
        remaining_cents=found["amount_remaining"],
        created=_moment(found["created"]),
        stripe_subscription_id=_subscription_of(found),
        number=found.get("number"),
        period_start=_moment_or_none(period.get("start")),
        period_end=_moment_or_none(period.get("end")),
        finalized_at=finalized_at,
        due_at=_moment_or_none(found.get("due_date")) or finalized_at,
        paid_at=_moment_or_none(steps.get("paid_at")),
        hosted_url=found.get("hosted_invoice_url"),
        billing_reason=found.get("billing_reason"),
        price_id=_id((pricing.get("price_details") or {}).get("price")),
        price_cents=_cents(pricing.get("unit_amount_decimal")),
        payment_intent_ids=frozenset(_payments_of(found)),
    )


def event_from(found: dict[str, Any]) -> PaymentEvent:
    """Read an event's envelope.

    Raises:
        KeyError, TypeError: this is no event.
    """
    return PaymentEvent(
        id=str(found["id"]),
        type=str(found["type"]),
        livemode=bool(found["livemode"]),
        api_version=found.get("api_version"),
        object_id=found["data"]["object"].get("id"),
        payload=found,
    )


def _subscription_of(invoice: Mapping[str, Any]) -> str | None:
    parent = invoice.get("parent") or {}
    return _id((parent.get("subscription_details") or {}).get("subscription"))


def _payments_of(invoice: Mapping[str, Any]) -> list[str]:
    made = (invoice.get("payments") or {}).get("data") or []
    intents = (one["payment"].get("payment_intent") for one in made if one["status"] == "paid")
    return [identifier for one in intents if (identifier := _id(one))]


def _newest_line(invoice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the line that pays for the newest time: the invoice's own period is the one before.

    A credit for what was not used of a period ends with it, so the higher amount decides then.
    """
    lines = (invoice.get("lines") or {}).get("data") or []
    own = {"period": {"start": invoice.get("period_start"), "end": invoice.get("period_end")}}
    return max(
        (line for line in lines if line.get("period")),
        key=lambda line: (line["period"]["end"], line.get("amount") or 0),
        default=own,
    )


def _cents(amount: Decimal | str | None) -> int | None:
    """Read an amount such as "4900"; a price with parts of a cent is none of ours."""
    if amount is None:
        return None
    exact = Decimal(amount)
    return int(exact) if exact == exact.to_integral_value() else None


def _id(found: Any) -> str | None:
    """Return the id of something that may be an id or the expanded object."""
    return found["id"] if isinstance(found, Mapping) else found


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _moment_or_none(seconds: int | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)
