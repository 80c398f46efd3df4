"""Payment intents: the wish to take an amount from a customer's card, and what became of it."""

from simulators.stripe import cards, charges, disputes, events, methods
from simulators.stripe.cards import Card, Presence
from simulators.stripe.errors import StripeError, card_declined, invalid
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World

NO_CARD = (
    "This customer has no attached payment source or default payment method. Please consider adding"
    " a default payment method."
)
NEEDS_ACTION = "invoice_payment_intent_requires_action"
UNFINISHED = (
    "This payment requires additional user action before it can be completed successfully. Payment"
    " can be completed using the PaymentIntent associated with the invoice."
)
NOT_AUTHENTICATED = (
    "We are unable to authenticate your payment method. Please choose a different payment method"
    " and try again."
)


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
        "created": world.wall(),
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
    world: World, intent: Json, method: Json | None, presence: Presence
) -> StripeError | None:
    """Try to take the intent's money from a card; return why not, after recording it."""
    intent = world.store.get(intent["id"]) or intent
    if method is None:
        refusal = StripeError(NO_CARD, status=400, code="resource_missing", keeps_changes=True)
        _refused(world, intent, None, refusal, None)
        return refusal
    card = cards.of(method)
    method = methods.kept_up_to_date(world, method)
    if _wants_challenge(card, method, presence):
        return _ask_to_act(world, intent, method)
    refused = _why_not(world, card, method, presence)
    charge = charges.shape(world, intent, method, card, refused)
    if refused:
        events.created(world, "charge.failed", charge)
        code, decline_code, sentence = refused
        refusal = card_declined(sentence, code, decline_code, charge=charge["id"])
        _refused(world, intent, method, refusal, charge["id"])
        return refusal
    _succeeded(world, intent, method, charge)
    if presence == Presence.AUTHENTICATED and card.challenge:
        world.store.put({**method, "_authenticated": True})
    disputes.follow(world, charge, card.afterwards)
    return None


def fail_challenge(world: World, intent: Json) -> StripeError:
    """Record that the owner did not prove to be it."""
    refusal = card_declined(NOT_AUTHENTICATED, "payment_intent_authentication_failure", None)
    method = world.store.get(intent["payment_method"] or "")
    _refused(world, intent, method, refusal, None)
    return refusal


def cancel_intent(world: World, intent: Json, reason: str) -> None:
    gone = {
        **intent,
        "status": "canceled",
        "canceled_at": world.wall(),
        "cancellation_reason": reason,
        "next_action": None,
    }
    world.store.put(gone)
    events.record(world, "payment_intent.canceled", gone)


def list_intents(world: World, params: Params) -> Json:
    shelf = world.store.every("payment_intent", params.get("customer"))
    return answer(
        "/v1/payment_intents",
        params,
        shelf,
        lambda one: within(one["created"], params.get("created")),
    )


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("payment_intent", identifier)


def check_confirmable(intent: Json) -> None:
    if intent["status"] in {"succeeded", "canceled"}:
        raise invalid(
            "You cannot confirm this PaymentIntent because it has already"
            f" {'succeeded' if intent['status'] == 'succeeded' else 'been canceled'}.",
            None,
            "payment_intent_unexpected_state",
        )


def _wants_challenge(card: Card, method: Json, presence: Presence) -> bool:
    if not card.challenge or presence == Presence.AUTHENTICATED:
        return False
    is_set_up = card.challenge == "once" and method.get("_authenticated", False)
    return presence == Presence.ON or not is_set_up


def _why_not(
    world: World, card: Card, method: Json, presence: Presence
) -> tuple[str, str, str] | None:
    """Return the code, the decline code and the sentence of a refusal."""
    if card.is_refused(presence):
        return card.code, card.refusal, card.sentence
    if cards.is_over(cards.expiry_of(method), world.now()):
        return "expired_card", "expired_card", cards.EXPIRED
    return None


def _ask_to_act(world: World, intent: Json, method: Json) -> StripeError:
    url = f"{world.public_url}/3ds/{intent['id']}"
    waiting = {
        **intent,
        "last_payment_error": None,
        "next_action": {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": None, "url": url},
        },
        "payment_method": method["id"],
        "status": "requires_action",
    }
    world.store.put(waiting)
    events.record(world, "payment_intent.requires_action", waiting)
    return StripeError(
        UNFINISHED, status=402, kind="card_error", keeps_changes=True, code=NEEDS_ACTION
    )


def _succeeded(world: World, intent: Json, method: Json, charge: Json) -> None:
    events.created(world, "charge.succeeded", charge)
    paid = {
        **intent,
        "amount_received": intent["amount"],
        "last_payment_error": None,
        "latest_charge": charge["id"],
        "next_action": None,
        "payment_method": method["id"],
        "status": "succeeded",
    }
    world.store.put(paid)
    events.record(world, "payment_intent.succeeded", paid)


def _refused(
    world: World, intent: Json, method: Json | None, refusal: StripeError, charge: str | None
) -> None:
    error: Json = {"message": refusal.message, "type": refusal.kind, **refusal.details}
    failed = {
        **intent,
        "last_payment_error": {**error, **({"payment_method": method} if method else {})},
        "latest_charge": charge or intent["latest_charge"],
        "next_action": None,
        "payment_method": None,
        "status": "requires_payment_method",
    }
    world.store.put(failed)
    events.record(world, "payment_intent.payment_failed", failed)


OPERATIONS = (
    Operation(method="GET", path="/v1/payment_intents/{}", run=retrieve, supports="expand"),
    Operation(
        method="GET",
        path="/v1/payment_intents",
        run=list_intents,
        supports=f"{LIST_PARAMS} customer created",
    ),
)
