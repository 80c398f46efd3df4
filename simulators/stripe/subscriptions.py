"""The subscription part of the API; `lifecycle` and `changes` hold what it does."""

from simulators.stripe import changes, lifecycle
from simulators.stripe.errors import StripeError, invalid, missing, required
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json
from simulators.stripe.world import Operation, Params, World, merge_metadata

STATUS_ALL, STATUS_ENDED = "all", "ended"


def create(world: World, params: Params) -> Json:
    customer = world.refer("customer", params["customer"], "customer")
    chosen = []
    for at, item in enumerate(params["items"]):
        if "price" not in item:
            raise required(f"items[{at}][price]")
        price = changes.recurring_price(world, item["price"], f"items[{at}][price]")
        chosen.append((price, item.get("quantity", 1)))
    wish = lifecycle.Start(
        customer=customer["id"],
        chosen=chosen,
        method=_method(world, params, customer["id"]),
        behavior=params.get("payment_behavior", "allow_incomplete"),
        metadata=merge_metadata({}, params),
        description=params.get("description"),
    )
    subscription, refusal = lifecycle.start(world, wish)
    if refusal and wish.behavior == "error_if_incomplete":
        refusal.keeps_changes = False
        raise refusal
    return subscription


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("subscription", identifier)


def update(world: World, params: Params, identifier: str) -> Json:
    before = world.need("subscription", identifier)
    if before["status"] in lifecycle.ENDED:
        raise invalid(
            "A canceled subscription can only update its cancellation_details and metadata."
        )
    behavior = params.get("payment_behavior", "allow_incomplete")
    if behavior == "pending_if_incomplete":
        changes.check_pending_params(params)
    outcome = changes.plan(world, before, changes.read(world, params))
    outcome.after |= _simple_changes(world, before, params)
    if before.get("_pending") and outcome.after["items"] != before["items"]:
        raise invalid("This subscription has a pending update; void its invoice first.")
    return changes.apply(world, before, outcome, behavior)


def cancel(world: World, params: Params, identifier: str) -> Json:
    subscription = world.need("subscription", identifier)
    if subscription["status"] in lifecycle.ENDED:
        raise missing("subscription", identifier)
    return lifecycle.end(world, subscription, details=params.get("cancellation_details"))


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
        prices = {item["price"]["id"] for item in lifecycle.items_of(subscription)}
        return (
            has_status(subscription)
            and ("price" not in params or params["price"] in prices)
            and within(subscription["created"], params.get("created"))
        )

    if "customer" in params:
        world.refer("customer", params["customer"], "customer")
    everything = world.store.every("subscription", params.get("customer"))
    return answer("/v1/subscriptions", params, everything, wanted)


def _method(world: World, params: Params, customer: str) -> Json | None:
    if "default_payment_method" not in params:
        return None
    name = "default_payment_method"
    method = world.refer("payment_method", params[name], name)
    if method["customer"] != customer:
        raise StripeError(
            f"The customer does not have a payment method with the ID {method['id']}. The payment"
            " method must be attached to the customer.",
            param=name,
            code="resource_missing",
        )
    return method


def _simple_changes(world: World, before: Json, params: Params) -> Json:
    """Return the fields that change without costing anything."""
    fields: Json = {"metadata": merge_metadata(before["metadata"], params)}
    if "description" in params:
        fields["description"] = params["description"]
    method = _method(world, params, before["customer"])
    if method:
        fields["default_payment_method"] = method["id"]
    details = {**before["cancellation_details"], **(params.get("cancellation_details") or {})}
    if params.get("cancel_at_period_end") and not before["cancel_at_period_end"]:
        details["reason"] = "cancellation_requested"
        end = lifecycle.items_of(before)[0]["current_period_end"]
        fields |= {"cancel_at_period_end": True, "cancel_at": end, "canceled_at": world.now()}
    elif params.get("cancel_at_period_end") is False:
        details["reason"] = None
        fields |= {"cancel_at_period_end": False, "cancel_at": None, "canceled_at": None}
    fields["cancellation_details"] = details
    return fields


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/subscriptions",
        run=create,
        supports="customer items.price items.quantity default_payment_method description metadata"
        " payment_behavior off_session expand",
        required="customer items",
    ),
    Operation(
        method="GET",
        path="/v1/subscriptions",
        run=list_subscriptions,
        supports=f"{LIST_PARAMS} customer status price created",
    ),
    Operation(method="GET", path="/v1/subscriptions/{}", run=retrieve, supports="expand"),
    Operation(
        method="POST",
        path="/v1/subscriptions/{}",
        run=update,
        supports=f"{changes.CHANGE_PARAMS} payment_behavior off_session metadata description"
        " cancel_at_period_end default_payment_method expand"
        " cancellation_details.comment cancellation_details.feedback",
    ),
    Operation(
        method="DELETE",
        path="/v1/subscriptions/{}",
        run=cancel,
        supports="expand cancellation_details.comment cancellation_details.feedback",
    ),
)
