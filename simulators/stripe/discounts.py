"""Discounts: a coupon that was given to a subscription, and what it takes off an invoice."""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from simulators.stripe import coupons, events
from simulators.stripe.anchors import months_later
from simulators.stripe.errors import StripeError, invalid, missing_reference
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import World

WISHES = "discounts.coupon discounts.promotion_code"
ALL = Decimal(100)  # per cent


def read(
    world: World, wishes: Iterable[Mapping[str, Any]] | None, customer: Json | None, amount: int
) -> list[tuple[Json, Json | None]]:
    """Return the coupons that a request names, each with the promotion code it came by.

    `amount` is what would be due without them, in the currency's smallest unit.
    """
    chosen = []
    for at, wish in enumerate(wishes or ()):
        where = f"discounts[{at}]"
        names = [name for name in ("coupon", "promotion_code", "discount") if name in wish]
        if len(names) != 1:
            raise invalid(
                "Each discount needs exactly one of `coupon` and `promotion_code`.", where
            )
        if names == ["coupon"]:
            chosen.append((coupons.usable(world, wish["coupon"], f"{where}[coupon]"), None))
            continue
        param = f"{where}[promotion_code]"
        promotion = coupons.usable_code(world, wish["promotion_code"], param)
        flaw = unmet(world, promotion, customer, amount)
        if flaw:
            raise StripeError(flaw, param=param)
        chosen.append((coupon_of(world, promotion), promotion))
    return chosen


def coupon_of(world: World, promotion: Json) -> Json:
    return world.store.get(promotion["promotion"]["coupon"]) or {}


def unmet(world: World, promotion: Json, customer: Json | None, amount: int) -> str | None:
    """Return which restriction of a promotion code stands in the way, in a sentence."""
    if promotion["customer"] and promotion["customer"] != (customer or {}).get("id"):
        return "This promotion code cannot be redeemed because it belongs to another customer."
    wish = promotion["restrictions"]
    if wish["first_time_transaction"] and customer and _has_paid(world, customer["id"]):
        return (
            "This promotion code cannot be redeemed because the associated customer has prior"
            " transactions."
        )
    if wish["minimum_amount"] is not None and amount < wish["minimum_amount"]:
        return "This promotion code cannot be redeemed because the amount is below its minimum."
    return None


def give(
    world: World,
    chosen: Iterable[tuple[Json, Json | None]],
    *,
    customer: str,
    subscription: str,
    session: str | None = None,
) -> list[str]:
    """Make discounts of coupons for a subscription, and return their ids."""
    made = []
    for coupon, promotion in chosen:
        discount = shape(world, coupon, promotion, customer=customer, subscription=subscription)
        discount["checkout_session"] = session
        world.store.put(discount)
        coupons.count(world, coupon, promotion)
        events.record(world, "customer.discount.created", discount)
        made.append(discount["id"])
    return made


def shape(
    world: World,
    coupon: Json,
    promotion: Json | None,
    *,
    customer: str | None,
    subscription: str | None,
) -> Json:
    """Return a discount, not stored: also what a preview is reckoned with."""
    months = coupon["duration_in_months"]
    return {
        "id": new_id("di"),
        "object": "discount",
        "checkout_session": None,
        "customer": customer,
        "customer_account": None,
        "end": months_later(world.now(), months) if months else None,
        "invoice": None,
        "invoice_item": None,
        "promotion_code": promotion["id"] if promotion else None,
        "source": {"type": "coupon", "coupon": coupon["id"]},
        "start": world.now(),
        "subscription": subscription,
        "subscription_item": None,
    }


def take_away(world: World, identifiers: Iterable[str]) -> None:
    for identifier in identifiers:
        discount = world.store.get(identifier, "discount")
        if discount:
            events.record(world, "customer.discount.deleted", discount)


def kept(world: World, wishes: Iterable[Mapping[str, Any]], before: list[str]) -> list[str]:
    """Return those of a subscription's discounts that an update names again by their ids."""
    names = [wish["discount"] for wish in wishes if "discount" in wish]
    for name in names:
        if name not in before:
            raise missing_reference("discount", name, "discounts[0][discount]")
        world.refer("discount", name, "discounts[0][discount]")
    return names


def in_force(world: World, identifiers: Iterable[str | Json], at: int) -> list[Json]:
    """Return the discounts that count at a moment, each with its coupon as a note."""
    found = []
    for one in identifiers:
        discount = one if isinstance(one, dict) else world.store.get(one, "discount")
        if discount is None or (discount["end"] is not None and discount["end"] <= at):
            continue
        coupon = world.store.get(discount["source"]["coupon"], "coupon")
        if coupon:
            found.append({**discount, "_coupon": coupon})
    return found


def apply(lines: list[Json], given: list[Json]) -> list[Json]:
    """Write on each line what comes off it, one discount after the other; return the totals."""
    left = [line["amount"] if line["discountable"] else 0 for line in lines]
    totals = []
    for discount in given:
        off = _off(lines, left, discount["_coupon"])
        for at, amount in enumerate(off):
            left[at] -= amount
            if amount:
                entry = {"amount": amount, "discount": discount["id"]}
                lines[at]["discount_amounts"].append(entry)
                lines[at]["discounts"].append(discount["id"])
                lines[at]["pretax_credit_amounts"].append({**entry, "type": "discount"})
        totals.append({"amount": sum(off), "discount": discount["id"]})
    return totals


def _off(lines: list[Json], left: list[int], coupon: Json) -> list[int]:
    products = coupon.get("_products")
    reached = [
        products is None or line["pricing"]["price_details"]["product"] in products
        for line in lines
    ]
    if coupon["percent_off"] is not None:
        share = Decimal(str(coupon["percent_off"])) / ALL
        return [
            _rounded(amount * share) if is_in else 0
            for amount, is_in in zip(left, reached, strict=True)
        ]
    budget = coupon["amount_off"]
    off = []
    for line, amount, is_in in zip(lines, left, reached, strict=True):
        is_right = is_in and line["currency"] == coupon["currency"]
        taken = min(budget, max(0, amount)) if is_right else 0
        budget -= taken
        off.append(taken)
    return off


def spend(world: World, subscription: Json, used: Iterable[str]) -> Json:
    """Return the subscription without the discounts that were good for one invoice only."""
    gone = set()
    for identifier in used:
        discount = world.store.get(identifier, "discount") or {}
        coupon = world.store.get((discount.get("source") or {}).get("coupon") or "") or {}
        if coupon.get("duration") == "once" and identifier in subscription["discounts"]:
            gone.add(identifier)
    left = [one for one in subscription["discounts"] if one not in gone]
    return {**subscription, "discounts": left} if gone else subscription


def _has_paid(world: World, customer: str) -> bool:
    return any(
        one["status"] == "paid" and one["amount_paid"] > 0
        for one in world.store.every("invoice", customer)
    )


def _rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))
