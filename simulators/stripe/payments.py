"""Cards on file, payment intents, charges and refunds: where money would move."""

from simulators.stripe import cards, events
from simulators.stripe.errors import (
    StripeError,
    card_declined,
    invalid,
    missing_reference,
    required,
)
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

EMPTY_BILLING_DETAILS: Json = {
    "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
    "email": None,
    "name": None,
    "phone": None,
    "tax_id": None,
}
NO_CARD = (
    "This customer has no attached payment source or default payment method. Please consider adding"
    " a default payment method."
)


def new_method(world: World, card: cards.Card, **billing: str | None) -> Json:
    """Return a card that is not yet anybody's, not stored."""
    return {
        "id": new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {**EMPTY_BILLING_DETAILS, **billing},
        "card": cards.details(card),
        "created": world.now(),
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def attach(world: World, method: Json, customer: str) -> Json:
    """Put a card on a customer's file.

    Raises:
        StripeError: 402, the card is one that its bank refuses at once.
    """
    card = cards.of(method)
    if card.at == "attach":
        raise card_declined(card.sentence, "card_declined", card.refusal)
    attached = {**method, "customer": customer}
    world.store.put(attached)
    events.record(world, "payment_method.attached", attached)
    return attached


def new_intent(world: World, customer: str, amount: int, currency: str, description: str) -> Json:
    identifier = new_id("pi")
    intent: Json = {
        "id": identifier,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": new_id(f"{identifier}_secret"),
        "confirmation_method": "automatic",
        "created": world.now(),
        "currency": currency,
        "customer": customer,
        "description": description,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "next_action": None,
        "payment_method": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "setup_future_usage": "off_session",
        "shipping": None,
        "statement_descriptor": None,
        "status": "requires_payment_method",
    }
    return events.created(world, "payment_intent.created", intent)


def attempt(
    world: World, intent: Json, method: Json | None, *, on_session: bool
) -> StripeError | None:
    """Try to take the intent's money from a card; return why not, after recording it."""
    if method is None:
        refusal = StripeError(NO_CARD, status=400, code="resource_missing", keeps_changes=True)
        _refused(world, intent, None, refusal, None)
        return refusal
    card = cards.of(method)
    if card.at == "attach" or (card.at == "later" and not on_session):
        charge = _charge(world, intent, method, card)
        events.created(world, "charge.failed", charge)
        refusal = card_declined(card.sentence, "card_declined", card.refusal, charge=charge["id"])
        _refused(world, intent, method, refusal, charge["id"])
        return refusal
    charge = _charge(world, intent, method, None)
    events.created(world, "charge.succeeded", charge)
    paid = {
        **intent,
        "amount_received": intent["amount"],
        "last_payment_error": None,
        "latest_charge": charge["id"],
        "payment_method": method["id"],
        "status": "succeeded",
    }
    world.store.put(paid)
    events.record(world, "payment_intent.succeeded", paid)
    return None


def cancel_intent(world: World, intent: Json, reason: str) -> None:
    gone = {
        **intent,
        "status": "canceled",
        "canceled_at": world.now(),
        "cancellation_reason": reason,
    }
    events.changed(world, "payment_intent.canceled", intent, gone)


def refund(world: World, params: Params) -> Json:
    charge = _charge_to_refund(world, params)
    left = charge["amount"] - charge["amount_refunded"]
    if charge["refunded"]:
        raise invalid(
            f"Charge {charge['id']} has already been refunded.", None, "charge_already_refunded"
        )
    amount = params.get("amount", left)
    if amount < 1:
        raise invalid("Invalid positive integer", "amount", "parameter_invalid_integer")
    if amount > left:
        raise invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            "amount",
        )
    made: Json = {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": world.now(),
        "currency": charge["currency"],
        "customer": charge["customer"],
        "destination_details": None,
        "metadata": merge_metadata({}, params),
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
    events.created(world, "refund.created", made)
    refunded = {
        **charge,
        "amount_refunded": charge["amount_refunded"] + amount,
        "refunded": amount == left,
    }
    events.changed(world, "charge.refunded", charge, refunded)
    return made


def attach_operation(world: World, params: Params, identifier: str) -> Json:
    if "customer" not in params:
        raise required("customer")
    customer = world.refer("customer", params["customer"], "customer")
    known = world.store.get(identifier, "payment_method")
    if known is None:
        if identifier not in cards.BY_PAYMENT_METHOD:
            raise missing_reference("PaymentMethod", identifier, "payment_method")
        known = new_method(world, cards.BY_PAYMENT_METHOD[identifier])
    if known["customer"] not in {None, customer["id"]}:
        raise invalid(
            "The payment method you provided has already been attached to a customer.",
            "payment_method",
        )
    return attach(world, known, customer["id"])


def detach(world: World, _params: Params, identifier: str) -> Json:
    method = world.need("payment_method", identifier)
    owner = world.store.get(method["customer"] or "", "customer")
    if owner is None:
        raise invalid(
            "The payment method you provided is not attached to a customer so detachment is"
            " impossible.",
            "payment_method",
        )
    settings = owner["invoice_settings"]
    if settings["default_payment_method"] == identifier:
        settings = {**settings, "default_payment_method": None}
        after = {**owner, "invoice_settings": settings}
        events.changed(world, "customer.updated", owner, after)
    loose = {**method, "customer": None}
    return events.changed(world, "payment_method.detached", method, loose)


def list_methods(world: World, params: Params, customer: str | None = None) -> Json:
    owner = customer or params.get("customer")
    if owner is None:
        raise required("customer")
    if customer:
        world.need("customer", customer)
    kind = params.get("type", "card")
    url = f"/v1/customers/{customer}/payment_methods" if customer else "/v1/payment_methods"
    shelf = world.store.every("payment_method", owner)
    return answer(url, params, shelf, lambda one: one["type"] == kind)


def list_refunds(world: World, params: Params) -> Json:
    exact = {key: params[key] for key in ("charge", "payment_intent") if key in params}

    def wanted(one: Json) -> bool:
        is_asked_for = all(one[key] == value for key, value in exact.items())
        return is_asked_for and within(one["created"], params.get("created"))

    return answer("/v1/refunds", params, world.store.every("refund"), wanted)


def list_charges(world: World, params: Params) -> Json:
    intent = params.get("payment_intent")

    def wanted(one: Json) -> bool:
        is_asked_for = intent in {None, one["payment_intent"]}
        return is_asked_for and within(one["created"], params.get("created"))

    shelf = world.store.every("charge", params.get("customer"))
    return answer("/v1/charges", params, shelf, wanted)


def list_intents(world: World, params: Params) -> Json:
    shelf = world.store.every("payment_intent", params.get("customer"))
    return answer(
        "/v1/payment_intents",
        params,
        shelf,
        lambda one: within(one["created"], params.get("created")),
    )


def _retrieve(kind: str, path: str) -> Operation:
    def run(world: World, _params: Params, identifier: str) -> Json:
        return world.need(kind, identifier)

    return Operation(method="GET", path=path, run=run, supports="expand")


def _charge(world: World, intent: Json, method: Json, refused: cards.Card | None) -> Json:
    amount = intent["amount"]
    return {
        "id": new_id("ch"),
        "object": "charge",
        "amount": amount,
        "amount_captured": 0 if refused else amount,
        "amount_refunded": 0,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "Stripe",
        "captured": refused is None,
        "created": world.now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": "card_declined" if refused else None,
        "failure_message": refused.sentence if refused else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "outcome": _outcome(refused),
        "paid": refused is None,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"card": _charged_card(method["card"], amount), "type": "card"},
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "failed" if refused else "succeeded",
    }


def _outcome(refused: cards.Card | None) -> Json:
    return {
        "advice_code": "try_again_later" if refused else None,
        "network_advice_code": None,
        "network_decline_code": "01" if refused else None,
        "network_status": "declined_by_network" if refused else "approved_by_network",
        "reason": refused.refusal if refused else None,
        "risk_level": "normal",
        "risk_score": 7,
        "seller_message": (
            "The bank did not return any further details with this decline."
            if refused
            else "Payment complete."
        ),
        "type": "issuer_declined" if refused else "authorized",
    }


def _charged_card(card: Json, amount: int) -> Json:
    same = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding")
    return {
        **{key: card[key] for key in (*same, "last4", "regulated_status", "wallet")},
        "amount_authorized": amount,
        "installments": None,
        "mandate": None,
        "network": card["brand"],
        "three_d_secure": None,
    }


def _refused(
    world: World, intent: Json, method: Json | None, refusal: StripeError, charge: str | None
) -> None:
    error: Json = {"message": refusal.message, "type": "card_error", **refusal.details}
    if refusal.kind != "card_error":
        error["type"] = "invalid_request_error"
    failed = {
        **intent,
        "last_payment_error": {**error, **({"payment_method": method} if method else {})},
        "latest_charge": charge,
        "payment_method": None,
        "status": "requires_payment_method",
    }
    world.store.put(failed)
    events.record(world, "payment_intent.payment_failed", failed)


def _charge_to_refund(world: World, params: Params) -> Json:
    if "charge" in params:
        return world.refer("charge", params["charge"], "charge")
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
    _retrieve("payment_method", "/v1/payment_methods/{}"),
    Operation(
        method="GET",
        path="/v1/payment_methods",
        run=list_methods,
        supports=f"{LIST_PARAMS} customer type",
    ),
    Operation(
        method="GET",
        path="/v1/customers/{}/payment_methods",
        run=list_methods,
        supports=f"{LIST_PARAMS} type",
    ),
    Operation(
        method="POST",
        path="/v1/payment_methods/{}/attach",
        run=attach_operation,
        supports="customer expand",
    ),
    Operation(method="POST", path="/v1/payment_methods/{}/detach", run=detach, supports="expand"),
    _retrieve("payment_intent", "/v1/payment_intents/{}"),
    Operation(
        method="GET",
        path="/v1/payment_intents",
        run=list_intents,
        supports=f"{LIST_PARAMS} customer created",
    ),
    _retrieve("charge", "/v1/charges/{}"),
    Operation(
        method="GET",
        path="/v1/charges",
        run=list_charges,
        supports=f"{LIST_PARAMS} customer payment_intent created",
    ),
    _retrieve("refund", "/v1/refunds/{}"),
    Operation(
        method="GET",
        path="/v1/refunds",
        run=list_refunds,
        supports=f"{LIST_PARAMS} charge payment_intent created",
    ),
    Operation(
        method="POST",
        path="/v1/refunds",
        run=refund,
        supports="charge payment_intent amount reason metadata expand",
    ),
)
