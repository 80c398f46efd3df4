"""Products and their prices."""

from typing import Any

from simulators.stripe import events
from simulators.stripe.errors import StripeError, invalid, required
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, check_currency, merge_metadata

PRODUCT_TEXTS = ("description", "statement_descriptor", "unit_label", "url")
PRODUCT_PARAMS = (
    "name active description images metadata statement_descriptor unit_label url expand"
)
PRICE_CHANGES = "active nickname metadata lookup_key transfer_lookup_key tax_behavior expand"
LONGEST_INTERVAL = {"day": 1095, "week": 156, "month": 36, "year": 3}


def create_product(world: World, params: Params) -> Json:
    identifier = params.get("id") or new_id("prod", 14)
    if world.store.get(identifier):
        raise invalid("Product already exists.", "id", "resource_already_exists")
    product: Json = {
        "id": identifier,
        "object": "product",
        "active": params.get("active", True),
        "created": world.wall(),
        "default_price": None,
        "images": params.get("images") or [],
        "livemode": False,
        "marketing_features": [],
        "metadata": merge_metadata({}, params),
        "name": params["name"],
        "package_dimensions": None,
        "shippable": None,
        "tax_code": None,
        "type": "service",
        "updated": world.wall(),
        **{name: params.get(name) for name in PRODUCT_TEXTS},
    }
    return events.created(world, "product.created", product)


def retrieve_product(world: World, _params: Params, identifier: str) -> Json:
    return _product(world, identifier)


def update_product(world: World, params: Params, identifier: str) -> Json:
    before = _product(world, identifier)
    given = {key: value for key, value in params.items() if key not in {"expand", "metadata"}}
    if given.get("default_price"):
        world.refer("price", given["default_price"], "default_price")
    after = {**before, **given, "metadata": merge_metadata(before["metadata"], params)}
    after["images"] = after["images"] or []
    if after != before:
        after["updated"] = world.wall()
    return events.changed(world, "product.updated", before, after)


def delete_product(world: World, _params: Params, identifier: str) -> Json:
    product = _product(world, identifier)
    if next(iter(world.store.every("price", parent=identifier)), None):
        raise invalid(
            "This product cannot be deleted because it has one or more user-created prices."
        )
    gone = {"id": identifier, "object": "product", "deleted": True}
    world.store.put(gone)
    events.record(world, "product.deleted", product)
    return gone


def list_products(world: World, params: Params) -> Json:
    def wanted(product: Json) -> bool:
        return (
            not product.get("deleted")
            and params.get("active", product["active"]) == product["active"]
            and ("ids" not in params or product["id"] in params["ids"])
            and within(product["created"], params.get("created"))
        )

    return answer("/v1/products", params, world.store.every("product"), wanted)


def create_price(world: World, params: Params) -> Json:
    price: Json = {
        "id": new_id("price"),
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": "per_unit",
        "created": world.wall(),
        "currency": check_currency(params["currency"]),
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": merge_metadata({}, params),
        "nickname": params.get("nickname"),
        "product": _product_of_price(world, params),
        "recurring": _recurring(params["recurring"]) if "recurring" in params else None,
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if "recurring" in params else "one_time",
        "unit_amount": _amount(params),
        "unit_amount_decimal": str(_amount(params)),
    }
    _name_price(world, price, params)
    return events.created(world, "price.created", price)


def retrieve_price(world: World, _params: Params, identifier: str) -> Json:
    return world.need("price", identifier)


def update_price(world: World, params: Params, identifier: str) -> Json:
    before = world.need("price", identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    after |= {key: params[key] for key in ("active", "nickname", "tax_behavior") if key in params}
    _name_price(world, after, params)
    return events.changed(world, "price.updated", before, after)


def list_prices(world: World, params: Params) -> Json:
    exact = {key: params[key] for key in ("active", "currency", "product", "type") if key in params}
    recurring = params.get("recurring") or {}

    def wanted(price: Json) -> bool:
        return (
            all(price[key] == value for key, value in exact.items())
            and ("lookup_keys" not in params or price["lookup_key"] in params["lookup_keys"])
            and all((price["recurring"] or {}).get(key) == one for key, one in recurring.items())
            and within(price["created"], params.get("created"))
        )

    return answer(
        "/v1/prices", params, world.store.every("price", parent=params.get("product")), wanted
    )


def usable_price(world: World, identifier: str, param: str) -> Json:
    """Return a price that may be sold now."""
    price = world.refer("price", identifier, param)
    product = world.store.get(price["product"]) or {}
    if not price["active"]:
        raise invalid(
            "The price specified is inactive. This field only accepts active prices.", param
        )
    if not product.get("active"):
        raise invalid(
            f"Price `{identifier}` is not available to be purchased because its product is not"
            " active.",
            param,
        )
    return price


def recurring_price(world: World, identifier: str, param: str) -> Json:
    """Return a price that may be subscribed to now."""
    price = usable_price(world, identifier, param)
    if price["type"] != "recurring":
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices with"
            " `type=recurring`.",
            param,
        )
    return price


def _product(world: World, identifier: str) -> Json:
    product = world.need("product", identifier)
    if product.get("deleted"):
        raise StripeError(
            f"No such product: '{identifier}'", status=404, code="resource_missing", param="id"
        )
    return product


def _product_of_price(world: World, params: Params) -> str:
    if "product" in params:
        return world.refer("product", params["product"], "product")["id"]
    if "product_data" not in params:
        raise required("product")
    if "name" not in params["product_data"]:
        raise required("product_data[name]")
    return create_product(world, params["product_data"])["id"]


def _amount(params: Params) -> int:
    amount: Any = params.get("unit_amount")
    if amount is None:
        raise required("unit_amount")
    if amount < 0:
        raise invalid("Invalid non-negative integer", "unit_amount", "parameter_invalid_integer")
    return amount


def _recurring(given: Json) -> Json:
    if "interval" not in given:
        raise required("recurring[interval]")
    count = given.get("interval_count", 1)
    if not 1 <= count <= LONGEST_INTERVAL[given["interval"]]:
        raise invalid(
            "Invalid interval_count: a price can be billed at most every three years.",
            "recurring[interval_count]",
        )
    return {
        "interval": given["interval"],
        "interval_count": count,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def _name_price(world: World, price: Json, params: Params) -> None:
    """Give the price its lookup key; a key belongs to one price, and moves only when asked to."""
    if "lookup_key" not in params:
        return
    wanted = params["lookup_key"]
    for other in world.store.every("price") if wanted else ():
        if other["lookup_key"] != wanted or other["id"] == price["id"]:
            continue
        if not params.get("transfer_lookup_key"):
            raise invalid(f"A price (`{other['id']}`) already uses that lookup key.", "lookup_key")
        events.changed(world, "price.updated", other, {**other, "lookup_key": None})
    price["lookup_key"] = wanted


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/products",
        run=create_product,
        supports=f"id {PRODUCT_PARAMS}",
        required="name",
    ),
    Operation(
        method="GET",
        path="/v1/products",
        run=list_products,
        supports=f"{LIST_PARAMS} active ids created",
    ),
    Operation(method="GET", path="/v1/products/{}", run=retrieve_product, supports="expand"),
    Operation(
        method="POST",
        path="/v1/products/{}",
        run=update_product,
        supports=f"{PRODUCT_PARAMS} default_price",
    ),
    Operation(method="DELETE", path="/v1/products/{}", run=delete_product),
    Operation(
        method="POST",
        path="/v1/prices",
        run=create_price,
        supports=f"{PRICE_CHANGES} currency product product_data.name product_data.metadata"
        " product_data.active product_data.id unit_amount"
        " recurring.interval recurring.interval_count",
        required="currency",
    ),
    Operation(
        method="GET",
        path="/v1/prices",
        run=list_prices,
        supports=f"{LIST_PARAMS} active currency product type lookup_keys created"
        " recurring.interval recurring.usage_type",
    ),
    Operation(method="GET", path="/v1/prices/{}", run=retrieve_price, supports="expand"),
    Operation(method="POST", path="/v1/prices/{}", run=update_price, supports=PRICE_CHANGES),
)
