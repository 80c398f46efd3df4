"""Checkout sessions: a page that a customer pays on, and what paying there does."""

from urllib.parse import urlsplit

from simulators.stripe import (
    catalogue,
    clocks,
    customers,
    discounts,
    events,
    invoicing,
    lifecycle,
    methods,
    shapes,
    starting,
)
from simulators.stripe.cards import Presence
from simulators.stripe.clock import DAY, HOUR
from simulators.stripe.errors import below, invalid, required, unsupported
from simulators.stripe.paging import LIST_PARAMS, answer, answer_short, listing, within
from simulators.stripe.starting import Start
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

SHORTEST_SECONDS = HOUR // 2  # Stripe: 30 minutes to 24 hours
LONGEST_SECONDS = DAY
PLACEHOLDER = "{CHECKOUT_SESSION_ID}"
DATA = "subscription_data"
Given = list[tuple[Json, Json | None]]  # coupons, each with the promotion code it came by


def create(world: World, params: Params) -> Json:
    if params["mode"] != "subscription":
        raise unsupported(f"checkout sessions with mode={params['mode']}", "mode")
    if params.get("ui_mode", "hosted_page") != "hosted_page":
        raise unsupported(f"ui_mode={params['ui_mode']}", "ui_mode")
    for name in ("success_url", "cancel_url"):
        _check_url(params, name)
    customer = _customer(world, params)
    items = _line_items(world, params)
    if params.get("discounts") and params.get("allow_promotion_codes"):
        raise invalid(
            "You may only specify one of these parameters: allow_promotion_codes, discounts."
        )
    subtotal = sum(item["amount_subtotal"] for item in items)
    chosen = discounts.read(world, params.get("discounts"), customer, subtotal)
    identifier = new_id("cs_test", 58)
    session: Json = {
        "id": identifier,
        "object": "checkout.session",
        **_blanks(),
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "created": world.wall(),
        "currency": items[0]["currency"],
        "customer": customer["id"] if customer else None,
        "customer_creation": None if customer else "always",
        "customer_details": _details(customer, params),
        "customer_email": params.get("customer_email"),
        "expires_at": _expiry(world, params),
        "locale": params.get("locale"),
        "metadata": merge_metadata({}, params),
        "payment_method_collection": params.get("payment_method_collection", "always"),
        "success_url": params["success_url"],
        "url": f"{world.public_url}/c/pay/{identifier}",
        "_line_items": items,
        "_subscription_data": params.get(DATA) or {},
    }
    starting.read_timing(world, session["_subscription_data"], items[0]["price"])
    session |= with_discounts(world, session, chosen)
    return world.store.put(session)


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("checkout.session", identifier)


def list_sessions(world: World, params: Params) -> Json:
    exact = {
        key: params[key] for key in ("subscription", "status", "payment_intent") if key in params
    }

    def wanted(session: Json) -> bool:
        return all(session[key] == value for key, value in exact.items()) and within(
            session["created"], params.get("created")
        )

    everything = world.store.every("checkout.session", params.get("customer"))
    return answer("/v1/checkout/sessions", params, everything, wanted)


def list_line_items(world: World, params: Params, identifier: str) -> Json:
    session = world.need("checkout.session", identifier)
    return answer_short(
        f"/v1/checkout/sessions/{identifier}/line_items", params, session["_line_items"]
    )


def update(world: World, params: Params, identifier: str) -> Json:
    session = world.need("checkout.session", identifier)
    return world.store.put({**session, "metadata": merge_metadata(session["metadata"], params)})


def expire_operation(world: World, _params: Params, identifier: str) -> Json:
    session = world.need("checkout.session", identifier)
    if session["status"] != "open":
        raise invalid(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout'
            f" Session has a status of `{session['status']}`."
        )
    return expire(world, session)


def expire(world: World, session: Json) -> Json:
    expired = {**session, "status": "expired", "url": None}
    world.store.put(expired)
    events.record(world, "checkout.session.expired", expired)
    return expired


def line_items(session: Json) -> Json:
    """Return what `expand[]=line_items` shows."""
    url = f"/v1/checkout/sessions/{session['id']}/line_items"
    return listing(url, session["_line_items"])


def with_discounts(world: World, session: Json, chosen: Given) -> Json:
    """Return the fields of a session that depend on discounts: what is due today, and what not."""
    bill = _bill(world, session, chosen)
    invoice = invoicing.compose(world, bill, new_id("upcoming_in"))
    off = [
        {
            "coupon": coupon["id"] if promotion is None else None,
            "promotion_code": promotion["id"] if promotion else None,
        }
        for coupon, promotion in chosen
    ]
    amounts = {line["id"]: line for line in session["_line_items"]}
    for item, line in zip(amounts.values(), invoice["lines"]["data"], strict=True):
        taken = sum(one["amount"] for one in line["discount_amounts"])
        item |= {
            "amount_subtotal": line["amount"],
            "amount_discount": taken,
            "amount_total": line["amount"] - taken,
        }
    taken = sum(one["amount"] for one in invoice["total_discount_amounts"])
    return {
        "amount_subtotal": invoice["subtotal"],
        "amount_total": invoice["total"],
        "discounts": off,
        "total_details": {"amount_discount": taken, "amount_shipping": 0, "amount_tax": 0},
        "_line_items": list(amounts.values()),
        "_chosen": [
            [coupon["id"], promotion["id"] if promotion else None] for coupon, promotion in chosen
        ],
    }


def chosen_discounts(world: World, session: Json) -> Given:
    """Return the coupons that a session has been given so far."""
    return [
        (world.store.get(coupon) or {}, world.store.get(promotion) if promotion else None)
        for coupon, promotion in session.get("_chosen") or ()
    ]


def wants_card(session: Json) -> bool:
    """Whether a card is asked for although nothing is due today."""
    return session["amount_total"] > 0 or session["payment_method_collection"] == "always"


def pay(world: World, session: Json, method: Json | None, *, email: str, name: str | None) -> Json:
    """Complete an open session, as the customer's click does; `method` is a card not yet theirs.

    Whoever had to prove to be the card's owner has done so by now.

    Raises:
        StripeError: the card was refused; nothing is kept and the session stays open.
    """
    customer = world.store.get(session["customer"] or "", "customer")
    if customer is None or customer.get("deleted"):
        customer = customers.create(world, {"email": email, **({"name": name} if name else {})})
    with clocks.time_of(world, clocks.of(world, customer)):
        if customer["email"] is None:
            customer = customers.update(world, {"email": email}, customer["id"])
        if method:
            method = methods.attach(world, method, customer["id"])
        wish = _wish(world, session, customer, chosen_discounts(world, session), method)
        subscription, refusal = lifecycle.start(world, wish)
    if refusal:
        raise refusal
    complete = {
        **session,
        "customer": customer["id"],
        "customer_details": {**session["customer_details"], "email": email, "name": name},
        "invoice": subscription["latest_invoice"],
        "payment_status": "paid" if session["amount_total"] > 0 else "no_payment_required",
        "status": "complete",
        "subscription": subscription["id"],
        "url": None,
    }
    world.store.put(complete)
    events.record(world, "checkout.session.completed", complete)
    return complete


def return_address(session: Json) -> str:
    return session["success_url"].replace(PLACEHOLDER, session["id"])


def trial_end(world: World, session: Json) -> int | None:
    """Return when the first payment is due, if the session begins with a trial."""
    price = session["_line_items"][0]["price"]
    return starting.read_timing(world, session["_subscription_data"], price).trial_end


def _wish(world: World, session: Json, customer: Json, chosen: Given, method: Json | None) -> Start:
    data = session["_subscription_data"]
    price = session["_line_items"][0]["price"]
    fields: Json = {
        "metadata": merge_metadata({}, data),
        "description": data.get("description"),
    }
    if "trial_settings" in data:
        fields["trial_settings"] = data["trial_settings"]
    return Start(
        customer=customer,
        chosen=[(item["price"], item["quantity"]) for item in session["_line_items"]],
        timing=starting.read_timing(world, data, price),
        method=method,
        presence=Presence.AUTHENTICATED,
        prorates=data.get("proration_behavior") != "none",
        discounts=chosen,
        session=session["id"],
        fields=fields,
    )


def _bill(world: World, session: Json, chosen: Given) -> invoicing.Bill:
    """Return the bill of the subscription that paying would begin."""
    nobody: Json = {"id": session["customer"] or "", "test_clock": None}
    wish = _wish(world, session, nobody, chosen, None)
    subscription, lines = starting.prepare(world, wish)
    imagined = [discounts.shape(world, *one, customer=None, subscription=None) for one in chosen]
    subscription["discounts"] = imagined
    return invoicing.bill(world, subscription, lines, "upcoming")


def _check_url(params: Params, name: str) -> None:
    if name not in params:
        if name == "success_url":
            raise required(name)
        return
    parts = urlsplit(params[name])
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise invalid("Not a valid URL", name, "url_invalid")


def _customer(world: World, params: Params) -> Json | None:
    if "customer" not in params:
        return None
    if "customer_email" in params:
        raise invalid("You may only specify one of these parameters: customer, customer_email.")
    return world.refer("customer", params["customer"], "customer")


def _line_items(world: World, params: Params) -> list[Json]:
    if not params.get("line_items"):
        raise required("line_items")
    items = []
    for at, wish in enumerate(params["line_items"]):
        where = f"line_items[{at}]"
        if "price" not in wish:
            raise required(f"{where}[price]")
        price = catalogue.recurring_price(world, wish["price"], f"{where}[price]")
        if "quantity" not in wish:
            raise required(f"{where}[quantity]")
        if wish["quantity"] < 1:
            raise below(1, f"{where}[quantity]")
        items.append(_line_item(world, price, wish["quantity"]))
    shapes.check_same_rhythm([item["price"] for item in items])
    return items


def _line_item(world: World, price: Json, quantity: int) -> Json:
    amount = price["unit_amount"] * quantity
    return {
        "id": new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": (world.store.get(price["product"]) or {})["name"],
        "metadata": {},
        "price": price,
        "quantity": quantity,
    }


def _expiry(world: World, params: Params) -> int:
    wanted = params.get("expires_at", world.wall() + LONGEST_SECONDS)
    if wanted < world.wall() + SHORTEST_SECONDS:
        raise invalid(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session"
            " creation.",
            "expires_at",
        )
    if wanted > world.wall() + LONGEST_SECONDS:
        raise invalid(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.",
            "expires_at",
        )
    return wanted


def _details(customer: Json | None, params: Params) -> Json:
    return {
        "address": None,
        "business_name": None,
        "email": customer["email"] if customer else params.get("customer_email"),
        "individual_name": None,
        "name": None,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": None,
    }


NOTHING = (
    "after_expiration billing_address_collection client_secret collected_information consent"
    " consent_collection currency_conversion customer_account invoice invoice_creation"
    " origin_context payment_intent payment_link phone_number_collection recovered_from"
    " setup_intent shipping_address_collection shipping_cost submit_type subscription"
    " wallet_options"
)


def _blanks() -> Json:
    return {
        **dict.fromkeys(NOTHING.split()),
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "custom_fields": [],
        "custom_text": dict.fromkeys(
            ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
        ),
        "livemode": False,
        "mode": "subscription",
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "phone_number_collection": {"enabled": False},
        "redirect_on_completion": "always",
        "shipping_options": [],
        "status": "open",
        "ui_mode": "hosted_page",
    }


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/checkout/sessions",
        run=create,
        supports="mode success_url cancel_url client_reference_id customer customer_email"
        " line_items.price line_items.quantity metadata expires_at locale ui_mode expand"
        f" allow_promotion_codes {discounts.WISHES} payment_method_collection"
        f" {DATA}.metadata {DATA}.description "
        + " ".join(f"{DATA}.{name}" for name in starting.TIMING_PARAMS.split()),
        required="mode",
    ),
    Operation(
        method="GET",
        path="/v1/checkout/sessions",
        run=list_sessions,
        supports=f"{LIST_PARAMS} customer subscription status payment_intent created",
    ),
    Operation(method="GET", path="/v1/checkout/sessions/{}", run=retrieve, supports="expand"),
    Operation(
        method="GET",
        path="/v1/checkout/sessions/{}/line_items",
        run=list_line_items,
        supports=LIST_PARAMS,
    ),
    Operation(
        method="POST", path="/v1/checkout/sessions/{}", run=update, supports="metadata expand"
    ),
    Operation(
        method="POST",
        path="/v1/checkout/sessions/{}/expire",
        run=expire_operation,
        supports="expand",
    ),
)
