"""Refunds: money given back, all or a part of a charge."""

from simulators.stripe import events
from simulators.stripe.errors import invalid
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata


def create(world: World, params: Params) -> Json:
    charge = _charge(world, params)
    left = charge["amount"] - charge["amount_refunded"]
    if charge["refunded"]:
        raise invalid(
            f"Charge {charge['id']} has already been refunded.", None, "charge_already_refunded"
        )
    if charge["disputed"] and not _may_refund(world, charge):
        raise invalid(f"Charge {charge['id']} has been charged back.", None, "charge_disputed")
    amount = params.get("amount", left)
    if amount < 1:
        raise invalid("Invalid positive integer", "amount", "parameter_invalid_integer")
    if amount > left:
        raise invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            "amount",
        )
    return _give_back(world, charge, amount, params)


def update(world: World, params: Params, identifier: str) -> Json:
    before = world.need("refund", identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    return events.changed(world, "refund.updated", before, after)


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("refund", identifier)


def list_refunds(world: World, params: Params) -> Json:
    intent = params.get("payment_intent")

    def wanted(one: Json) -> bool:
        is_asked_for = intent in {None, one["payment_intent"]}
        return is_asked_for and within(one["created"], params.get("created"))

    shelf = world.store.every("refund", parent=params.get("charge"))
    return answer("/v1/refunds", params, shelf, wanted)


def bounce(world: World, refund: Json) -> Json:
    """Have a bank reject a refund days later, for the card or its account is gone.

    Raises:
        StripeError: it was rejected already.
    """
    if refund["status"] == "failed":
        raise invalid(f"Refund {refund['id']} has already failed.")
    charge = world.need("charge", refund["charge"])
    left = charge["amount_refunded"] - refund["amount"]
    world.store.put({**charge, "amount_refunded": left, "refunded": False})
    failed = {**refund, "status": "failed", "failure_reason": "expired_or_canceled_card"}
    return events.changed(world, "refund.failed", refund, failed)


def _give_back(world: World, charge: Json, amount: int, params: Params) -> Json:
    refund: Json = {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": world.wall(),
        "currency": charge["currency"],
        "customer": charge["customer"],
        "destination_details": {
            "card": {
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": merge_metadata({}, params),
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
    events.created(world, "refund.created", refund)
    total = charge["amount_refunded"] + amount
    refunded = {**charge, "amount_refunded": total, "refunded": total == charge["amount"]}
    events.changed(world, "charge.refunded", charge, refunded)
    return refund


def _may_refund(world: World, charge: Json) -> bool:
    return all(
        one["is_charge_refundable"] for one in world.store.every("dispute", parent=charge["id"])
    )


def _charge(world: World, params: Params) -> Json:
    if "charge" in params:
        charge = world.refer("charge", params["charge"], "charge")
        if not charge["paid"]:
            raise invalid(f"Charge {charge['id']} failed, so it cannot be refunded.", "charge")
        return charge
    if "payment_intent" not in params:
        raise invalid(
            "One of the following params should be provided for this request: payment_intent or"
            " charge.",
            None,
            "parameter_missing",
        )
    intent = world.refer("payment_intent", params["payment_intent"], "payment_intent")
    if intent["status"] != "succeeded":
        raise invalid(
            f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
            None,
            "payment_intent_unexpected_state",
        )
    return world.refer("charge", intent["latest_charge"], "payment_intent")


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/refunds",
        run=create,
        supports="charge payment_intent amount reason metadata expand",
    ),
    Operation(method="GET", path="/v1/refunds/{}", run=retrieve, supports="expand"),
    Operation(method="POST", path="/v1/refunds/{}", run=update, supports="metadata expand"),
    Operation(
        method="GET",
        path="/v1/refunds",
        run=list_refunds,
        supports=f"{LIST_PARAMS} charge payment_intent created",
    ),
)
