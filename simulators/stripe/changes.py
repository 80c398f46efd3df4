"""Changing a subscription's prices: what it will be, what that costs, and paying for it."""

from dataclasses import dataclass, field

from simulators.stripe import catalogue, events, invoicing, lifecycle
from simulators.stripe.errors import StripeError, invalid, missing_reference, required, unsupported
from simulators.stripe.lifecycle import items_of, product_name, with_items
from simulators.stripe.lines import Line, as_invoice_item, for_period, remaining, unused
from simulators.stripe.store import Json
from simulators.stripe.world import Params, World

ITEM_PARAMS = "items.id items.price items.quantity items.deleted"
CHANGE_PARAMS = f"{ITEM_PARAMS} proration_behavior proration_date billing_cycle_anchor.type"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What somebody asked for; `at` is the moment that time is divided at."""

    items: list[Json]
    prorates: str
    resets_anchor: bool
    at: int


@dataclass(kw_only=True)
class Outcome:
    """The subscription after a change, and the lines that pay for it."""

    after: Json
    lines: list[Line] = field(default_factory=list)
    bills_now: bool = False


def read(world: World, params: Params) -> Change:
    return Change(
        items=params.get("items") or [],
        prorates=params.get("proration_behavior", "create_prorations"),
        resets_anchor=(params.get("billing_cycle_anchor") or {}).get("type") == "now",
        at=params.get("proration_date", world.now()),
    )


def plan(world: World, before: Json, change: Change) -> Outcome:
    """Work out the change; nothing is stored."""
    old = items_of(before)
    new = _chosen(world, before, change)
    lifecycle.check_same_rhythm([item["price"] for item in new])
    _check_date(change, old)
    old_rhythm, new_rhythm = (one[0]["price"]["recurring"] for one in (old, new))
    if change.resets_anchor or old_rhythm != new_rhythm:
        return _from_now_on(world, before, change, new)
    outcome = Outcome(after=with_items(before, new))
    if change.prorates != "none":
        outcome.lines = _rest_of_period(world, old, new, change.at)
        outcome.bills_now = change.prorates == "always_invoice" and bool(outcome.lines)
    return outcome


def apply(world: World, before: Json, outcome: Outcome, behavior: str) -> Json:
    """Store the change, collect what it costs now, and return the subscription.

    Raises:
        StripeError: 402, the card was refused and `behavior` is `error_if_incomplete`; nothing
            has changed then.
    """
    if not outcome.bills_now:
        now = world.now()
        for line in outcome.lines:
            waiting = as_invoice_item(line, before["customer"], now)
            events.created(world, "invoiceitem.created", waiting)
        return events.changed(world, lifecycle.UPDATED, before, outcome.after)
    if behavior == "default_incomplete":
        raise unsupported("payment_behavior=default_incomplete on updates", "payment_behavior")
    moments = (world.now(), world.now())
    invoice = invoicing.finalize(
        world,
        invoicing.draft(
            world, outcome.after, outcome.lines, reason="subscription_update", period=moments
        ),
    )
    after = {**outcome.after, "latest_invoice": invoice["id"]}
    method = lifecycle.method_of(world, after)
    invoice, refusal = invoicing.collect(world, invoice, method, on_session=False)
    if refusal is None:
        after["status"] = "active"
        return events.changed(world, lifecycle.UPDATED, before, after)
    return _refused(world, before, after, invoice, (refusal, behavior))


def check_pending_params(params: Params) -> None:
    """Stripe takes only what changes the price together with `pending_if_incomplete`."""
    allowed = {"items", "proration_behavior", "proration_date", "billing_cycle_anchor"}
    allowed |= {"payment_behavior", "expand", "off_session"}
    for name in params.keys() - allowed:
        raise invalid(
            f"You cannot pass `{name}` together with `payment_behavior=pending_if_incomplete`."
            " See https://stripe.com/docs/billing/subscriptions/pending-updates-reference.",
            name,
        )


def _refused(
    world: World, before: Json, after: Json, invoice: Json, why: tuple[StripeError, str]
) -> Json:
    refusal, behavior = why
    if behavior == "error_if_incomplete":
        refusal.keeps_changes = False
        raise refusal
    if behavior == "pending_if_incomplete":
        return _wait(world, before, after, invoice)
    events.changed(world, lifecycle.UPDATED, before, after)
    updated = lifecycle.settle(world, invoice, refusal)
    lifecycle.retry_later(world, invoice)
    return updated


def _wait(world: World, before: Json, after: Json, invoice: Json) -> Json:
    """Leave all as it was until the invoice is paid, at most 23 hours."""
    anchor = after["billing_cycle_anchor"]
    waiting = {
        **before,
        "latest_invoice": invoice["id"],
        "pending_update": {
            "billing_cycle_anchor": anchor if anchor != before["billing_cycle_anchor"] else None,
            "expires_at": world.now() + lifecycle.INCOMPLETE_SECONDS,
            "subscription_items": items_of(after),
            "trial_end": None,
            "trial_from_plan": None,
        },
        "_pending": {
            "invoice": invoice["id"],
            "after": {"items": after["items"], "billing_cycle_anchor": anchor},
        },
    }
    return events.changed(world, lifecycle.UPDATED, before, waiting)


def _from_now_on(world: World, before: Json, change: Change, new: list[Json]) -> Outcome:
    """Begin a whole new period now; the rest of the old one is given back unless told not to."""
    now = world.now()
    renewed = [
        {
            **item,
            "current_period_start": now,
            "current_period_end": lifecycle.end_of_period(item["price"], now, now),
        }
        for item in new
    ]
    back = [
        unused(item, product_name(world, item), change.at)
        for item in items_of(before)
        if change.prorates != "none"
    ]
    ahead = [
        for_period(item, product_name(world, item), now, item["current_period_end"])
        for item in renewed
    ]
    after = {**with_items(before, renewed), "billing_cycle_anchor": now}
    return Outcome(after=after, lines=[*back, *ahead], bills_now=True)


def _rest_of_period(world: World, old: list[Json], new: list[Json], at: int) -> list[Line]:
    kept = {(one["id"], one["price"]["id"], one["quantity"]) for one in old}
    kept &= {(one["id"], one["price"]["id"], one["quantity"]) for one in new}

    def differs(item: Json) -> bool:
        return (item["id"], item["price"]["id"], item["quantity"]) not in kept

    return [
        *(unused(one, product_name(world, one), at) for one in old if differs(one)),
        *(remaining(one, product_name(world, one), at) for one in new if differs(one)),
    ]


def _chosen(world: World, before: Json, change: Change) -> list[Json]:
    """Return the items as they will be."""
    items = {item["id"]: item for item in items_of(before)}
    for at, wish in enumerate(change.items):
        where = f"items[{at}]"
        if "id" not in wish:
            added = _added(world, before, wish, where)
            items[added["id"]] = added
        elif wish["id"] not in items:
            raise missing_reference("subscription item", wish["id"], f"{where}[id]")
        elif wish.get("deleted"):
            del items[wish["id"]]
        else:
            items[wish["id"]] = _altered(world, items[wish["id"]], wish, where)
    if not items:
        raise invalid("A subscription must have at least one active plan.", "items")
    return list(items.values())


def _added(world: World, before: Json, wish: Json, where: str) -> Json:
    if "price" not in wish:
        raise required(f"{where}[price]")
    price = recurring_price(world, wish["price"], f"{where}[price]")
    current = items_of(before)
    if any(item["price"]["id"] == price["id"] for item in current):
        raise invalid(
            f"Cannot add multiple subscription items with the same plan: {price['id']}.",
            f"{where}[price]",
        )
    period = (current[0]["current_period_start"], current[0]["current_period_end"])
    return lifecycle.new_item(before["id"], price, wish.get("quantity", 1), period)


def _altered(world: World, item: Json, wish: Json, where: str) -> Json:
    altered = {**item, "quantity": wish.get("quantity", item["quantity"])}
    if "price" in wish:
        price = recurring_price(world, wish["price"], f"{where}[price]")
        altered |= {"price": price, "plan": lifecycle.plan(price)}
    return altered


def recurring_price(world: World, identifier: str, param: str) -> Json:
    price = catalogue.usable_price(world, identifier, param)
    if price["type"] != "recurring":
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices with"
            " `type=recurring`.",
            param,
        )
    return price


def _check_date(change: Change, items: list[Json]) -> None:
    first = items[0]
    if not first["current_period_start"] <= change.at <= first["current_period_end"]:
        raise invalid(
            "Cannot specify `proration_date` outside of current period.", "proration_date"
        )
