"""`expand[]`: ids in an answer become the objects they name."""

from collections.abc import Callable
from typing import Any

from simulators.stripe import checkout, coupons, invoicing, lifecycle
from simulators.stripe.errors import StripeError
from simulators.stripe.paging import listing
from simulators.stripe.store import Json
from simulators.stripe.world import World

DEEPEST = 4
NEVER = frozenset({"id", "object"})


def expand(world: World, answer: Json, paths: list[str]) -> Json:
    """Expand an answer in place and return it.

    Raises:
        StripeError: a path leads to nothing that can be expanded, or too deep.
    """
    for path in paths:
        keys = path.split(".")
        if len([key for key in keys if key != "data"]) > DEEPEST:
            raise StripeError(
                f"You cannot expand more than {DEEPEST} levels of a property. Property: {path}",
                param="expand",
            )
        _expand(world, answer, keys)
    return answer


def _expand(world: World, subject: Any, keys: list[str]) -> None:
    if isinstance(subject, list):
        for one in subject:
            _expand(world, one, keys)
        return
    if not keys or not isinstance(subject, dict):
        return
    key, *rest = keys
    include = INCLUDABLE.get((subject.get("object", ""), key))
    if include and key not in subject:
        subject[key] = include(world, subject)
    if key in NEVER or key not in subject:
        raise _unexpandable(key)
    subject[key] = _opened(world, subject[key], key)
    _expand(world, subject[key], rest)


def _opened(world: World, value: Any, key: str) -> Any:
    """Return a value with its id, or its ids, replaced by what they name."""
    if isinstance(value, str):
        return _named(world, value, key)
    if isinstance(value, list):
        return [_named(world, one, key) if isinstance(one, str) else one for one in value]
    if not isinstance(value, dict | None):
        raise _unexpandable(key)
    return value


def _named(world: World, identifier: str, key: str) -> Json:
    found = world.store.get(identifier)
    if found is None:
        raise _unexpandable(key)
    return found


def _unexpandable(key: str) -> StripeError:
    return StripeError(
        f"This property cannot be expanded ({key}). You may want to try expanding 'data.{key}'"
        " instead.",
        param="expand",
    )


def _payments(world: World, invoice: Json) -> Json:
    made = list(invoicing.payments_of(world, invoice))
    return listing(f"/v1/invoice_payments?invoice={invoice['id']}", made)


def _subscriptions(world: World, customer: Json) -> Json:
    url = f"/v1/customers/{customer['id']}/subscriptions"
    return listing(url, list(lifecycle.of_customer(world, customer["id"])))


def _refunds(world: World, charge: Json) -> Json:
    made = list(world.store.every("refund", parent=charge["id"]))
    return listing(f"/v1/charges/{charge['id']}/refunds", made)


def _confirmation_secret(world: World, invoice: Json) -> Json | None:
    intent = invoicing.intent_of(world, invoice)
    return {"type": "payment_intent", "client_secret": intent["client_secret"]} if intent else None


INCLUDABLE: dict[tuple[str, str], Callable[[World, Json], Json | None]] = {
    ("checkout.session", "line_items"): lambda _world, session: checkout.line_items(session),
    ("invoice", "payments"): _payments,
    ("customer", "subscriptions"): _subscriptions,
    ("charge", "refunds"): _refunds,
    ("coupon", "applies_to"): lambda _world, coupon: coupons.applies_to(coupon),
    ("invoice", "confirmation_secret"): _confirmation_secret,
}
