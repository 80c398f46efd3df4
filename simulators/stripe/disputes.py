"""Disputes and early fraud warnings: what a cardholder or their bank says of a charge later."""

from simulators.stripe import events
from simulators.stripe.clock import DAY
from simulators.stripe.errors import invalid
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

KIND, WARNING = "dispute", "radar.early_fraud_warning"
DAYS_TO_ANSWER = 9  # Stripe gives 7 to 21, depending on the network
WON, LOST = "won", "lost"
CLOSED = frozenset({WON, LOST, "warning_closed"})
VERDICTS = {"winning_evidence": WON, "losing_evidence": LOST}  # Stripe's words for test disputes
TEXTS = (
    "access_activity_log billing_address cancellation_policy_disclosure cancellation_rebuttal"
    " customer_email_address customer_name customer_purchase_ip duplicate_charge_explanation"
    " duplicate_charge_id product_description refund_policy_disclosure refund_refusal_explanation"
    " service_date shipping_address shipping_carrier shipping_date shipping_tracking_number"
    " uncategorized_text"
)
FILES = (
    "cancellation_policy customer_communication customer_signature duplicate_charge_documentation"
    " receipt refund_policy service_documentation shipping_documentation uncategorized_file"
)


def follow(world: World, charge: Json, afterwards: str) -> None:
    """Let happen what a test card brings after it paid."""
    if afterwards == "dispute":
        open_dispute(world, charge)
    elif afterwards == "warning":
        warn(world, charge)


def open_dispute(world: World, charge: Json, reason: str = "fraudulent") -> Json:
    """Have a cardholder take the money back.

    Raises:
        StripeError: there is nothing to take back, or it was done already.
    """
    if not charge["paid"] or charge["disputed"]:
        raise invalid(f"Charge {charge['id']} cannot be disputed.", "charge")
    disputed = {**charge, "disputed": True}
    world.store.put(disputed)
    brand = charge["payment_method_details"]["card"]["brand"]
    dispute: Json = {
        "id": new_id("du"),
        "object": KIND,
        "amount": charge["amount"] - charge["amount_refunded"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": world.wall(),
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(f"{TEXTS} {FILES}".split()), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": world.wall() + DAYS_TO_ANSWER * DAY,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": brand,
                "case_type": "chargeback",
                "network": brand,
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": reason,
        "status": "needs_response",
    }
    events.created(world, "charge.dispute.created", dispute)
    events.record(world, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def close(world: World, dispute: Json, status: str) -> Json:
    """Decide a dispute; money that was won comes back.

    Raises:
        StripeError: it has been decided before.
    """
    if dispute["status"] in CLOSED:
        raise invalid("This dispute is already closed")
    closed = {**dispute, "status": status}
    world.store.put(closed)
    events.record(world, "charge.dispute.closed", closed)
    if status == WON:
        events.record(world, "charge.dispute.funds_reinstated", closed)
    return closed


def overdue(world: World, dispute: Json) -> None:
    """Lose a dispute that nobody answered in time."""
    details = {**dispute["evidence_details"], "past_due": True}
    close(world, {**dispute, "evidence_details": details}, LOST)


def warn(world: World, charge: Json) -> Json:
    """Have the card's bank say that it suspects fraud; no money moves."""
    warning: Json = {
        "id": new_id("issfr"),
        "object": WARNING,
        "actionable": not charge["refunded"] and not charge["disputed"],
        "charge": charge["id"],
        "created": world.wall(),
        "fraud_type": "made_with_stolen_card",
        "livemode": False,
        "payment_intent": charge["payment_intent"],
    }
    return events.created(world, "radar.early_fraud_warning.created", warning)


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need(KIND, identifier)


def update(world: World, params: Params, identifier: str) -> Json:
    """Add evidence, and hand it in when told to; Stripe's two magic words decide a test dispute."""
    before = world.need(KIND, identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    given = params.get("evidence") or {}
    if given and before["status"] in CLOSED:
        raise invalid("This dispute is already closed")
    details = before["evidence_details"]
    after["evidence"] = {**before["evidence"], **given}
    has_evidence = any(after["evidence"][name] for name in TEXTS.split())
    after["evidence_details"] = {**details, "has_evidence": has_evidence}
    if given and params.get("submit", True):
        after["status"] = "under_review"
        after["evidence_details"] |= {
            "submission_count": details["submission_count"] + 1,
            "submission_method": "manual",
        }
    events.changed(world, "charge.dispute.updated", before, after)
    verdict = VERDICTS.get(after["evidence"]["uncategorized_text"] or "")
    is_decided = verdict and after["status"] == "under_review"
    return close(world, after, verdict) if verdict and is_decided else after


def close_operation(world: World, _params: Params, identifier: str) -> Json:
    """Accept that a dispute is lost."""
    return close(world, world.need(KIND, identifier), LOST)


def list_disputes(world: World, params: Params) -> Json:
    return _listed(world, params, KIND, "/v1/disputes")


def retrieve_warning(world: World, _params: Params, identifier: str) -> Json:
    return world.need(WARNING, identifier)


def list_warnings(world: World, params: Params) -> Json:
    return _listed(world, params, WARNING, "/v1/radar/early_fraud_warnings")


def _listed(world: World, params: Params, kind: str, url: str) -> Json:
    intent = params.get("payment_intent")

    def wanted(one: Json) -> bool:
        is_asked_for = intent in {None, one["payment_intent"]}
        return is_asked_for and within(one["created"], params.get("created"))

    shelf = world.store.every(kind, parent=params.get("charge"))
    return answer(url, params, shelf, wanted)


OPERATIONS = (
    Operation(method="GET", path="/v1/disputes/{}", run=retrieve, supports="expand"),
    Operation(
        method="GET",
        path="/v1/disputes",
        run=list_disputes,
        supports=f"{LIST_PARAMS} charge payment_intent created",
    ),
    Operation(
        method="POST",
        path="/v1/disputes/{}",
        run=update,
        supports="submit metadata expand " + " ".join(f"evidence.{name}" for name in TEXTS.split()),
    ),
    Operation(method="POST", path="/v1/disputes/{}/close", run=close_operation, supports="expand"),
    Operation(
        method="GET",
        path="/v1/radar/early_fraud_warnings/{}",
        run=retrieve_warning,
        supports="expand",
    ),
    Operation(
        method="GET",
        path="/v1/radar/early_fraud_warnings",
        run=list_warnings,
        supports=f"{LIST_PARAMS} charge payment_intent created",
    ),
)
