"""What a subscription and its items look like, before anything happens to them."""

from typing import Any

from simulators.stripe.anchors import period_end
from simulators.stripe.errors import unsupported
from simulators.stripe.paging import listing
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import World

NOTHING = (
    "application application_fee_percent billing_cycle_anchor_config billing_thresholds cancel_at"
    " canceled_at customer_account days_until_due default_source description ended_at"
    " latest_invoice next_pending_invoice_item_invoice on_behalf_of pause_collection"
    " pending_invoice_item_interval pending_setup_intent pending_update schedule test_clock"
    " transfer_data trial_end trial_start"
)


def subscription(world: World, customer: Json, items: list[Json], **fields: Any) -> Json:
    """Return a new subscription, not stored."""
    now = world.now()
    identifier = items[0]["subscription"]
    return {
        "id": identifier,
        "object": "subscription",
        **dict.fromkeys(NOTHING.split()),
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_mode": {
            "flexible": {"proration_discounts": "included"},
            "type": "flexible",
            "updated_at": None,
        },
        "billing_schedules": [],
        "cancel_at_period_end": False,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": items[0]["price"]["currency"],
        "customer": customer["id"],
        "default_payment_method": None,
        "default_tax_rates": [],
        "discounts": [],
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": listing(f"/v1/subscription_items?subscription={identifier}", items),
        "livemode": False,
        "metadata": {},
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "start_date": now,
        "status": "incomplete",
        "test_clock": customer.get("test_clock"),
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        **fields,
    }


def item(subscription_id: str, price: Json, quantity: int, period: tuple[int, int]) -> Json:
    return {
        "id": new_id("si", 14),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": period[0],
        "current_period_start": period[0],
        "current_period_end": period[1],
        "discounts": [],
        "metadata": {},
        "plan": plan(price),
        "price": price,
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def plan(price: Json) -> Json:
    """Return the price in the shape that Stripe used before prices, which items still carry."""
    same = ("active", "billing_scheme", "created", "currency", "livemode", "metadata", "nickname")
    recurring = price["recurring"]
    return {
        **{key: price[key] for key in (*same, "product", "tiers_mode")},
        "id": price["id"],
        "object": "plan",
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        **{key: recurring[key] for key in ("interval", "interval_count", "meter")},
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


def items_of(found: Json) -> list[Json]:
    return found["items"]["data"]


def with_items(found: Json, items: list[Json]) -> Json:
    return {**found, "items": listing(found["items"]["url"], items)}


def period_of(found: Json) -> tuple[int, int]:
    first = items_of(found)[0]
    return first["current_period_start"], first["current_period_end"]


def with_period(found: Json, start: int, end: int) -> Json:
    """Return the subscription with all items in a period of their own."""
    period = {"current_period_start": start, "current_period_end": end}
    return with_items(found, [{**one, **period} for one in items_of(found)])


def next_end(found: Json, price: Json, after: int) -> int:
    """Return the first billing date of a subscription later than a moment."""
    recurring = price["recurring"]
    config = found["billing_cycle_anchor_config"] or {}
    return period_end(
        found["billing_cycle_anchor"],
        after,
        recurring["interval"],
        recurring["interval_count"],
        config.get("day_of_month"),
    )


def product_name(world: World, one: Json) -> str:
    return (world.store.get(one["price"]["product"]) or {}).get("name", "")


def check_same_rhythm(prices: list[Json]) -> None:
    """Refuse what Stripe can do with several prices and this simulator cannot.

    Raises:
        StripeError: intervals or currencies differ.
    """
    rhythms = {(one["recurring"]["interval"], one["recurring"]["interval_count"]) for one in prices}
    if len(rhythms) > 1:
        raise unsupported("subscriptions with prices of different intervals", "items")
    if len({one["currency"] for one in prices}) > 1:
        raise unsupported("subscriptions with prices in different currencies", "items")
