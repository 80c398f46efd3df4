"""Payment methods: the cards on a customer's file."""

from simulators.stripe import cards, events
from simulators.stripe.cards import EXPIRES, YEARS_OF_A_NEW_CARD, Card
from simulators.stripe.errors import card_declined, invalid, missing_reference, required
from simulators.stripe.paging import LIST_PARAMS, answer
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

CARD_UPDATER = "card_updater"  # whether banks tell of new expiry dates, as many do for Stripe
EMPTY_BILLING_DETAILS: Json = {
    "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
    "email": None,
    "name": None,
    "phone": None,
    "tax_id": None,
}


def new(
    world: World, card: Card, expires: tuple[int, int] = EXPIRES, **billing: str | None
) -> Json:
    """Return a card that is not yet anybody's, not stored."""
    return {
        "id": new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {**EMPTY_BILLING_DETAILS, **billing},
        "card": cards.details(card, expires),
        "created": world.wall(),
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
        raise card_declined(card.sentence, card.code, card.refusal)
    attached = {**method, "customer": customer}
    world.store.put(attached)
    events.record(world, "payment_method.attached", attached)
    return attached


def kept_up_to_date(world: World, method: Json) -> Json:
    """Return the card with a new expiry date, where its bank tells of one in time."""
    is_over = cards.is_over(cards.expiry_of(method), world.now())
    if not is_over or not world.store.setting(CARD_UPDATER, default=False):
        return method
    renewed = {**method["card"], "exp_year": method["card"]["exp_year"] + YEARS_OF_A_NEW_CARD}
    after = {**method, "card": renewed}
    return events.changed(world, "payment_method.automatically_updated", method, after)


def attach_operation(world: World, params: Params, identifier: str) -> Json:
    if "customer" not in params:
        raise required("customer")
    customer = world.refer("customer", params["customer"], "customer")
    known = world.store.get(identifier, "payment_method")
    if known is None:
        if identifier not in cards.BY_PAYMENT_METHOD:
            raise missing_reference("PaymentMethod", identifier, "payment_method")
        known = new(world, cards.BY_PAYMENT_METHOD[identifier])
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
    return events.changed(world, "payment_method.detached", method, {**method, "customer": None})


def update(world: World, params: Params, identifier: str) -> Json:
    before = world.need("payment_method", identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    expiry = params.get("card") or {}
    if not 1 <= expiry.get("exp_month", 1) <= 12:  # noqa: PLR2004 - months of a year
        raise invalid(
            "Your card's expiration month is invalid.",
            "card[exp_month]",
            "invalid_expiry_month",
        )
    after["card"] = {**before["card"], **expiry}
    return events.changed(world, "payment_method.updated", before, after)


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("payment_method", identifier)


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


def of_customer(world: World, params: Params, name: str, customer: str) -> Json | None:
    """Return the card that a parameter names, which must be on this customer's file."""
    if params.get(name) is None:
        return None
    method = world.refer("payment_method", params[name], name)
    if method["customer"] != customer:
        raise invalid(
            f"The customer does not have a payment method with the ID {method['id']}. The payment"
            " method must be attached to the customer.",
            name,
            "resource_missing",
        )
    return method


OPERATIONS = (
    Operation(method="GET", path="/v1/payment_methods/{}", run=retrieve, supports="expand"),
    Operation(
        method="POST",
        path="/v1/payment_methods/{}",
        run=update,
        supports="card.exp_month card.exp_year metadata expand",
    ),
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
)
