"""Changing a subscription's prices or dates: what it will be, what that costs, paying for it."""

from dataclasses import dataclass, field

from simulators.stripe import discounts, events, invoicing, lifecycle, shapes, starting
from simulators.stripe.cards import Presence
from simulators.stripe.catalogue import recurring_price
from simulators.stripe.errors import StripeError, invalid, missing_reference, required
from simulators.stripe.lines import (
    Line,
    as_invoice_item,
    as_line_item,
    billed_by,
    for_period,
    for_trial,
    remaining,
    unused,
)
from simulators.stripe.shapes import items_of, product_name, with_items
from simulators.stripe.store import Json
from simulators.stripe.world import Params, World

ITEM_PARAMS = "items.id items.price items.quantity items.deleted"
CHANGE_PARAMS = (
    f"{ITEM_PARAMS} proration_behavior proration_date billing_cycle_anchor.type trial_end"
)
NO_PERIOD: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What somebody asked for; `at` is the moment that time is divided at."""

    items: list[Json]
    prorates: str
    resets_anchor: bool
    at: int
    trial_end: int | str | None = None


@dataclass(kw_only=True)
class Outcome:
    """The subscription after a change, and the lines that pay for it."""

    after: Json
    lines: list[Line] = field(default_factory=list)
    bills_now: bool = False


def read(world: World, params: Params) -> Change:
    anchor = params.get("billing_cycle_anchor") or {}
    return Change(
        items=params.get("items") or [],
        prorates=params.get("proration_behavior", "create_prorations"),
        resets_anchor=anchor.get("type") == "now",
        at=params.get("proration_date", world.now()),
        trial_end=params.get("trial_end"),
    )


def plan(world: World, before: Json, change: Change) -> Outcome:
    """Work out the change; nothing is stored."""
    old = items_of(before)
    new = _chosen(world, before, change)
    shapes.check_same_rhythm([item["price"] for item in new])
    if change.at != world.now():
        _check_date(change, old)
    trial_end = starting.check_trial_end(world.now(), change.trial_end)
    if trial_end:
        return _into_trial(world, before, change, with_items(before, new), trial_end)
    old_rhythm, new_rhythm = (one[0]["price"]["recurring"] for one in (old, new))
    ends_trial = change.trial_end == "now" and before["status"] == "trialing"
    if change.resets_anchor or ends_trial or old_rhythm != new_rhythm:
        return _from_now_on(world, before, change, with_items(before, new))
    outcome = Outcome(after=with_items(before, new))
    if change.prorates != "none" and before["status"] != "trialing":
        _rest_of_period(world, before, outcome, change.at)
        outcome.bills_now = change.prorates == "always_invoice" and bool(outcome.lines)
    return outcome


def apply(world: World, before: Json, outcome: Outcome, behavior: str) -> Json:
    """Store the change, collect what it costs now, and return the subscription.

    Raises:
        StripeError: 402, the card was refused and `behavior` is `error_if_incomplete`; nothing
            has changed then.
    """
    if not outcome.bills_now:
        for line in outcome.lines:
            wait_for_next_invoice(world, line, before)
        return events.changed(world, lifecycle.UPDATED, before, outcome.after)
    bill = invoicing.bill(world, outcome.after, outcome.lines, "subscription_update")
    invoice = invoicing.draft(world, bill)
    after = {**outcome.after, "latest_invoice": invoice["id"]}
    after["_billed"] = {**(after.get("_billed") or {}), **billed_by(invoice)}
    invoice = invoicing.finalize(world, invoice)
    before = world.store.get(before["id"]) or before  # discounts may have been used up
    after["discounts"] = before["discounts"]
    if behavior == "default_incomplete" and invoice["status"] == "open":
        return events.changed(world, lifecycle.UPDATED, before, {**after, "status": "past_due"})
    method = lifecycle.method_of(world, after)
    invoice, refusal = invoicing.collect(world, invoice, method, Presence.OFF)
    if refusal is None:
        after["status"] = lifecycle.status_when_paid(world, after)
        return events.changed(world, lifecycle.UPDATED, before, after)
    return _refused(world, before, after, invoice, (refusal, behavior))


def wait_for_next_invoice(world: World, line: Line, subscription: Json) -> None:
    """Keep a line until the subscription's next invoice collects it."""
    waiting = as_invoice_item(line, subscription, world.now())
    events.created(world, "invoiceitem.created", waiting)


def give_back_rest(world: World, subscription: Json, at: int) -> list[Line]:
    """Return the lines that credit what is left of the current period."""
    billed = subscription.get("_billed") or {}
    lines = [
        unused(
            item,
            product_name(world, item),
            billed.get(item["id"], starting.period_cost(subscription, item)),
            at,
        )
        for item in items_of(subscription)
    ]
    return [line for line in lines if line.amount]


def check_pending_params(params: Params) -> None:
    """Stripe takes only what changes the price together with `pending_if_incomplete`."""
    allowed = {"items", "proration_behavior", "proration_date", "billing_cycle_anchor"}
    allowed |= {"payment_behavior", "expand", "off_session", "trial_end"}
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
    anchor, trial_end = after["billing_cycle_anchor"], after["trial_end"]
    names = ("items", "billing_cycle_anchor", "trial_end", "trial_start", "_billed")
    waiting = {
        **before,
        "latest_invoice": invoice["id"],
        "pending_update": {
            "billing_cycle_anchor": anchor if anchor != before["billing_cycle_anchor"] else None,
            "expires_at": world.now() + lifecycle.INCOMPLETE_SECONDS,
            "subscription_items": items_of(after),
            "trial_end": trial_end if trial_end != before["trial_end"] else None,
            "trial_from_plan": None,
        },
        "_pending": {
            "invoice": invoice["id"],
            "after": {name: after[name] for name in names} | {"status": "active"},
        },
    }
    return events.changed(world, lifecycle.UPDATED, before, waiting)


def _from_now_on(world: World, before: Json, change: Change, changed: Json) -> Outcome:
    """Begin a whole new period now; the rest of the old one is given back unless told not to."""
    now = world.now()
    after = {**changed, "billing_cycle_anchor": now, "billing_cycle_anchor_config": None}
    after.pop("_share", None)
    end = shapes.next_end(after, items_of(after)[0]["price"], now)
    after = shapes.with_period(after, now, end)
    if before["status"] == "trialing":
        after |= {"status": "active", "trial_end": now}
    back = give_back_rest(world, before, change.at) if change.prorates != "none" else []
    ahead = lifecycle.period_lines(world, after)
    return Outcome(after=after, lines=[*back, *ahead], bills_now=True)


def _into_trial(
    world: World, before: Json, change: Change, changed: Json, trial_end: int
) -> Outcome:
    """Give time for nothing: until then nothing is billed, and from then on it is billed anew."""
    now = world.now()
    is_in_trial = before["status"] == "trialing"
    began = shapes.period_of(before)[0] if is_in_trial else now
    after = {
        **shapes.with_period(changed, began, trial_end),
        "billing_cycle_anchor": trial_end,
        "billing_cycle_anchor_config": None,
        "status": "trialing",
        "trial_end": trial_end,
        "trial_start": before["trial_start"] if is_in_trial else now,
    }
    after.pop("_share", None)
    after.pop("_is_warned", None)
    if is_in_trial:
        return Outcome(after=after)
    back = give_back_rest(world, before, change.at) if change.prorates != "none" else []
    free = [for_trial(item, product_name(world, item)) for item in items_of(after)]
    return Outcome(after=after, lines=[*back, *free], bills_now=True)


def _rest_of_period(world: World, before: Json, outcome: Outcome, at: int) -> None:
    """Credit what was billed for items that change, and charge the rest of what they become."""
    old, new = items_of(before), items_of(outcome.after)
    marks = [
        {(one["id"], one["price"]["id"], one["quantity"]) for one in each} for each in (old, new)
    ]
    kept = marks[0] & marks[1]
    leaving = [one for one in old if (one["id"], one["price"]["id"], one["quantity"]) not in kept]
    coming = [one for one in new if (one["id"], one["price"]["id"], one["quantity"]) not in kept]
    outcome.lines = give_back_rest(world, with_items(before, leaving), at)
    prices = _net_prices(world, outcome.after, coming)
    outcome.lines += [
        remaining(one, product_name(world, one), prices[one["id"]], at) for one in coming
    ]
    outcome.after["_billed"] = {**(before.get("_billed") or {}), **prices}


def _net_prices(world: World, subscription: Json, items: list[Json]) -> dict[str, int]:
    """Return what each item costs in the whole current period, after discounts."""
    lines: list[Json] = []
    for item in items:
        line = as_line_item(for_period(item, "", *NO_PERIOD), "", {})
        lines.append({**line, "amount": starting.period_cost(subscription, item)})
    discounts.apply(lines, discounts.in_force(world, subscription["discounts"], world.now()))
    return {
        item["id"]: line["amount"] - sum(one["amount"] for one in line["discount_amounts"])
        for item, line in zip(items, lines, strict=True)
    }


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
    if any(item["price"]["id"] == price["id"] for item in items_of(before)):
        raise invalid(
            f"Cannot add multiple subscription items with the same plan: {price['id']}.",
            f"{where}[price]",
        )
    quantity = wish.get("quantity", 1)
    return shapes.item(before["id"], price, quantity, shapes.period_of(before))


def _altered(world: World, item: Json, wish: Json, where: str) -> Json:
    altered = {**item, "quantity": wish.get("quantity", item["quantity"])}
    if "price" in wish:
        price = recurring_price(world, wish["price"], f"{where}[price]")
        altered |= {"price": price, "plan": shapes.plan(price)}
    return altered


def _check_date(change: Change, items: list[Json]) -> None:
    first = items[0]
    if not first["current_period_start"] <= change.at <= first["current_period_end"]:
        raise invalid(
            "Cannot specify `proration_date` outside of current period.", "proration_date"
        )
