"""Customers: who pays, and what they are billed with."""

import secrets

from simulators.stripe import balances, clocks, events, methods
from simulators.stripe.errors import invalid
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

TEXTS = ("email", "name", "description", "phone", "address")
CHANGES = (
    "email name description phone address metadata preferred_locales balance"
    " invoice_settings.default_payment_method expand"
)
USUAL_CURRENCY = "usd"  # of a balance that is set before anything was ever billed
ADDRESS = ("city", "country", "line1", "line2", "postal_code", "state")


def create(world: World, params: Params) -> Json:
    """Make a customer, on a test clock where one is named; a card can come along."""
    clock = clocks.attached(world, params)
    with clocks.time_of(world, clock):
        return _create(world, params, clock["id"] if clock else None)


def _create(world: World, params: Params, clock: str | None) -> Json:
    customer: Json = {
        "id": new_id("cus", 14),
        "object": "customer",
        "balance": 0,
        "created": world.now(),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "discount": None,
        "invoice_prefix": secrets.token_hex(4).upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "next_invoice_sequence": 1,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": clock,
        **dict.fromkeys(TEXTS),
    }
    settings = params.get("invoice_settings") or {}
    card = params.get("payment_method")
    if settings.get("default_payment_method") and card != settings["default_payment_method"]:
        raise invalid(
            "A new customer's default payment method must also be passed as `payment_method`.",
            "invoice_settings[default_payment_method]",
        )
    if card:
        customer = events.created(world, "customer.created", customer)
        method = methods.attach_operation(world, {"customer": customer["id"]}, card)
        chosen = {**settings, "default_payment_method": method["id"]} if settings else settings
        return update(world, {**params, "invoice_settings": chosen}, customer["id"])
    made = events.created(world, "customer.created", _with(world, customer, params))
    return _with_balance(world, made, params, "initial")


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("customer", identifier)


def update(world: World, params: Params, identifier: str) -> Json:
    before = world.customer(identifier)
    after = events.changed(world, "customer.updated", before, _with(world, before, params))
    return _with_balance(world, after, params, "adjustment")


def delete(world: World, _params: Params, identifier: str) -> Json:
    """Forget a customer for good; their subscriptions end at once."""
    clocks.forget(world, world.customer(identifier))
    return {"id": identifier, "object": "customer", "deleted": True}


def list_customers(world: World, params: Params) -> Json:
    def wanted(customer: Json) -> bool:
        return (
            not customer.get("deleted")
            and params.get("test_clock") == customer["test_clock"]
            and params.get("email") in {None, customer["email"]}
            and within(customer["created"], params.get("created"))
        )

    return answer("/v1/customers", params, world.store.every("customer"), wanted)


def _with(world: World, customer: Json, params: Params) -> Json:
    changed = {**customer, "metadata": merge_metadata(customer["metadata"], params)}
    changed |= {key: params[key] for key in TEXTS if key in params}
    if params.get("address"):
        changed["address"] = {key: params["address"].get(key) for key in ADDRESS}
    if "preferred_locales" in params:
        changed["preferred_locales"] = params["preferred_locales"]
    if changed["email"] and "@" not in changed["email"]:
        raise invalid(f"Invalid email address: {changed['email']}", "email", "email_invalid")
    settings = params.get("invoice_settings") or {}
    if "default_payment_method" in settings:
        chosen = settings["default_payment_method"]
        if chosen:
            _check_owner(world, chosen, customer["id"])
        changed["invoice_settings"] = {
            **customer["invoice_settings"],
            "default_payment_method": chosen,
        }
    return changed


def _with_balance(world: World, customer: Json, params: Params, kind: str) -> Json:
    """Set a balance, with the transaction that explains it."""
    change = params.get("balance", customer["balance"]) - customer["balance"]
    if change:
        currency = customer["currency"] or USUAL_CURRENCY
        balances.change(world, customer, change, kind=kind, currency=currency)
    return world.need("customer", customer["id"])


def _check_owner(world: World, method: str, customer: str) -> None:
    param = "invoice_settings[default_payment_method]"
    if world.refer("payment_method", method, param)["customer"] != customer:
        raise invalid(
            f"The customer does not have a payment method with the ID {method}. The payment method"
            " must be attached to the customer.",
            param,
            "resource_missing",
        )


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/customers",
        run=create,
        supports=f"{CHANGES} payment_method test_clock",
    ),
    Operation(
        method="GET",
        path="/v1/customers",
        run=list_customers,
        supports=f"{LIST_PARAMS} email created test_clock",
    ),
    Operation(method="GET", path="/v1/customers/{}", run=retrieve, supports="expand"),
    Operation(method="POST", path="/v1/customers/{}", run=update, supports=CHANGES),
    Operation(method="DELETE", path="/v1/customers/{}", run=delete),
)
