"""A subscription's life: started, paid, renewed, refused, ended."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from simulators.stripe import events, invoicing
from simulators.stripe.clock import HOUR, period_end
from simulators.stripe.errors import StripeError, unsupported
from simulators.stripe.lines import for_period
from simulators.stripe.paging import listing
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import World

INCOMPLETE_SECONDS = 23 * HOUR  # how long Stripe waits for a first payment or a pending update
AFTER_LAST_RETRY = "after_last_retry"  # the account's choice: cancel, unpaid or past_due
ENDED = frozenset({"canceled", "incomplete_expired"})
UPDATED = "customer.subscription.updated"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What somebody subscribes to: prices with quantities, and how the first invoice is paid."""

    customer: str
    chosen: list[tuple[Json, int]]
    method: Json | None = None
    on_session: bool = False
    behavior: str = "allow_incomplete"
    metadata: Json = field(default_factory=dict)
    description: str | None = None


def start(world: World, wish: Start) -> tuple[Json, StripeError | None]:
    """Make the subscription and try to have its first invoice paid; return why that failed."""
    subscription = _new(world, wish)
    events.created(world, "customer.subscription.created", subscription)
    now = world.now()
    lines = [
        for_period(item, product_name(world, item), now, item["current_period_end"])
        for item in items_of(subscription)
    ]
    invoice = invoicing.finalize(
        world,
        invoicing.draft(
            world, subscription, lines, reason="subscription_create", period=(now, now)
        ),
    )
    subscription["latest_invoice"] = invoice["id"]
    world.store.put(subscription)
    refusal = None
    if wish.behavior != "default_incomplete":
        method = wish.method or method_of(world, subscription)
        invoice, refusal = invoicing.collect(world, invoice, method, on_session=wish.on_session)
    return settle(world, invoice, refusal), refusal


def settle(world: World, invoice: Json, refusal: StripeError | None) -> Json:
    """Bring the subscription in line with what just happened to one of its invoices."""
    before = world.store.get(invoicing.subscription_of(invoice)) or {}
    if before["status"] in ENDED:
        return before
    is_latest = before["latest_invoice"] == invoice["id"]
    if is_latest:
        _mark_delinquent(world, before["customer"], is_delinquent=refusal is not None)
    pending = before.get("_pending")
    if pending and pending["invoice"] == invoice["id"]:
        return _apply_pending(world, before) if invoice["status"] == "paid" else before
    status = before["status"]
    if is_latest and invoice["status"] == "paid":
        status = "active"
    elif is_latest and refusal and status == "active":
        status = "past_due"
    return events.changed(world, UPDATED, before, {**before, "status": status})


def turn(world: World, subscription: Json) -> Json:
    """Begin the next period: new dates now, its invoice as a draft, or the end if so decided."""
    if subscription["cancel_at_period_end"]:
        return end(world, subscription)
    now = world.now()
    items = [_next_period(subscription, item) for item in items_of(subscription)]
    after = with_items(subscription, items)
    lines = [
        for_period(one, product_name(world, one), now, one["current_period_end"]) for one in items
    ]
    is_unpaid = subscription["status"] == "unpaid"
    invoice = invoicing.draft(
        world,
        after,
        lines,
        reason="subscription_cycle",
        period=(items_of(subscription)[0]["current_period_start"], now),
        finalizes_at=None if is_unpaid else now + invoicing.DRAFT_SECONDS,
    )
    after["latest_invoice"] = invoice["id"]
    return events.changed(world, UPDATED, subscription, after)


def advance_invoice(world: World, invoice: Json) -> None:
    """Do what time does to an invoice: finalise a draft, try to collect an open one."""
    if invoice["status"] == "draft":
        invoice = invoicing.finalize(world, invoice)
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    method = method_of(world, subscription)
    invoice, refusal = invoicing.collect(world, invoice, method, on_session=False)
    settle(world, invoice, refusal)
    if refusal:
        retry_later(world, invoice)


def retry_later(world: World, invoice: Json) -> None:
    """Plan the next try; after the last one the account's setting decides."""
    _, is_last = invoicing.schedule_retry(world, invoice)
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    if not is_last or subscription["status"] != "past_due":
        return
    choice = world.store.setting(AFTER_LAST_RETRY, "cancel")
    if choice == "cancel":
        end(world, subscription, reason="payment_failed")
    elif choice == "unpaid":
        events.changed(world, UPDATED, subscription, {**subscription, "status": "unpaid"})


def expire(world: World, subscription: Json) -> None:
    """Give up on a first payment or a pending update that did not come within 23 hours."""
    if subscription["status"] == "incomplete":
        gone = {**subscription, "status": "incomplete_expired", "ended_at": world.now()}
        events.changed(world, UPDATED, subscription, gone)
        invoice = world.store.get(subscription["latest_invoice"]) or {}
    else:
        invoice = world.store.get(subscription["_pending"]["invoice"]) or {}
        after = {**subscription, "pending_update": None}
        del after["_pending"]
        world.store.put(after)
        events.record(world, "customer.subscription.pending_update_expired", after)
    if invoice["status"] == "open":
        invoicing.void(world, invoice)


def end(
    world: World,
    subscription: Json,
    *,
    reason: str = "cancellation_requested",
    details: Json | None = None,
) -> Json:
    """End it now. Open invoices stay open, but nobody collects them any more."""
    is_first_unpaid = subscription["status"] == "incomplete"
    ended = {
        **subscription,
        "status": "incomplete_expired" if is_first_unpaid else "canceled",
        "canceled_at": subscription["canceled_at"] or world.now(),
        "ended_at": world.now(),
        "cancellation_details": {
            **subscription["cancellation_details"],
            **(details or {}),
            "reason": reason,
        },
    }
    world.store.put(ended)
    for invoice in list(invoicing.of_subscription(world, subscription)):
        if is_first_unpaid and invoice["status"] == "open":
            invoicing.void(world, invoice)
        elif invoice["status"] in {"draft", "open"}:
            invoicing.stop(world, invoice)
    events.record(world, "customer.subscription.deleted", ended)
    return ended


def items_of(subscription: Json) -> list[Json]:
    return subscription["items"]["data"]


def with_items(subscription: Json, items: list[Json]) -> Json:
    url = subscription["items"]["url"]
    return {**subscription, "items": listing(url, items)}


def of_customer(world: World, customer: str) -> Iterator[Json]:
    """Walk a customer's subscriptions that have not ended, newest first."""
    for one in world.store.every("subscription", customer):
        if one["status"] not in ENDED:
            yield one


def method_of(world: World, subscription: Json) -> Json | None:
    """Return the card that its invoices are taken from."""
    customer = world.store.get(subscription["customer"]) or {}
    settings = customer.get("invoice_settings") or {}
    chosen = subscription["default_payment_method"] or settings.get("default_payment_method")
    return world.store.get(chosen) if chosen else None


def new_item(subscription: str, price: Json, quantity: int, period: tuple[int, int]) -> Json:
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
        "subscription": subscription,
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
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "meter": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


def end_of_period(price: Json, anchor: int, after: int) -> int:
    recurring = price["recurring"]
    return period_end(anchor, after, recurring["interval"], recurring["interval_count"])


def product_name(world: World, item: Json) -> str:
    return (world.store.get(item["price"]["product"]) or {}).get("name", "")


def check_same_rhythm(prices: list[Json]) -> None:
    """All prices of a subscription have one interval and one currency here."""
    rhythms = {
        (one["recurring"]["interval"], one["recurring"]["interval_count"], one["currency"])
        for one in prices
    }
    if len(rhythms) > 1:
        raise unsupported("subscriptions with different intervals or currencies", "items")


def _next_period(subscription: Json, item: Json) -> Json:
    start_at = item["current_period_end"]
    end_at = end_of_period(item["price"], subscription["billing_cycle_anchor"], start_at)
    return {**item, "current_period_start": start_at, "current_period_end": end_at}


def _apply_pending(world: World, before: Json) -> Json:
    after = {**before, **before["_pending"]["after"], "pending_update": None}
    del after["_pending"]
    events.changed(world, UPDATED, before, after)
    events.record(world, "customer.subscription.pending_update_applied", after)
    return after


def _mark_delinquent(world: World, identifier: str, *, is_delinquent: bool) -> None:
    customer = world.store.get(identifier) or {}
    if not customer.get("deleted"):
        after = {**customer, "delinquent": is_delinquent}
        events.changed(world, "customer.updated", customer, after)


NOTHING = (
    "application application_fee_percent billing_cycle_anchor_config billing_thresholds cancel_at"
    " canceled_at customer_account days_until_due default_source ended_at latest_invoice"
    " next_pending_invoice_item_invoice on_behalf_of pause_collection pending_invoice_item_interval"
    " pending_setup_intent pending_update schedule test_clock transfer_data trial_end trial_start"
)


def _new(world: World, wish: Start) -> Json:
    now = world.now()
    identifier = new_id("sub")
    check_same_rhythm([price for price, _ in wish.chosen])
    items = [
        new_item(identifier, price, quantity, (now, end_of_period(price, now, now)))
        for price, quantity in wish.chosen
    ]
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
        "currency": wish.chosen[0][0]["currency"],
        "customer": wish.customer,
        "default_payment_method": wish.method["id"] if wish.method else None,
        "default_tax_rates": [],
        "description": wish.description,
        "discounts": [],
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": listing(f"/v1/subscription_items?subscription={identifier}", items),
        "livemode": False,
        "metadata": wish.metadata,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "start_date": now,
        "status": "incomplete",
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    }
