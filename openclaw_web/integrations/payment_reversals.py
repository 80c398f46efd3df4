"""Payments taken back: by us as a refund, by a bank as a dispute; money in cents."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.payment_client import client, each, in_our_words, list_all

PAGE = 100
ENDED = frozenset({"canceled", "incomplete_expired"})
GONE = "resource_missing"
# What a bank has decided; everything else may still cost us the money.
WON = frozenset({"won", "warning_closed", "prevented"})
LOST = "lost"
GIVEN_BACK = frozenset({"succeeded", "pending"})  # a bank may take days to show it

Reason = Literal["duplicate", "fraudulent", "requested_by_customer"]


@dataclass(frozen=True, kw_only=True)
class StripeCharge:
    """Money that was taken from a card."""

    id: str
    stripe_customer_id: str | None
    payment_intent_id: str | None
    amount_cents: int
    refunded_cents: int
    currency: str
    created: datetime
    is_paid: bool
    is_disputed: bool


@dataclass(frozen=True, kw_only=True)
class StripeRefund:
    id: str
    payment_intent_id: str | None
    amount_cents: int
    currency: str
    status: str
    created: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_given_back(self) -> bool:
        return self.status in GIVEN_BACK


@dataclass(frozen=True, kw_only=True)
class StripeDispute:
    """A cardholder wants money back from their bank."""

    id: str
    charge_id: str
    payment_intent_id: str | None
    amount_cents: int
    currency: str
    status: str
    reason: str
    created: datetime

    @property
    def is_open(self) -> bool:
        return self.status not in WON and self.status != LOST

    @property
    def is_lost(self) -> bool:
        return self.status == LOST


@dataclass(frozen=True, kw_only=True)
class FraudWarning:
    """A card's bank suspects fraud; a refund in time often saves a dispute."""

    id: str
    charge_id: str
    payment_intent_id: str | None
    is_actionable: bool
    created: datetime


@dataclass(frozen=True, kw_only=True)
class InvoicePayment:
    """Which payment settled which invoice of which subscription."""

    invoice_id: str
    stripe_subscription_id: str | None
    payment_intent_id: str
    paid_cents: int
    currency: str
    period_end: datetime
    created: datetime


async def cancel_now(stripe_subscription_id: str) -> None:
    """End a subscription at once; one that has ended, or never was, is left as it is."""
    try:
        with in_our_words():
            await client().v1.subscriptions.cancel_async(stripe_subscription_id)
    except VendorError as error:
        if error.code != GONE:
            raise


async def refund_payment(
    payment_intent_id: str,
    *,
    idempotency_key: str,
    metadata: Mapping[str, str],
    amount_cents: int | None = None,
    reason: Reason | None = None,
) -> StripeRefund:
    """Give a payment back, all that is left of it or a part; the same key gives it back once.

    Raises:
        VendorError: Stripe refused (`code` says why, such as `charge_already_refunded` or
            `charge_disputed`) or did not answer.
    """
    wanted: dict[str, Any] = {"payment_intent": payment_intent_id, "metadata": dict(metadata)}
    if amount_cents is not None:
        wanted["amount"] = amount_cents
    if reason is not None:
        wanted["reason"] = reason
    with in_our_words():
        made = await client().v1.refunds.create_async(
            wanted,  # ty: ignore[invalid-argument-type] - built of the fields that are wanted
            {"idempotency_key": idempotency_key},
        )
        return _refund_from(made.to_dict())


async def charges_of(stripe_customer_id: str) -> tuple[StripeCharge, ...]:
    """Return what was taken from the customer's cards, and tries that failed; newest first."""
    with in_our_words():
        listed = await list_all("charges", customer=stripe_customer_id)
        return tuple(_charge_from(one) for one in listed)


async def refunds_of(stripe_customer_id: str) -> tuple[StripeRefund, ...]:
    """Return what the customer got back; Stripe lists refunds by charge only."""
    charges = [one for one in await charges_of(stripe_customer_id) if one.refunded_cents]
    found = [await refunds_of_payment(one.payment_intent_id or "") for one in charges]
    return tuple(refund for some in found for refund in some)


async def refunds_of_payment(payment_intent_id: str) -> tuple[StripeRefund, ...]:
    with in_our_words():
        page = await client().v1.refunds.list_async(
            {"payment_intent": payment_intent_id, "limit": PAGE}
        )
        return tuple([_refund_from(one) async for one in each(page)])


async def disputes_of(charges: tuple[StripeCharge, ...]) -> tuple[StripeDispute, ...]:
    """Return the disputes of these charges; Stripe is asked only for those that have one."""
    disputed = [one for one in charges if one.is_disputed]
    found = await asyncio.gather(*(_disputes_of_charge(one.id) for one in disputed))
    return tuple(dispute for some in found for dispute in some)


async def fraud_warnings_of(charge_id: str) -> tuple[FraudWarning, ...]:
    """Return the early fraud warnings of one charge: Stripe lists them by charge only."""
    with in_our_words():
        page = await client().v1.radar.early_fraud_warnings.list_async(
            {"charge": charge_id, "limit": PAGE}
        )
        return tuple([_warning_from(one) async for one in each(page)])


async def find_charge(charge_id: str) -> StripeCharge | None:
    try:
        with in_our_words():
            found = await client().v1.charges.retrieve_async(charge_id)
            return _charge_from(found.to_dict())
    except VendorError as error:
        if error.code != GONE:
            raise
        return None


async def invoice_payments_of(stripe_customer_id: str) -> tuple[InvoicePayment, ...]:
    """Return every payment that settled an invoice of this customer, the newest invoice first."""
    with in_our_words():
        page = await client().v1.invoices.list_async(
            {"customer": stripe_customer_id, "limit": PAGE, "expand": ["data.payments"]}
        )
        invoices = [one async for one in each(page)]
        return tuple(payment for one in invoices for payment in _payments_from(one))


async def _disputes_of_charge(charge_id: str) -> list[StripeDispute]:
    with in_our_words():
        page = await client().v1.disputes.list_async({"charge": charge_id, "limit": PAGE})
        return [_dispute_from(one) async for one in each(page)]


def _charge_from(found: Mapping[str, Any]) -> StripeCharge:
    return StripeCharge(
        id=found["id"],
        stripe_customer_id=_id(found.get("customer")),
        payment_intent_id=_id(found.get("payment_intent")),
        amount_cents=found["amount"],
        refunded_cents=found["amount_refunded"],
        currency=found["currency"],
        created=_moment(found["created"]),
        is_paid=bool(found["paid"]),
        is_disputed=bool(found["disputed"]),
    )


def _refund_from(found: Mapping[str, Any]) -> StripeRefund:
    return StripeRefund(
        id=found["id"],
        payment_intent_id=_id(found.get("payment_intent")),
        amount_cents=found["amount"],
        currency=found["currency"],
        status=found.get("status") or "pending",
        created=_moment(found["created"]),
        metadata=dict(found.get("metadata") or {}),
    )


def _dispute_from(found: Mapping[str, Any]) -> StripeDispute:
    return StripeDispute(
        id=found["id"],
        charge_id=_id(found["charge"]) or "",
        payment_intent_id=_id(found.get("payment_intent")),
        amount_cents=found["amount"],
        currency=found["currency"],
        status=found["status"],
        reason=found.get("reason") or "",
        created=_moment(found["created"]),
    )


def _warning_from(found: Mapping[str, Any]) -> FraudWarning:
    return FraudWarning(
        id=found["id"],
        charge_id=_id(found["charge"]) or "",
        payment_intent_id=_id(found.get("payment_intent")),
        is_actionable=bool(found["actionable"]),
        created=_moment(found["created"]),
    )


def _payments_from(invoice: Mapping[str, Any]) -> list[InvoicePayment]:
    parent = invoice.get("parent") or {}
    subscription = (parent.get("subscription_details") or {}).get("subscription")
    lines = (invoice.get("lines") or {}).get("data") or []
    ends = [line["period"]["end"] for line in lines if line.get("period")]
    return [
        InvoicePayment(
            invoice_id=invoice["id"],
            stripe_subscription_id=_id(subscription),
            payment_intent_id=_id(one["payment"]["payment_intent"]) or "",
            paid_cents=one.get("amount_paid") or 0,
            currency=one["currency"],
            period_end=_moment(max(ends, default=invoice["period_end"])),
            created=_moment(invoice["created"]),
        )
        for one in (invoice.get("payments") or {}).get("data") or []
        if one["status"] == "paid" and one["payment"].get("payment_intent")
    ]


def _id(found: Any) -> str | None:
    """Return the id of something that may be an id or the expanded object."""
    return found["id"] if isinstance(found, Mapping) else found


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
