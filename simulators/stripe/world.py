"""What every resource needs at hand: memory, clock, addresses, and the request being answered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simulators.stripe.clock import Clock
from simulators.stripe.errors import StripeError, missing, missing_reference
from simulators.stripe.store import Json, Store

Params = dict[str, Any]


@dataclass(kw_only=True)
class World:
    """One account at Stripe, always in test mode."""

    store: Store
    clock: Clock
    public_url: str
    request_id: str | None = None
    idempotency_key: str | None = None
    wake: Callable[[], None] = field(default=lambda: None)  # there is something to deliver
    hurry: Callable[[], None] = field(default=lambda: None)  # a test clock is to be moved

    def now(self) -> int:
        """Return the time of the customer who is being dealt with."""
        return self.clock.now()

    def wall(self) -> int:
        """Return the time of this account, also while somebody on a test clock is dealt with."""
        return self.clock.wall()

    def need(self, kind: str, identifier: str) -> Json:
        """Return the object that a path names.

        Raises:
            StripeError: 404 `resource_missing`.
        """
        found = self.store.get(identifier, kind)
        if found is None:
            raise missing(NOUNS.get(kind, kind), identifier)
        return found

    def customer(self, identifier: str) -> Json:
        """Return a customer who has not been deleted.

        Raises:
            StripeError: 404 `resource_missing`.
        """
        found = self.need("customer", identifier)
        if found.get("deleted"):
            raise missing("customer", identifier)
        return found

    def refer(self, kind: str, identifier: str, param: str) -> Json:
        """Return the object that a parameter names.

        Raises:
            StripeError: 400 `resource_missing`, with the parameter's name.
        """
        found = self.store.get(identifier, kind)
        if found is None or found.get("deleted"):
            raise missing_reference(NOUNS.get(kind, kind), identifier, param)
        return found


NOUNS = {
    "payment_method": "PaymentMethod",
    "checkout.session": "checkout.session",
    "webhook_endpoint": "webhook endpoint",
    "promotion_code": "promotion code",
    "test_helpers.test_clock": "test clock",
    "radar.early_fraud_warning": "early fraud warning",
    "payment_intent": "payment_intent",
    "billing_portal.configuration": "configuration",
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that the API can do.

    `path` has `{}` for each id, handed to `run` after world and parameters. `supports` names the
    parameters that are really honoured; `a.b` means `b` inside `a`, `a` alone everything inside it.
    What Stripe accepts beyond them is refused by name.
    """

    method: str
    path: str
    run: Callable[..., Json]
    supports: str = ""
    required: str = ""

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"


def merge_metadata(current: Json, params: Params) -> Json:
    """Return metadata after an update: an empty value removes its key, unset removes all."""
    if "metadata" not in params:
        return current
    given = params["metadata"] or {}
    merged = {**current, **given} if params["metadata"] is not None else {}
    return {key: value for key, value in merged.items() if value != ""}


def check_currency(currency: str) -> str:
    lowered = currency.lower()
    if lowered not in CURRENCIES.split():
        raise StripeError(f"Invalid currency: {currency}.", param="currency")
    return lowered


CURRENCIES = (
    "aud brl cad chf cny czk dkk eur gbp hkd huf idr ils inr jpy krw mxn myr nok nzd php pln ron"
    " sek sgd thb try usd vnd zar"
)
