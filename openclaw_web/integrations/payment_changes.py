"""Changes of a running subscription at Stripe: another price now or later, its end, its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.integrations.payment_client import client, each, in_our_words

NO_NEXT_INVOICE = "invoice_upcoming_none"
INTENT = "latest_invoice.payments.data.payment.payment_intent"
CARDS = ("default_payment_method", "customer.invoice_settings.default_payment_method")
PRICE_BEFORE = "price_before"
UNSETTLED = frozenset({"draft", "open"})

# Stripe's own words for why somebody leaves, so that its reports count them too.
LeavingReason = Literal[
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
]


class CardRefusedError(OpenClawError):
    """The bank refused the card; the text is what Stripe tells the card's owner."""


class ConfirmationNeededError(OpenClawError):
    """The bank wants its customer to confirm the payment, at `address`."""

    def __init__(self, *, address: str) -> None:
        super().__init__(
            "Your bank wants you to confirm this payment. Nothing changes before you have."
        )
        self.address = address


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a change of a subscription starts from, as Stripe has it now.

    `price_tier` is what its price says of itself; `price_before` is what was paid before a change
    that waits for the turn.
    """

    stripe_subscription_id: str
    status: str
    item_id: str
    price_id: str
    price_tier: str | None
    price_before: str | None
    period_start: datetime
    period_end: datetime
    cancel_at_period_end: bool
    has_open_invoice: bool
    pending_invoice_id: str | None
    pending_price_id: str | None
    pending_address: str | None

    @property
    def has_ended(self) -> bool:
        return self.status in {"canceled", "incomplete_expired"}


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a change costs: now, and at the next turn of the period."""

    due_now_cents: int
    currency: str
    next_charge_cents: int
    next_charge_at: datetime


@dataclass(frozen=True, kw_only=True)
class Charge:
    """The next charge, as Stripe expects it."""

    amount_cents: int
    currency: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Card:
    """The card that pays; it is good until the end of its month."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int

    @property
    def ends_at(self) -> datetime:
        """Return the first moment at which the card is over."""
        year, month = divmod(self.exp_year * 12 + self.exp_month, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Payer:
    """The card that the next invoice is taken from, and what waits for its owner to confirm."""

    card: Card | None
    confirmation_address: str | None


async def terms_of(stripe_subscription_id: str) -> Terms:
    with in_our_words():
        found = await client().v1.subscriptions.retrieve_async(
            stripe_subscription_id, {"expand": ["latest_invoice"]}
        )
        return _terms(found.to_dict())


async def price_named(lookup_key: str) -> str:
    """Return the id of the price that bears this name now.

    Raises:
        VendorError: there is none; the catalogue was not published.
    """
    with in_our_words():
        page = await client().v1.prices.list_async({"lookup_keys": [lookup_key], "active": True})
        async for price in each(page):
            return price["id"]
    raise VendorError(
        f"Stripe knows no price {lookup_key!r}; publish the catalogue first.",
        can_retry=False,
        code="no_such_price",
    )


async def quote_now(terms: Terms, price_id: str, *, proration_date: int) -> Quote:
    """Ask what a change costs that begins a new period now; nothing is changed."""
    with in_our_words():
        found = await client().v1.invoices.create_preview_async(
            {
                "subscription": terms.stripe_subscription_id,
                "subscription_details": {
                    "items": [{"id": terms.item_id, "price": price_id}],
                    "billing_cycle_anchor": {"type": "now"},
                    "proration_behavior": "always_invoice",
                    "proration_date": proration_date,
                },
            }
        )
        invoice = found.to_dict()
        ahead = max(invoice["lines"]["data"], key=lambda line: line["period"]["end"])
        whole = [line for line in invoice["lines"]["data"] if not _is_proration(line)]
        return Quote(
            due_now_cents=invoice["amount_due"],
            currency=invoice["currency"],
            next_charge_cents=sum(_net(line) for line in whole),
            next_charge_at=_moment(ahead["period"]["end"]),
        )


async def quote_at_turn(terms: Terms, price_id: str) -> Quote:
    """Ask what the next turn costs with another price; nothing is due before it."""
    charge = await _next_charge(
        terms.stripe_subscription_id,
        {"items": [{"id": terms.item_id, "price": price_id}], "proration_behavior": "none"},
    )
    return Quote(
        due_now_cents=0,
        currency=charge.currency,
        next_charge_cents=charge.amount_cents,
        next_charge_at=charge.at,
    )


async def change_now(
    terms: Terms, price_id: str, *, proration_date: int, idempotency_key: str
) -> None:
    """Begin a new period with another price and collect what it costs, or change nothing at all.

    The same key gives the same outcome again and charges nothing twice.

    Raises:
        CardRefusedError: the bank said no; the subscription is what it was.
        ConfirmationNeededError: the change waits, at most 23 hours, for the card's owner.
        VendorError: Stripe refused or did not answer.
    """
    with in_our_words():
        found = await client().v1.subscriptions.update_async(
            terms.stripe_subscription_id,
            {
                "items": [{"id": terms.item_id, "price": price_id}],
                "billing_cycle_anchor": {"type": "now"},
                "proration_behavior": "always_invoice",
                "proration_date": proration_date,
                "payment_behavior": "pending_if_incomplete",
                "expand": [INTENT],
            },
            {"idempotency_key": idempotency_key},
        )
        after = found.to_dict()
    if after.get("pending_update"):
        await _explain_pending(after)


async def change_at_turn(terms: Terms, price_id: str, *, price_before: str) -> None:
    """Set the price of the next period; this one stays as it was paid. Safe to call twice.

    `price_before` is kept at Stripe, so that taking the change back restores the very same price,
    also one that is not sold any more.
    """
    with in_our_words():
        await client().v1.subscriptions.update_async(
            terms.stripe_subscription_id,
            {
                "items": [{"id": terms.item_id, "price": price_id}],
                "proration_behavior": "none",
                "metadata": {PRICE_BEFORE: price_before},
            },
        )


async def drop_pending_change(invoice_id: str) -> None:
    """Give up a change that waits for its payment: without its invoice it is forgotten."""
    try:
        with in_our_words():
            await client().v1.invoices.void_invoice_async(invoice_id)
    except VendorError as error:
        if error.can_retry:
            raise  # otherwise it was paid or voided meanwhile, and nothing waits any more


async def cancel_at_period_end(
    stripe_subscription_id: str, *, reason: LeavingReason, comment: str = ""
) -> None:
    with in_our_words():
        await client().v1.subscriptions.update_async(
            stripe_subscription_id,
            {
                "cancel_at_period_end": True,
                "cancellation_details": {"feedback": reason, "comment": comment},
            },
        )


async def keep_after_period_end(stripe_subscription_id: str) -> None:
    """Take a cancellation back. Safe to call twice."""
    with in_our_words():
        await client().v1.subscriptions.update_async(
            stripe_subscription_id, {"cancel_at_period_end": False}
        )


async def payer_of(stripe_subscription_id: str) -> Payer:
    with in_our_words():
        found = await client().v1.subscriptions.retrieve_async(
            stripe_subscription_id, {"expand": ["latest_invoice", *CARDS]}
        )
        subscription = found.to_dict()
        settings = subscription["customer"].get("invoice_settings") or {}
        method = subscription["default_payment_method"] or settings.get("default_payment_method")
        return Payer(
            card=_card((method or {}).get("card")),
            confirmation_address=_terms(subscription).pending_address,
        )


async def find_next_charge(stripe_subscription_id: str) -> Charge | None:
    """Return what Stripe will collect next; nothing when the subscription ends before."""
    try:
        return await _next_charge(stripe_subscription_id, {})
    except VendorError as error:
        if error.code == NO_NEXT_INVOICE:
            return None
        raise


async def _next_charge(stripe_subscription_id: str, details: Mapping[str, Any]) -> Charge:
    request: Any = {"subscription": stripe_subscription_id}
    if details:
        request["subscription_details"] = details
    with in_our_words():
        found = await client().v1.invoices.create_preview_async(request)
        invoice = found.to_dict()
        begins = max(line["period"]["start"] for line in invoice["lines"]["data"])
        return Charge(
            amount_cents=invoice["amount_due"], currency=invoice["currency"], at=_moment(begins)
        )


async def _explain_pending(subscription: Mapping[str, Any]) -> None:
    """Raise what keeps a change from happening; one that the bank refused is given up at once."""
    invoice = subscription["latest_invoice"]
    payments = (invoice.get("payments") or {}).get("data") or []
    intent = payments[-1]["payment"].get("payment_intent") if payments else None
    intent = intent if isinstance(intent, Mapping) else {}
    if intent.get("status") == "requires_action" and invoice.get("hosted_invoice_url"):
        raise ConfirmationNeededError(address=invoice["hosted_invoice_url"])
    await drop_pending_change(invoice["id"])
    told = (intent.get("last_payment_error") or {}).get("message") or "Your card was declined."
    raise CardRefusedError(told)


def _card(found: Mapping[str, Any] | None) -> Card | None:
    if not found:
        return None
    return Card(
        brand=found["brand"],
        last4=found["last4"],
        exp_month=found["exp_month"],
        exp_year=found["exp_year"],
    )


def _terms(found: Mapping[str, Any]) -> Terms:
    item = found["items"]["data"][0]
    latest = found.get("latest_invoice") or {}
    pending = found.get("pending_update") or {}
    coming = (pending.get("subscription_items") or [{}])[0]
    return Terms(
        stripe_subscription_id=found["id"],
        status=found["status"],
        item_id=item["id"],
        price_id=item["price"]["id"],
        price_tier=(item["price"].get("metadata") or {}).get("tier"),
        price_before=(found.get("metadata") or {}).get(PRICE_BEFORE),
        period_start=_moment(item["current_period_start"]),
        period_end=_moment(item["current_period_end"]),
        cancel_at_period_end=bool(found.get("cancel_at_period_end")),
        has_open_invoice=latest.get("status") in UNSETTLED and not pending,
        pending_invoice_id=latest.get("id") if pending else None,
        pending_price_id=(coming.get("price") or {}).get("id"),
        pending_address=latest.get("hosted_invoice_url") if pending else None,
    )


def _is_proration(line: Mapping[str, Any]) -> bool:
    parent = line.get("parent") or {}
    details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
    return bool(details.get("proration"))


def _net(line: Mapping[str, Any]) -> int:
    discounts = line.get("discount_amounts") or []
    return line["amount"] - sum(one["amount"] for one in discounts)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
