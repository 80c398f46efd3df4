"""Payments: Stripe, through its own client; it costs a process about 32 MB (measured)."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import stripe

from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.core.settings import LOOPBACK_NAMES, settings
from openclaw_web.integrations import payment_objects as objects
from openclaw_web.integrations.payment_objects import (
    CheckoutRequest,
    CheckoutSession,
    PaymentEvent,
    SaleItem,
    StripeCustomer,
    StripeInvoice,
    StripeSubscription,
)

logger = logging.getLogger(__name__)

API_VERSION = "2026-10-28.endive"  # what stripe 16.1.0 was made from; move both together
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
NETWORK_RETRIES = 2
PAGE = 100
MOST_OBJECTS = 1_000  # of one customer; more is not a customer of ours
SIGNATURE_AGE_SECONDS = 300
SERVER_FAULT = 500
CONFLICT = 409
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
    "charge.dispute.created",
    "charge.dispute.closed",
    "radar.early_fraud_warning.created",
    "payment_method.attached",
    "payment_method.automatically_updated",
)


class WebhookRefusedError(OpenClawError):
    """A message claims to be Stripe's and is not, is too old, or is no event."""


class _Http(stripe.HTTPClient):
    """How Stripe's library reaches the network: one pool of connections of this process.

    Its own httpx client sends bodies in a way that httpx deprecates, and follows a proxy of the
    environment even to a server on this machine.
    """

    name = "httpx"

    def __init__(self, *, trust_env: bool) -> None:
        super().__init__()
        self._pool = httpx.AsyncClient(timeout=TIMEOUT, trust_env=trust_env)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            answer = await self._pool.request(
                method, url, headers=dict(headers), content=post_data or b""
            )
        except httpx.HTTPError as error:
            raise stripe.APIConnectionError(
                f"Stripe did not answer: {type(error).__name__}", should_retry=True
            ) from error
        return answer.content, answer.status_code, answer.headers

    def sleep_async(self, secs: float) -> Awaitable[None]:
        return asyncio.sleep(secs)

    async def close_async(self) -> None:
        await self._pool.aclose()


class _Process:
    client: stripe.StripeClient | None = None
    http: _Http | None = None


def open_payments(api_key: str, api_url: str) -> stripe.StripeClient:
    """Open the process's client; the second call with another address replaces it (tests do)."""
    _Process.http = _Http(trust_env=urlsplit(api_url).hostname not in LOOPBACK_NAMES)
    _Process.client = stripe.StripeClient(
        api_key,
        base_addresses={"api": api_url},
        stripe_version=API_VERSION,
        max_network_retries=NETWORK_RETRIES,
        http_client=_Process.http,
    )
    return _Process.client


async def close_payments() -> None:
    if _Process.http is not None:
        await _Process.http.close_async()
    _Process.client = _Process.http = None


def is_live() -> bool:
    """Say whether our key moves real money; then its events must say `livemode` too."""
    return settings().stripe_secret_key.startswith(("sk_live_", "rk_live_"))


async def ensure_customer(email: str, customer_id: UUID) -> StripeCustomer:
    """Return the Stripe customer of one of ours; asking again within a day gives the same one."""
    with _in_our_words():
        made = await _client().v1.customers.create_async(
            {"email": email, "metadata": {"customer_id": str(customer_id)}},
            {"idempotency_key": f"customer:{customer_id}:{_short_hash(email)}"},
        )
    return objects.customer_from(made.to_dict())


async def ensure_catalogue(items: Sequence[SaleItem]) -> dict[str, str]:
    """Make every product and price that Stripe does not know yet; returns price ids by lookup key.

    A changed price becomes a new one, which takes the lookup key over; old payers keep theirs.
    """
    with _in_our_words():
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
    with _in_our_words():
        prices = await _prices([request.price_lookup_key])
        if request.price_lookup_key not in prices:
            raise VendorError(
                f"Stripe knows no price {request.price_lookup_key!r}; publish the catalogue first.",
                can_retry=False,
                code="no_such_price",
            )
        made = await _client().v1.checkout.sessions.create_async(
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
    with _in_our_words():
        found = await _client().v1.checkout.sessions.retrieve_async(stripe_session_id)
    return objects.checkout_from(found.to_dict())


async def expire_checkout_session(stripe_session_id: str) -> CheckoutSession:
    """Close an open payment page; one that was paid or expired meanwhile is returned as it is."""
    try:
        with _in_our_words():
            found = await _client().v1.checkout.sessions.expire_async(stripe_session_id)
    except VendorError as error:
        if error.can_retry:
            raise
        return await retrieve_checkout_session(stripe_session_id)
    return objects.checkout_from(found.to_dict())


async def subscriptions_of(stripe_customer_id: str) -> tuple[StripeSubscription, ...]:
    """Return every subscription that this customer ever had, ended ones too."""
    with _in_our_words():
        page = await _client().v1.subscriptions.list_async(
            {"customer": stripe_customer_id, "status": "all", "limit": PAGE}
        )
        return tuple([objects.subscription_from(one) async for one in _each(page)])


async def invoices_of(stripe_customer_id: str) -> tuple[StripeInvoice, ...]:
    """Return the customer's invoices, the newest first."""
    with _in_our_words():
        page = await _client().v1.invoices.list_async(
            {"customer": stripe_customer_id, "limit": PAGE}
        )
        return tuple([objects.invoice_from(one) async for one in _each(page)])


async def create_portal_session(stripe_customer_id: str, *, return_url: str) -> str:
    """Return the address of Stripe's own page for the customer's card and invoices."""
    with _in_our_words():
        made = await _client().v1.billing_portal.sessions.create_async(
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
    with _in_our_words():
        page = await _client().v1.webhook_endpoints.list_async({"limit": PAGE})
        async for endpoint in _each(page):
            if endpoint["url"] == url:
                await _client().v1.webhook_endpoints.delete_async(endpoint["id"])
        made = await _client().v1.webhook_endpoints.create_async(
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


def _client() -> stripe.StripeClient:
    if _Process.client is None:
        if not settings().stripe_secret_key:
            raise VendorError(
                "STRIPE_SECRET_KEY is not set, so payments are off.", can_retry=False, code="no_key"
            )
        return open_payments(settings().stripe_secret_key, settings().stripe_api_url)
    return _Process.client


async def _portal_configuration() -> str:
    """Return a portal with card and invoices only: plans are changed and ended on our pages."""
    page = await _client().v1.billing_portal.configurations.list_async({"limit": PAGE})
    async for one in _each(page):
        enabled = {name for name, feature in one["features"].items() if feature["enabled"]}
        if one["active"] and enabled == PORTAL_FEATURES:
            return one["id"]
    made = await _client().v1.billing_portal.configurations.create_async(
        {
            "features": {
                "invoice_history": {"enabled": True},
                "payment_method_update": {"enabled": True},
            },
        },
    )
    return made.id


async def _prices(lookup_keys: list[str]) -> dict[str, dict[str, Any]]:
    page = await _client().v1.prices.list_async(
        {"lookup_keys": lookup_keys, "active": True, "limit": PAGE}
    )
    return {price["lookup_key"]: price async for price in _each(page)}


async def _ensure_price(item: SaleItem, known: Mapping[str, dict[str, Any]]) -> str:
    price = known.get(item.lookup_key)
    if price and (price["unit_amount"], price["currency"]) == (item.amount_cents, item.currency):
        return price["id"]
    product_id = price["product"] if price else await _product(item)
    made = await _client().v1.prices.create_async(
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
    made = await _client().v1.products.create_async(
        {"name": f"OpenClaw Cloud {item.name}", "metadata": {"tier": item.tier}},
        {"idempotency_key": f"product:{item.lookup_key}"},
    )
    return made.id


async def _each(page: stripe.ListObject[Any]) -> Any:
    """Yield the objects of all pages as plain dictionaries."""
    count = 0
    async for one in page.auto_paging_iter():
        yield one.to_dict()
        count += 1
        if count >= MOST_OBJECTS:
            logger.warning("Stripe lists more than %d objects; the rest is not read.", MOST_OBJECTS)
            return


@contextmanager
def _in_our_words() -> Generator[None]:
    """Turn Stripe's errors into ours, with whether trying again can help."""
    try:
        yield
    except (KeyError, IndexError) as error:
        raise VendorError(
            f"Stripe's answer lacks {error}.", can_retry=False, code="shape"
        ) from error
    except stripe.APIConnectionError as error:
        raise VendorError(
            "Stripe cannot be reached.", can_retry=True, code="unreachable"
        ) from error
    except stripe.StripeError as error:
        status = error.http_status or SERVER_FAULT
        can_retry = (
            isinstance(error, stripe.RateLimitError) or status >= SERVER_FAULT or status == CONFLICT
        )
        raise VendorError(
            f"Stripe answered {status}: {error.user_message or 'no reason given'}",
            can_retry=can_retry,
            code=error.code or type(error).__name__,
        ) from error


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HEX_OF_KEY]
