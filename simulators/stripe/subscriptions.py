"""The subscription part of the API; `starting`, `lifecycle` and `changes` hold what it does."""

from simulators.stripe import (
    catalogue,
    changes,
    discounts,
    events,
    invoicing,
    lifecycle,
    methods,
    payments,
    shapes,
    starting,
)
from simulators.stripe.cards import Presence
from simulators.stripe.errors import invalid, missing, required, unsupported
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.shapes import items_of
from simulators.stripe.starting import Start
from simulators.stripe.store import Json
from simulators.stripe.world import Operation, Params, World, merge_metadata

STATUS_ALL, STATUS_ENDED = "all", "ended"
SAVED_CARD = "payment_settings.save_default_payment_method"
COMMON_PARAMS = (
    "default_payment_method description metadata payment_behavior off_session proration_behavior"
    f" cancel_at cancel_at_period_end {discounts.WISHES} {SAVED_CARD}"
    " trial_settings.end_behavior.missing_payment_method expand"
)


def create(world: World, params: Params) -> Json:
    wish = read_start(world, params)
    subscription, refusal = lifecycle.start(world, wish)
    if refusal and (refusal.message == payments.NO_CARD or wish.behavior == "error_if_incomplete"):
        refusal.keeps_changes = False  # then Stripe makes nothing at all
        raise refusal
    ends = _end_wish(subscription, params, world.now())
    return events.changed(world, lifecycle.UPDATED, subscription, {**subscription, **ends})


def read_start(world: World, params: Params) -> Start:
    """Return what the parameters ask to be started."""
    if params.get("payment_behavior") == "pending_if_incomplete":
        raise invalid(
            "`pending_if_incomplete` can only be used when updating a subscription.",
            "payment_behavior",
        )
    customer = world.refer("customer", params["customer"], "customer")
    chosen = _chosen(world, params)
    fields: Json = {
        "metadata": merge_metadata({}, params),
        "description": params.get("description"),
        **_common_fields(params),
    }
    amount = sum(price["unit_amount"] * quantity for price, quantity in chosen)
    return Start(
        customer=customer,
        chosen=chosen,
        timing=starting.read_timing(world, params, chosen[0][0]),
        method=methods.of_customer(world, params, "default_payment_method", customer["id"]),
        behavior=params.get("payment_behavior", "allow_incomplete"),
        prorates=params.get("proration_behavior") != "none",
        discounts=discounts.read(world, params.get("discounts"), customer, amount),
        fields=fields,
    )


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("subscription", identifier)


def update(world: World, params: Params, identifier: str) -> Json:
    before = world.need("subscription", identifier)
    if before["status"] in lifecycle.ENDED:
        return _update_ended(world, before, params)
    behavior = params.get("payment_behavior", "allow_incomplete")
    if behavior == "pending_if_incomplete":
        changes.check_pending_params(params)
    before = _with_discounts(world, before, params)
    outcome = changes.plan(world, before, changes.read(world, params))
    if before.get("_pending") and outcome.bills_now:
        raise invalid("This subscription has a pending update; void its invoice first.")
    outcome.after |= _simple_changes(world, before, params)
    return changes.apply(world, before, outcome, behavior)


def cancel(world: World, params: Params, identifier: str) -> Json:
    subscription = world.need("subscription", identifier)
    if subscription["status"] in lifecycle.ENDED:
        raise missing("subscription", identifier)
    if params.get("prorate"):
        for line in changes.give_back_rest(world, subscription, world.now()):
            changes.wait_for_next_invoice(world, line, subscription)
    if params.get("invoice_now"):
        _invoice_the_waiting(world, subscription)
        subscription = world.need("subscription", identifier)
    return lifecycle.end(world, subscription, details=params.get("cancellation_details"))


def resume(world: World, params: Params, identifier: str) -> Json:
    """Go on with a subscription that was paused at the end of its trial."""
    before = world.need("subscription", identifier)
    if before["status"] != "paused":
        raise invalid("You can only resume subscriptions with the status `paused`.")
    if (params.get("billing_cycle_anchor") or {}).get("type", "now") != "now":
        raise unsupported("resuming without a new billing cycle", "billing_cycle_anchor")
    change = changes.Change(items=[], prorates="none", resets_anchor=True, at=world.now())
    outcome = changes.plan(world, _in_period(world, before), change)
    outcome.after["status"] = "active"
    outcome.after.pop("status_details", None)
    behavior = params.get("payment_behavior", "resume_on_payment_attempt")
    if behavior == "resume_on_payment_success":
        behavior = "error_if_incomplete"
    resumed = changes.apply(world, before, outcome, behavior)
    events.record(world, "customer.subscription.resumed", resumed)
    return resumed


def list_subscriptions(world: World, params: Params) -> Json:
    status = params.get("status")

    def has_status(subscription: Json) -> bool:
        has_ended = subscription["status"] in lifecycle.ENDED
        if status is None:
            return subscription["status"] != "canceled"
        if status == STATUS_ENDED:
            return has_ended
        return status in {STATUS_ALL, subscription["status"]}

    def wanted(subscription: Json) -> bool:
        prices = {item["price"]["id"] for item in items_of(subscription)}
        return (
            has_status(subscription)
            and is_on_clock(subscription, params)
            and ("price" not in params or params["price"] in prices)
            and within(subscription["created"], params.get("created"))
        )

    if "customer" in params:
        world.refer("customer", params["customer"], "customer")
    everything = world.store.every("subscription", params.get("customer"))
    return answer("/v1/subscriptions", params, everything, wanted)


def is_on_clock(found: Json, params: Params) -> bool:
    """Stripe lists what belongs to a test clock only when that clock or its customer is named."""
    if "test_clock" in params:
        return found.get("test_clock") == params["test_clock"]
    return "customer" in params or found.get("test_clock") is None


def _chosen(world: World, params: Params) -> list[tuple[Json, int]]:
    chosen = []
    for at, item in enumerate(params["items"]):
        if "price" not in item:
            raise required(f"items[{at}][price]")
        price = catalogue.recurring_price(world, item["price"], f"items[{at}][price]")
        chosen.append((price, item.get("quantity", 1)))
    if not chosen:
        raise required("items")
    return chosen


def _common_fields(params: Params) -> Json:
    """Return the fields that both a new and an existing subscription take over unchanged."""
    fields: Json = {}
    if "trial_settings" in params:
        fields["trial_settings"] = params["trial_settings"]
    wish = params.get("payment_settings") or {}
    if "save_default_payment_method" in wish:
        fields["payment_settings"] = {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": wish["save_default_payment_method"],
        }
    return fields


def _with_discounts(world: World, before: Json, params: Params) -> Json:
    """Give and take the discounts that an update names; return the subscription with them."""
    if "discounts" not in params:
        return before
    wishes = params["discounts"] or []
    kept = discounts.kept(world, wishes, before["discounts"])
    fresh = [wish for wish in wishes if "discount" not in wish]
    customer = world.store.get(before["customer"])
    amount = sum(one["price"]["unit_amount"] * one["quantity"] for one in items_of(before))
    chosen = discounts.read(world, fresh, customer, amount)
    discounts.take_away(world, [one for one in before["discounts"] if one not in kept])
    made = discounts.give(world, chosen, customer=before["customer"], subscription=before["id"])
    after = {**before, "discounts": [*kept, *made]}
    return events.changed(world, lifecycle.UPDATED, before, after)


def _simple_changes(world: World, before: Json, params: Params) -> Json:
    """Return the fields that change without costing anything."""
    fields: Json = {
        "metadata": merge_metadata(before["metadata"], params),
        **_common_fields(params),
        **_end_wish(before, params, world.now()),
    }
    if "description" in params:
        fields["description"] = params["description"]
    method = methods.of_customer(world, params, "default_payment_method", before["customer"])
    if method:
        fields["default_payment_method"] = method["id"]
    if "pause_collection" in params:
        wish = params["pause_collection"]
        fields["pause_collection"] = wish and {
            "behavior": wish["behavior"],
            "resumes_at": wish.get("resumes_at"),
        }
    return fields


def _end_wish(before: Json, params: Params, now: int) -> Json:
    """Return what an update says about the subscription's end."""
    details = {**before["cancellation_details"], **(params.get("cancellation_details") or {})}
    fields: Json = {"cancellation_details": details}
    period_end = shapes.period_of(before)[1]
    wishes_end = params.get("cancel_at_period_end")
    if wishes_end is not None and params.get("cancel_at") is not None:
        raise invalid(
            "You may only specify one of these parameters: cancel_at, cancel_at_period_end."
        )
    if wishes_end and not before["cancel_at_period_end"]:
        details["reason"] = "cancellation_requested"
        fields |= {"cancel_at_period_end": True, "cancel_at": period_end, "canceled_at": now}
    elif wishes_end is False or ("cancel_at" in params and params["cancel_at"] is None):
        details["reason"] = None
        fields |= {"cancel_at_period_end": False, "cancel_at": None, "canceled_at": None}
    elif params.get("cancel_at") is not None:
        details["reason"] = "cancellation_requested"
        moment = _end_moment(params, period_end, now)
        fields |= {"cancel_at_period_end": False, "cancel_at": moment, "canceled_at": now}
    return fields


def _end_moment(params: Params, period_end: int, now: int) -> int:
    wanted = params["cancel_at"]
    if wanted in {"min_period_end", "max_period_end"}:
        return period_end
    if wanted <= now:
        raise invalid("The cancel_at timestamp must be in the future.", "cancel_at")
    if wanted != period_end and params.get("proration_behavior") != "none":
        raise unsupported(
            "a cancel_at within a period with prorations; pass proration_behavior=none", "cancel_at"
        )
    return wanted


def _update_ended(world: World, before: Json, params: Params) -> Json:
    if params.keys() - {"metadata", "cancellation_details", "expand"}:
        raise invalid(
            "A canceled subscription can only update its cancellation_details and metadata."
        )
    details = {**before["cancellation_details"], **(params.get("cancellation_details") or {})}
    after = {
        **before,
        "metadata": merge_metadata(before["metadata"], params),
        "cancellation_details": details,
    }
    return events.changed(world, lifecycle.UPDATED, before, after)


def _invoice_the_waiting(world: World, subscription: Json) -> None:
    """Make a last invoice of what waits for the next one; credit goes to the balance."""
    if next(invoicing.waiting_items(world, subscription), None) is None:
        return
    bill = invoicing.bill(world, subscription, [], "subscription_update")
    invoice = invoicing.finalize(world, invoicing.draft(world, bill))
    method = lifecycle.method_of(world, subscription)
    invoice, _ = invoicing.collect(world, invoice, method, Presence.OFF)
    world.store.put({**subscription, "latest_invoice": invoice["id"]})


def _in_period(world: World, paused: Json) -> Json:
    """Return a paused subscription as if its last period reached until now."""
    return shapes.with_period(paused, shapes.period_of(paused)[0], world.now())


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/subscriptions",
        run=create,
        supports=f"customer items.price items.quantity {starting.TIMING_PARAMS} {COMMON_PARAMS}",
        required="customer items",
    ),
    Operation(
        method="GET",
        path="/v1/subscriptions",
        run=list_subscriptions,
        supports=f"{LIST_PARAMS} customer status price created test_clock",
    ),
    Operation(method="GET", path="/v1/subscriptions/{}", run=retrieve, supports="expand"),
    Operation(
        method="POST",
        path="/v1/subscriptions/{}",
        run=update,
        supports=f"{changes.CHANGE_PARAMS} {COMMON_PARAMS} discounts.discount"
        " cancellation_details.comment cancellation_details.feedback"
        " pause_collection.behavior pause_collection.resumes_at",
    ),
    Operation(
        method="DELETE",
        path="/v1/subscriptions/{}",
        run=cancel,
        supports="expand cancellation_details.comment cancellation_details.feedback prorate"
        " invoice_now",
    ),
    Operation(
        method="POST",
        path="/v1/subscriptions/{}/resume",
        run=resume,
        supports="billing_cycle_anchor.type payment_behavior expand",
    ),
)
