"""Payments: what we sell at Stripe, who pays, and what Stripe says of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import stripe

from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payment_objects as objects
from openclaw_web.integrations.payment_client import (
    API_VERSION,
    client,
    each,
    in_our_words,
    list_all,
)
from openclaw_web.integrations.payment_objects import (
    CheckoutRequest,
    CheckoutSession,
    PaymentEvent,
    SaleItem,
    StripeCustomer,
    StripeInvoice,
    StripeSubscription,
)

PAGE = 100
SIGNATURE_AGE_SECONDS = 300
HEX_OF_KEY = 16
PORTAL_FEATURES = {"invoice_history", "payment_method_update"}

# What can change what a customer may use, and what an admin must hear of.
EVENTS = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_action_required",
    "invoice.finalization_failed",
    "charge.refunded",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.closed",
    "radar.early_fraud_warning.created",
    "payment_method.attached",
    "payment_method.automatically_updated",
)


class WebhookRefusedError(OpenClawError):
    """A message claims to be Stripe's and is not, is too old, or is no event."""


def is_live() -> bool:
    """Say whether our key moves real money; then its events must say `livemode` too."""
    return settings().stripe_secret_key.startswith(("sk_live_", "rk_live_"))


async def ensure_customer(
    email: str, customer_id: UUID, *, instead_of: str | None = None
) -> StripeCustomer:
    """Return the Stripe customer of one of ours; asking again within a day gives the same one.

    `instead_of` is one that was deleted at Stripe; its id is not used again.
    """
    who = _short_hash(email + (instead_of or ""))
    with in_our_words():
        made = await client().v1.customers.create_async(
            {"email": email, "metadata": {"customer_id": str(customer_id)}},
            {"idempotency_key": f"customer:{customer_id}:{who}"},
        )
    return objects.customer_from(made.to_dict())


async def ensure_catalogue(items: Sequence[SaleItem]) -> dict[str, str]:
    """Make every product and price that Stripe does not know yet; returns price ids by lookup key.

    A changed price becomes a new one, which takes the lookup key over; old payers keep theirs.
    """
    with in_our_words():
        known = await _prices([item.lookup_key for item in items])
        return {item.lookup_key: await _ensure_price(item, known) for item in items}


async def create_checkout_session(
    request: CheckoutRequest, *, idempotency_key: str
) -> CheckoutSession:
    """Open a payment page; the same key with the same request gives the same page.

    Raises:
        VendorError: Stripe refused, or knows no price of this name (`code` is `no_such_price`).
    """
    metadata = {**request.metadata, "checkout_id": request.checkout_id}
    with in_our_words():
        prices = await _prices([request.price_lookup_key])
        if request.price_lookup_key not in prices:
            raise VendorError(
                f"Stripe knows no price {request.price_lookup_key!r}; publish the catalogue first.",
                can_retry=False,
                code="no_such_price",
            )
        made = await client().v1.checkout.sessions.create_async(
            {
                "mode": "subscription",
                "customer": request.stripe_customer_id,
                "client_reference_id": request.checkout_id,
                "line_items": [{"price": prices[request.price_lookup_key]["id"], "quantity": 1}],
                "success_url": request.success_url,
                "cancel_url": request.cancel_url,
                "metadata": metadata,
                "subscription_data": {"metadata": metadata},
            },
            {"idempotency_key": idempotency_key},
        )
    return objects.checkout_from(made.to_dict())


async def retrieve_checkout_session(stripe_session_id: str) -> CheckoutSession:
    with in_our_words():
        found = await client().v1.checkout.sessions.retrieve_async(stripe_session_id)
    return objects.checkout_from(found.to_dict())


async def expire_checkout_session(stripe_session_id: str) -> CheckoutSession:
    """Close an open payment page; one that was paid or expired meanwhile is returned as it is."""
    try:
        with in_our_words():
            found = await client().v1.checkout.sessions.expire_async(stripe_session_id)
    except VendorError as error:
        if error.can_retry:
            raise
        return await retrieve_checkout_session(stripe_session_id)
    return objects.checkout_from(found.to_dict())


async def subscriptions_of(stripe_customer_id: str) -> tuple[StripeSubscription, ...]:
    """Return every subscription that this customer ever had, ended ones too."""
    with in_our_words():
        listed = await list_all("subscriptions", customer=stripe_customer_id, status="all")
        return tuple(objects.subscription_from(one) for one in listed)


async def invoices_of(stripe_customer_id: str) -> tuple[StripeInvoice, ...]:
    """Return the customer's invoices and which payments settled them, the newest first."""
    with in_our_words():
        listed = await list_all("invoices", customer=stripe_customer_id, expand=["data.payments"])
        return tuple(objects.invoice_from(one) for one in listed)


async def is_customer_deleted(stripe_customer_id: str) -> bool:
    """Say whether Stripe has forgotten this customer, which ended all their subscriptions."""
    with in_our_words():
        found = await client().v1.customers.retrieve_async(stripe_customer_id)
    return objects.customer_from(found.to_dict()).is_deleted


async def create_portal_session(stripe_customer_id: str, *, return_url: str) -> str:
    """Return the address of Stripe's own page for the customer's card and invoices."""
    with in_our_words():
        made = await client().v1.billing_portal.sessions.create_async(
            {
                "customer": stripe_customer_id,
                "return_url": return_url,
                "configuration": await _portal_configuration(),
            }
        )
    return made.url


async def ensure_webhook_endpoint(url: str) -> str:
    """Have Stripe send our events to this address and return the secret that signs them.

    Stripe tells the secret only once, so an endpoint that exists already is made anew.
    """
    with in_our_words():
        page = await client().v1.webhook_endpoints.list_async({"limit": PAGE})
        async for endpoint in each(page):
            if endpoint["url"] == url:
                await client().v1.webhook_endpoints.delete_async(endpoint["id"])
        made = await client().v1.webhook_endpoints.create_async(
            {"url": url, "enabled_events": list(EVENTS), "api_version": API_VERSION}
        )
    if not made.secret:
        raise VendorError("Stripe gave no secret for the webhook.", can_retry=False)
    return made.secret


def verify_webhook(
    payload: bytes, header: str | None, secret: str, *, tolerance: int = SIGNATURE_AGE_SECONDS
) -> PaymentEvent:
    """Return the event that Stripe signed, its age judged by this machine's own clock.

    Raises:
        WebhookRefusedError: not signed with our secret, older than `tolerance`, or no event.
    """
    try:
        stripe.WebhookSignature.verify_header(payload, header, secret, tolerance)
    except (stripe.SignatureVerificationError, ValueError, TypeError) as error:
        raise WebhookRefusedError("This message is not signed by Stripe, or too old.") from error
    try:
        return objects.event_from(json.loads(payload))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WebhookRefusedError("This message is signed but is no event.") from error


async def _portal_configuration() -> str:
    """Return a portal with card and invoices only: plans are changed and ended on our pages."""
    page = await client().v1.billing_portal.configurations.list_async({"limit": PAGE})
    async for one in each(page):
        enabled = {name for name, feature in one["features"].items() if feature["enabled"]}
        if one["active"] and enabled == PORTAL_FEATURES:
            return one["id"]
    made = await client().v1.billing_portal.configurations.create_async(
        {
            "features": {
                "invoice_history": {"enabled": True},
                "payment_method_update": {"enabled": True},
            },
        },
    )
    return made.id


async def _prices(lookup_keys: list[str]) -> dict[str, dict[str, Any]]:
    page = await client().v1.prices.list_async(
        {"lookup_keys": lookup_keys, "active": True, "limit": PAGE}
    )
    return {price["lookup_key"]: price async for price in each(page)}


async def _ensure_price(item: SaleItem, known: Mapping[str, dict[str, Any]]) -> str:
    price = known.get(item.lookup_key)
    if price and (price["unit_amount"], price["currency"]) == (item.amount_cents, item.currency):
        return price["id"]
    product_id = price["product"] if price else await _product(item)
    made = await client().v1.prices.create_async(
        {
            "product": product_id,
            "currency": item.currency,
            "unit_amount": item.amount_cents,
            "recurring": {"interval": "month"},
            "lookup_key": item.lookup_key,
            "transfer_lookup_key": True,
            "metadata": {"tier": item.tier},
        }
    )
    return made.id


async def _product(item: SaleItem) -> str:
    made = await client().v1.products.create_async(
        {"name": f"OpenClaw Cloud {item.name}", "metadata": {"tier": item.tier}},
        {"idempotency_key": f"product:{item.lookup_key}"},
    )
    return made.id


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HEX_OF_KEY]
