"""The hosted checkout: what is bought, a test card, a promotion code, and the bank's question."""

from starlette.responses import RedirectResponse, Response

from simulators.stripe import checkout, coupons, discounts, methods
from simulators.stripe.clock import day
from simulators.stripe.errors import StripeError
from simulators.stripe.invoice_shape import ACCOUNT
from simulators.stripe.lines import each_period, money
from simulators.stripe.payments import NOT_AUTHENTICATED
from simulators.stripe.rendering import (
    Fields,
    Html,
    card_form,
    hidden,
    join,
    message,
    page,
    problem,
    read_card,
    tag,
    text,
)
from simulators.stripe.store import Json
from simulators.stripe.world import World

SEE_OTHER, REFUSED, NOT_FOUND, GONE = 303, 402, 404, 410
INCOMPLETE_EMAIL = "Your email is incomplete."
INCOMPLETE_NAME = "Enter the name as it is shown on the card."
INVALID_CODE = "This code is invalid."


def show(world: World, identifier: str, fields: Fields | None) -> Response:
    session = world.store.get(identifier, "checkout.session")
    if session is None:
        return message("This page does not exist", "No such checkout session.", NOT_FOUND)
    if session["status"] == "complete":
        return message(
            "This has been paid already",
            "The subscription was set up and nothing is charged twice.",
            GONE,
            link=("Continue", checkout.return_address(session)),
        )
    if session["status"] == "expired":
        return message(
            "This checkout has expired",
            "Nothing was charged. Go back and start again.",
            GONE,
            link=("Back", session["cancel_url"]),
        )
    if fields is None:
        return _page(world, session)
    if "apply" in fields or "remove" in fields:
        return _change_code(world, session, fields)
    return _pay(world, session, fields)


def _pay(world: World, session: Json, fields: Fields) -> Response:
    flaw = _flaw(session, fields)
    if flaw is None and fields.get("promotion_code", "").strip():
        session, flaw = _with_code(world, session, fields)
    if flaw:
        return _page(world, session, fields, flaw)
    method = None
    if checkout.wants_card(session):
        chosen = read_card(fields, world.now())
        if isinstance(chosen, str):
            return _page(world, session, fields, chosen)
        card, expires = chosen
        if card.challenge and fields.get("outcome") != "complete":
            if "outcome" in fields:
                return _page(world, session, fields, NOT_AUTHENTICATED)
            return _challenge(session, fields, card.last4)
        billing = {"email": _email(world, session, fields), "name": fields["name"].strip()}
        method = methods.new(world, card, expires, **billing)
    try:
        with world.store.transaction():
            email = _email(world, session, fields)
            name = fields.get("name", "").strip() or None
            paid = checkout.pay(world, session, method, email=email, name=name)
    except StripeError as refusal:
        return _page(world, session, fields, refusal.message)
    return RedirectResponse(checkout.return_address(paid), SEE_OTHER)


def _challenge(session: Json, fields: Fields, last4: str) -> Response:
    kept = {name: fields[name] for name in ("email", "name", "card", "expires") if name in fields}
    return page(
        "challenge.html",
        "3-D Secure",
        deed=f"pays {_total(session)}" if session["amount_total"] else "gives this card",
        last4=last4,
        action=session["id"],
        kept=hidden(**kept),
    )


def _change_code(world: World, session: Json, fields: Fields) -> Response:
    """Put a promotion code on the session, or take it off."""
    if "remove" in fields:
        with world.store.transaction():
            fresh = {**session, **checkout.with_discounts(world, session, [])}
            world.store.put(fresh)
        return _page(world, fresh, {**fields, "promotion_code": ""})
    session, flaw = _with_code(world, session, fields)
    if flaw:
        return _page(world, session, fields, flaw)
    return _page(world, session, {**fields, "promotion_code": ""})


def _with_code(world: World, session: Json, fields: Fields) -> tuple[Json, str | None]:
    """Return the session with the typed promotion code, or why it cannot be used."""
    code = fields.get("promotion_code", "").strip()
    promotion = coupons.find_code(world, code) if session["allow_promotion_codes"] else None
    if promotion is None:
        return session, INVALID_CODE
    customer = world.store.get(session["customer"] or "", "customer")
    flaw = discounts.unmet(world, promotion, customer, session["amount_subtotal"])
    if flaw:
        return session, flaw
    chosen: checkout.Given = [(discounts.coupon_of(world, promotion), promotion)]
    with world.store.transaction():
        changed = {**session, **checkout.with_discounts(world, session, chosen)}
        return world.store.put(changed), None


def _flaw(session: Json, fields: Fields) -> str | None:
    """Return what is missing in the form, in one sentence."""
    is_known = session["customer"] and session["customer_details"]["email"]
    name, _, host = fields.get("email", "").strip().partition("@")
    if not is_known and not (name and "." in host and " " not in name + host):
        return INCOMPLETE_EMAIL
    if checkout.wants_card(session) and not fields.get("name", "").strip():
        return INCOMPLETE_NAME
    return None


def _email(world: World, session: Json, fields: Fields) -> str:
    """Return the address on the receipt: a known customer's own cannot be changed here."""
    customer = world.store.get(session["customer"] or "", "customer") or {}
    return customer.get("email") or fields.get("email", "").strip()


def _page(
    world: World, session: Json, fields: Fields | None = None, flaw: str | None = None
) -> Response:
    given = fields or {}
    known = session["customer_details"]["email"]
    first = session["_line_items"][0]
    customer = world.store.get(session["customer"] or "", "customer") or {}
    trial_end = checkout.trial_end(world, session)
    back = Html("")
    if session["cancel_url"]:
        back = tag("a", "← Back", href=session["cancel_url"], class_="back", id="back")
    return page(
        "checkout.html",
        f"Subscribe to {first['description']}",
        REFUSED if flaw else 200,
        back=back,
        shop=ACCOUNT,
        product=first["description"],
        headline=_headline(session, trial_end),
        items=join(_item(item) for item in session["_line_items"]),
        subtotal=money(session["amount_subtotal"], session["currency"]),
        discount=_discount(world, session),
        promotion=_promotion(session, given),
        price=_total(session),
        action=session["id"],
        problem=problem(flaw),
        email=_email(world, session, given) or known or "",
        email_state=Html("readonly") if session["customer"] and known else "",
        payment=_payment(session, given, given.get("name", customer.get("name") or "")),
        button="Start trial" if trial_end else "Subscribe",
        fine=_fine(world, session, trial_end),
    )


def _headline(session: Json, trial_end: int | None) -> Html:
    each = f"{_full_price(session)} per {_period(session)}"
    if trial_end:
        return Html("Free" + tag("span", f"until {day(trial_end)}, then {each}"))
    price, _, period = each.partition(" ")
    return Html(text(price) + tag("span", period))


def _payment(session: Json, given: Fields, holder: str) -> Html:
    if not checkout.wants_card(session):
        return tag("p", "No card is needed: nothing is due.", class_="note")
    field = (
        '<div class="field"><label for="name">Cardholder name</label><input id="name" name="name"'
        ' type="text" required autocomplete="cc-name" placeholder="Full name on card"'
        f' value="{text(holder)}"></div>'
    )
    return Html(card_form(given) + field)


def _discount(world: World, session: Json) -> Html:
    rows = []
    for coupon, promotion in checkout.chosen_discounts(world, session):
        name = promotion["code"] if promotion else coupon.get("name") or "Discount"
        amount = money(-session["total_details"]["amount_discount"], session["currency"])
        button = Html("")
        if promotion:
            button = Html(
                ' <button class="quiet tiny" form="form" name="remove" value="1" formnovalidate'
                ' type="submit">Remove</button>'
            )
        label = tag("span", Html(text(name) + button))
        rows.append(tag("div", Html(label + tag("span", amount, class_="number")), class_="sum"))
    return join(rows)


def _promotion(session: Json, given: Fields) -> Html:
    if not session["allow_promotion_codes"] or session.get("_chosen"):
        return Html("")
    code = text(given.get("promotion_code", ""))
    return Html(
        '<div class="sum"><input type="text" name="promotion_code" form="form" id="code"'
        f' placeholder="Add promotion code" aria-label="Promotion code" value="{code}">'
        '<button class="quiet" form="form" name="apply" value="1" formnovalidate'
        ' type="submit">Apply</button></div>'
    )


def _fine(world: World, session: Json, trial_end: int | None) -> str:
    each, later = _period(session), _full_price(session)
    given = checkout.chosen_discounts(world, session)
    is_for_ever = all(coupon["duration"] == "forever" for coupon, _ in given)
    if trial_end:
        words = f"Nothing is charged before {day(trial_end)}; then each {each} until you cancel."
    elif is_for_ever:
        words = f"You are charged {_total(session)} now and each {each} until you cancel."
    else:
        words = (
            f"You are charged {_total(session)} now, and {later} each {each} once the discount is"
            " over, until you cancel."
        )
    return f"{words} Only test cards exist here."


def _period(session: Json) -> str:
    return each_period(session["_line_items"][0]["price"])


def _full_price(session: Json) -> str:
    full = sum(item["price"]["unit_amount"] * item["quantity"] for item in session["_line_items"])
    return money(full, session["currency"])


def _item(item: Json) -> Html:
    words = item["description"]
    if item["quantity"] > 1:
        words = f"{item['quantity']} of {words}"
    amount = money(item["amount_subtotal"], item["currency"])
    return tag("div", Html(tag("span", words) + tag("span", amount, class_="number")), class_="sum")


def _total(session: Json) -> str:
    return money(session["amount_total"], session["currency"])
