"""Coupons and the promotion codes that customers type in; `discounts` applies them."""

import os

from simulators.stripe import events
from simulators.stripe.errors import below, invalid, missing, missing_reference, required
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, check_currency, merge_metadata

CODE_LETTERS = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # 32, so that each byte picks one evenly
CODE_LENGTH = 8
ALL = 100  # per cent
COUPON_PARAMS = (
    "id name percent_off amount_off currency duration duration_in_months max_redemptions redeem_by"
    " applies_to.products metadata expand"
)


def create(world: World, params: Params) -> Json:
    identifier = params.get("id") or new_id("", 8)[1:]
    if world.store.get(identifier):
        raise invalid("Coupon already exists.", "id", "resource_already_exists")
    _check_worth(params)
    _check_duration(params)
    for product in (params.get("applies_to") or {}).get("products") or ():
        world.refer("product", product, "applies_to[products][0]")
    coupon: Json = {
        "id": identifier,
        "object": "coupon",
        "amount_off": params.get("amount_off"),
        "created": world.wall(),
        "currency": check_currency(params["currency"]) if "amount_off" in params else None,
        "duration": params.get("duration", "once"),
        "duration_in_months": params.get("duration_in_months"),
        "livemode": False,
        "max_redemptions": params.get("max_redemptions"),
        "metadata": merge_metadata({}, params),
        "name": params.get("name"),
        "percent_off": params.get("percent_off"),
        "redeem_by": params.get("redeem_by"),
        "times_redeemed": 0,
        "valid": True,
        "_products": (params.get("applies_to") or {}).get("products"),
    }
    return _shown(world, events.created(world, "coupon.created", coupon))


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return _shown(world, _need(world, identifier))


def update(world: World, params: Params, identifier: str) -> Json:
    before = _need(world, identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    after["name"] = params.get("name", before["name"])
    return _shown(world, events.changed(world, "coupon.updated", before, after))


def delete(world: World, _params: Params, identifier: str) -> Json:
    """Take a coupon away; discounts that were given with it stay, as at Stripe."""
    coupon = _need(world, identifier)
    world.store.put({**coupon, "valid": False, "_deleted": True})
    events.record(world, "coupon.deleted", coupon)
    return {"id": identifier, "object": "coupon", "deleted": True}


def list_coupons(world: World, params: Params) -> Json:
    def wanted(coupon: Json) -> bool:
        return not coupon.get("_deleted") and within(coupon["created"], params.get("created"))

    page = answer("/v1/coupons", params, world.store.every("coupon"), wanted)
    page["data"] = [_shown(world, one) for one in page["data"]]
    return page


def usable(world: World, identifier: str, param: str) -> Json:
    """Return a coupon that may be redeemed now."""
    coupon = world.store.get(identifier, "coupon")
    if coupon is None or coupon.get("_deleted"):
        raise missing_reference("coupon", identifier, param)
    if not _is_valid(world, coupon):
        raise invalid(f"Coupon expired: {identifier}", param, "coupon_expired")
    return coupon


def create_code(world: World, params: Params) -> Json:
    if "coupon" not in params["promotion"]:
        raise required("promotion[coupon]")
    coupon = usable(world, params["promotion"]["coupon"], "promotion[coupon]")
    customer = params.get("customer")
    if customer:
        world.refer("customer", customer, "customer")
    wish = params.get("restrictions") or {}
    code = params.get("code") or _new_code()
    promotion: Json = {
        "id": new_id("promo"),
        "object": "promotion_code",
        "active": params.get("active", True),
        "code": code,
        "created": world.wall(),
        "customer": customer,
        "customer_account": None,
        "expires_at": params.get("expires_at"),
        "livemode": False,
        "max_redemptions": params.get("max_redemptions"),
        "metadata": merge_metadata({}, params),
        "promotion": {"type": "coupon", "coupon": coupon["id"]},
        "restrictions": {
            "first_time_transaction": wish.get("first_time_transaction", False),
            "minimum_amount": wish.get("minimum_amount"),
            "minimum_amount_currency": wish.get("minimum_amount_currency"),
        },
        "times_redeemed": 0,
    }
    _check_code(world, promotion)
    return events.created(world, "promotion_code.created", promotion)


def retrieve_code(world: World, _params: Params, identifier: str) -> Json:
    return _with_truth(world, world.need("promotion_code", identifier))


def update_code(world: World, params: Params, identifier: str) -> Json:
    before = world.need("promotion_code", identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    after["active"] = params.get("active", before["active"])
    if after["active"] and not before["active"]:
        _check_code(world, after)
    return events.changed(world, "promotion_code.updated", before, after)


def list_codes(world: World, params: Params) -> Json:
    exact = {key: params[key] for key in ("active", "customer") if key in params}

    def wanted(found: Json) -> bool:
        one = _with_truth(world, found)
        return (
            all(one[key] == value for key, value in exact.items())
            and params.get("coupon") in {None, one["promotion"]["coupon"]}
            and within(one["created"], params.get("created"))
        )

    code = params["code"].lower() if "code" in params else None
    shelf = world.store.every("promotion_code", parent=code)
    page = answer("/v1/promotion_codes", params, shelf, wanted)
    page["data"] = [_with_truth(world, one) for one in page["data"]]
    return page


def find_code(world: World, typed: str) -> Json | None:
    """Return the active promotion code that a customer typed; letters' case does not matter."""
    for one in world.store.every("promotion_code", parent=typed.strip().lower()):
        if _with_truth(world, one)["active"]:
            return one
    return None


def usable_code(world: World, identifier: str, param: str) -> Json:
    """Return a promotion code that may be redeemed now."""
    promotion = world.refer("promotion_code", identifier, param)
    if not _with_truth(world, promotion)["active"]:
        raise invalid(f"This promotion code is inactive or expired: {identifier}", param)
    return promotion


def count(world: World, coupon: Json, promotion: Json | None) -> None:
    """Remember that both were redeemed once more; that is no event at Stripe."""
    current = world.store.get(coupon["id"]) or coupon
    world.store.put({**current, "times_redeemed": current["times_redeemed"] + 1})
    if promotion:
        world.store.put({**promotion, "times_redeemed": promotion["times_redeemed"] + 1})


def applies_to(coupon: Json) -> Json:
    """Return what `expand[]=applies_to` shows."""
    return {"products": coupon.get("_products") or []}


def _need(world: World, identifier: str) -> Json:
    coupon = world.need("coupon", identifier)
    if coupon.get("_deleted"):
        raise missing("coupon", identifier)
    return coupon


def _shown(world: World, coupon: Json) -> Json:
    return {**coupon, "valid": _is_valid(world, coupon)}


def _is_valid(world: World, coupon: Json) -> bool:
    is_used_up = _is_used_up(coupon)
    is_late = coupon["redeem_by"] is not None and coupon["redeem_by"] <= world.now()
    return coupon["valid"] and not is_used_up and not is_late


def _is_used_up(thing: Json) -> bool:
    most = thing["max_redemptions"]
    return most is not None and thing["times_redeemed"] >= most


def _with_truth(world: World, promotion: Json) -> Json:
    """Return a promotion code that says whether it is still good for something."""
    coupon = world.store.get(promotion["promotion"]["coupon"]) or {}
    is_late = promotion["expires_at"] is not None and promotion["expires_at"] <= world.now()
    is_good = promotion["active"] and not is_late and not _is_used_up(promotion)
    return {**promotion, "active": is_good and _is_valid(world, coupon)}


def _new_code() -> str:
    return "".join(chr(CODE_LETTERS[byte % len(CODE_LETTERS)]) for byte in os.urandom(CODE_LENGTH))


def _check_worth(params: Params) -> None:
    percent, amount = params.get("percent_off"), params.get("amount_off")
    if (percent is None) == (amount is None):
        raise invalid(
            "You must pass either `percent_off` or `amount_off`, and not both.", "percent_off"
        )
    if percent is not None and not 0 < percent <= ALL:
        raise invalid("Invalid percent_off: must be greater than 0 and at most 100.", "percent_off")
    if amount is not None and amount < 1:
        raise below(1, "amount_off")
    if amount is not None and "currency" not in params:
        raise invalid("You must pass `currency` when passing `amount_off`.", "currency")


def _check_duration(params: Params) -> None:
    is_repeating = params.get("duration", "once") == "repeating"
    months = params.get("duration_in_months")
    if is_repeating and months is None:
        raise required("duration_in_months")
    if not is_repeating and months is not None:
        raise invalid(
            "`duration_in_months` can only be set when `duration` is `repeating`.",
            "duration_in_months",
        )
    for name in ("duration_in_months", "max_redemptions"):
        if params.get(name, 1) < 1:
            raise below(1, name)


def _check_code(world: World, promotion: Json) -> None:
    """A code is unique, whatever the case of its letters, among a customer's active ones."""
    for other in world.store.every("promotion_code", parent=promotion["code"].lower()):
        is_for_same = None in {other["customer"], promotion["customer"]} or (
            other["customer"] == promotion["customer"]
        )
        if other["id"] != promotion["id"] and is_for_same and _with_truth(world, other)["active"]:
            raise invalid(
                f"An active promotion code with `code: {promotion['code']}` already exists.",
                "code",
                "resource_already_exists",
            )


OPERATIONS = (
    Operation(method="POST", path="/v1/coupons", run=create, supports=COUPON_PARAMS),
    Operation(
        method="GET", path="/v1/coupons", run=list_coupons, supports=f"{LIST_PARAMS} created"
    ),
    Operation(method="GET", path="/v1/coupons/{}", run=retrieve, supports="expand"),
    Operation(method="POST", path="/v1/coupons/{}", run=update, supports="name metadata expand"),
    Operation(method="DELETE", path="/v1/coupons/{}", run=delete),
    Operation(
        method="POST",
        path="/v1/promotion_codes",
        run=create_code,
        supports="promotion.type promotion.coupon code active customer expires_at max_redemptions"
        " metadata restrictions.first_time_transaction restrictions.minimum_amount"
        " restrictions.minimum_amount_currency expand",
    ),
    Operation(
        method="GET",
        path="/v1/promotion_codes",
        run=list_codes,
        supports=f"{LIST_PARAMS} active code coupon customer created",
    ),
    Operation(method="GET", path="/v1/promotion_codes/{}", run=retrieve_code, supports="expand"),
    Operation(
        method="POST",
        path="/v1/promotion_codes/{}",
        run=update_code,
        supports="active metadata expand",
    ),
)
