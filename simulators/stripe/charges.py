"""Charges: each try to take money from a card."""

from simulators.stripe.cards import Card
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

RISKS = {"warning": ("elevated", 64), "": ("normal", 7)}


def shape(
    world: World, intent: Json, method: Json, card: Card, refused: tuple[str, str, str] | None
) -> Json:
    """Return a charge, not stored; `refused` is a code, a decline code and a sentence."""
    amount = intent["amount"]
    code, _, sentence = refused or (None, None, None)
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
        "created": world.wall(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": code,
        "failure_message": sentence,
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "outcome": _outcome(card, refused),
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


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("charge", identifier)


def update(world: World, params: Params, identifier: str) -> Json:
    before = world.need("charge", identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    after["description"] = params.get("description", before["description"])
    return world.store.put(after)


def list_charges(world: World, params: Params) -> Json:
    intent = params.get("payment_intent")

    def wanted(one: Json) -> bool:
        is_asked_for = intent in {None, one["payment_intent"]}
        return is_asked_for and within(one["created"], params.get("created"))

    shelf = world.store.every("charge", params.get("customer"))
    return answer("/v1/charges", params, shelf, wanted)


def _outcome(card: Card, refused: tuple[str, str, str] | None) -> Json:
    level, score = RISKS.get(card.afterwards, RISKS[""])
    return {
        "advice_code": "try_again_later" if refused else None,
        "network_advice_code": None,
        "network_decline_code": "01" if refused else None,
        "network_status": "declined_by_network" if refused else "approved_by_network",
        "reason": refused[1] if refused else None,
        "risk_level": level,
        "risk_score": score,
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


OPERATIONS = (
    Operation(method="GET", path="/v1/charges/{}", run=retrieve, supports="expand"),
    Operation(
        method="POST",
        path="/v1/charges/{}",
        run=update,
        supports="description metadata expand",
    ),
    Operation(
        method="GET",
        path="/v1/charges",
        run=list_charges,
        supports=f"{LIST_PARAMS} customer payment_intent created",
    ),
)
