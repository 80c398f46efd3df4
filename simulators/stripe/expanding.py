"""`expand[]`: ids in an answer become the objects they name."""

from collections.abc import Callable
from typing import Any

from simulators.stripe import checkout, invoicing, lifecycle
from simulators.stripe.errors import StripeError
from simulators.stripe.paging import listing
from simulators.stripe.store import Json
from simulators.stripe.world import World

DEEPEST = 4


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
    value = subject.get(key, key)  # an unknown key is looked up like an id, and not found
    if isinstance(value, str):
        value = subject[key] = _named(world, value, key)
    _expand(world, value, rest)


def _named(world: World, identifier: str, key: str) -> Json:
    found = world.store.get(identifier)
    if found is None:
        raise StripeError(
            f"This property cannot be expanded ({key}). You may want to try expanding"
            f" 'data.{key}' instead.",
            param="expand",
        )
    return found


def _payments(world: World, invoice: Json) -> Json:
    made = list(invoicing.payments_of(world, invoice))
    return listing(f"/v1/invoice_payments?invoice={invoice['id']}", made)


def _subscriptions(world: World, customer: Json) -> Json:
    url = f"/v1/customers/{customer['id']}/subscriptions"
    return listing(url, list(lifecycle.of_customer(world, customer["id"])))


def _refunds(world: World, charge: Json) -> Json:
    made = [one for one in world.store.every("refund") if one["charge"] == charge["id"]]
    return listing(f"/v1/charges/{charge['id']}/refunds", made)


INCLUDABLE: dict[tuple[str, str], Callable[[World, Json], Json]] = {
    ("checkout.session", "line_items"): lambda _world, session: checkout.line_items(session),
    ("invoice", "payments"): _payments,
    ("customer", "subscriptions"): _subscriptions,
    ("charge", "refunds"): _refunds,
}
