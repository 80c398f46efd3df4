"""What a customer sees: the hosted checkout, the billing portal, and a hosted invoice."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from simulators.stripe import cards, checkout, forms, invoices, invoicing, lifecycle, portal
from simulators.stripe.clock import day
from simulators.stripe.errors import StripeError
from simulators.stripe.lines import each_period, money
from simulators.stripe.rendering import (
    Html,
    badge,
    card_on_file,
    card_picker,
    join,
    page,
    problem,
    table,
    tag,
)
from simulators.stripe.store import Json
from simulators.stripe.world import World

SEE_OTHER, GONE, NOT_FOUND, REFUSED = 303, 410, 404, 402
NOT_AUTHENTICATED = (
    "We are unable to authenticate your payment method. Please choose a different payment method"
    " and try again."
)
INCOMPLETE_EMAIL = "Your email is incomplete."
INCOMPLETE_NAME = "Enter the name as it is shown on the card."
INVALID_CODE = "This code is invalid."

Fields = dict[str, str]


def routes(world: World) -> list[Route]:
    """Return the pages; the guard in front asks for the token."""
    return [
        Route("/c/pay/{identifier}", _handler(world, show_or_pay), methods=["GET", "POST"]),
        Route("/p/session/{identifier}", _handler(world, show_portal), methods=["GET", "POST"]),
        Route("/i/{identifier}", _handler(world, show_invoice), methods=["GET", "POST"]),
    ]


def show_or_pay(world: World, identifier: str, fields: Fields | None) -> Response:
    session = world.store.get(identifier, "checkout.session")
    if session is None:
        return _message("This page does not exist", "No such checkout session.", NOT_FOUND)
    if session["status"] == "complete":
        return _message(
            "This has been paid already",
            "The subscription was set up and nothing is charged twice.",
            GONE,
            link=("Continue", checkout.return_address(session)),
        )
    if session["status"] == "expired":
        return _message(
            "This checkout has expired",
            "Nothing was charged. Go back and start again.",
            GONE,
            link=("Back", session["cancel_url"]),
        )
    return _checkout_page(world, session) if fields is None else _pay(world, session, fields)


def _pay(world: World, session: Json, fields: Fields) -> Response:
    card = cards.BY_NUMBER.get(fields.get("card", ""))
    flaw = _flaw(session, fields, card)
    if flaw or card is None:
        return _checkout_page(world, session, fields, flaw)
    if card.needs_challenge and "outcome" not in fields:
        return page(
            "challenge.html",
            "3-D Secure",
            price=_total(session),
            last4=card.last4,
            action=session["id"],
            email=_email(world, session, fields),
            holder=fields["name"],
            card=card.number,
        )
    if card.needs_challenge and fields["outcome"] != "complete":
        return _checkout_page(world, session, fields, NOT_AUTHENTICATED)
    try:
        with world.store.transaction():
            email = _email(world, session, fields)
            paid = checkout.pay(world, session, card, email=email, name=fields["name"].strip())
    except StripeError as refusal:
        return _checkout_page(world, session, fields, refusal.message)
    return RedirectResponse(checkout.return_address(paid), SEE_OTHER)


def _flaw(session: Json, fields: Fields, card: cards.Card | None) -> str | None:
    """Return what is missing in the form, in one sentence."""
    is_known = session["customer"] and session["customer_details"]["email"]
    name, _, host = fields.get("email", "").strip().partition("@")
    if not is_known and not (name and "." in host and " " not in name + host):
        return INCOMPLETE_EMAIL
    if card is None:
        return "Choose a test card."
    if not fields.get("name", "").strip():
        return INCOMPLETE_NAME
    return INVALID_CODE if fields.get("promotion_code", "").strip() else None


def _email(world: World, session: Json, fields: Fields) -> str:
    """Return the address on the receipt: a known customer's own cannot be changed here."""
    customer = world.store.get(session["customer"] or "", "customer") or {}
    return customer.get("email") or fields.get("email", "").strip()


def _name_of(world: World, session: Json) -> str:
    customer = world.store.get(session["customer"] or "", "customer") or {}
    return customer.get("name") or ""


def _checkout_page(
    world: World, session: Json, fields: Fields | None = None, flaw: str | None = None
) -> Response:
    given = fields or {}
    known = session["customer_details"]["email"]
    first = session["_line_items"][0]
    back = Html("")
    if session["cancel_url"]:
        back = tag("a", "← Back", href=session["cancel_url"], class_="back", id="back")
    promotion = Html("")
    if session["allow_promotion_codes"]:
        promotion = Html(
            '<div class="sum"><input type="text" name="promotion_code" form="form"'
            ' placeholder="Add promotion code" aria-label="Promotion code"></div>'
        )
    return page(
        "checkout.html",
        f"Subscribe to {first['description']}",
        REFUSED if flaw else 200,
        back=back,
        shop=invoicing.ACCOUNT,
        product=first["description"],
        price=_total(session),
        interval=each_period(first["price"]),
        items=join(_item(item) for item in session["_line_items"]),
        promotion=promotion,
        action=session["id"],
        problem=problem(flaw),
        email=_email(world, session, given) or known or "",
        email_state=Html("readonly") if session["customer"] and known else "",
        cards=card_picker(given.get("card")),
        holder=given.get("name", _name_of(world, session)),
    )


def _item(item: Json) -> Html:
    words = item["description"]
    if item["quantity"] > 1:
        words = f"{item['quantity']} of {words}"
    amount = money(item["amount_total"], item["currency"])
    return tag("div", Html(tag("span", words) + tag("span", amount, class_="number")), class_="sum")


def _total(session: Json) -> str:
    return money(session["amount_total"], session["currency"])


def show_portal(world: World, identifier: str, fields: Fields | None) -> Response:
    session = world.store.get(identifier, "billing_portal.session")
    customer = world.store.get(session["customer"], "customer") if session else None
    if session is None or customer is None or customer.get("deleted"):
        return _message("This page does not exist", "No such billing session.", NOT_FOUND)
    link = ("← Back", session["return_url"])
    if portal.is_over(world, session):
        return _message(
            "This page has expired", "Open billing again from your account.", GONE, link=link
        )
    flaw = None
    if fields is not None:
        flaw = _change_card(world, customer, fields)
        if flaw is None:
            return RedirectResponse(identifier, SEE_OTHER)
    return page(
        "portal.html",
        "Billing",
        REFUSED if flaw else 200,
        back=_link(*link, class_="back"),
        who=customer["name"] or customer["email"] or customer["id"],
        problem=problem(flaw),
        subscriptions=_subscriptions(world, customer),
        method=card_on_file(_card_of(world, customer)),
        open=Html("open") if flaw else "",
        action=identifier,
        cards=card_picker((fields or {}).get("card")),
        invoices=_invoices(world, customer),
    )


def _change_card(world: World, customer: Json, fields: Fields) -> str | None:
    card = cards.BY_NUMBER.get(fields.get("card", ""))
    if card is None:
        return "Choose a test card."
    try:
        with world.store.transaction():
            portal.change_card(world, customer, card)
    except StripeError as refusal:
        return refusal.message
    return None


def _card_of(world: World, customer: Json) -> Json | None:
    for subscription in lifecycle.of_customer(world, customer["id"]):
        return lifecycle.method_of(world, subscription)
    chosen = customer["invoice_settings"]["default_payment_method"]
    return world.store.get(chosen) if chosen else None


def _subscriptions(world: World, customer: Json) -> Html:
    rows = []
    for one in lifecycle.of_customer(world, customer["id"]):
        item = lifecycle.items_of(one)[0]
        price = item["price"]
        each = f"{money(price['unit_amount'], price['currency'])} per {each_period(price)}"
        verb = "Ends" if one["cancel_at_period_end"] else "Renews"
        turn = f"{verb} {day(item['current_period_end'])}"
        rows.append((lifecycle.product_name(world, item), each, turn, badge(one["status"])))
    return table(("Plan", "Price", "", "Status"), rows, "No subscription.")


def _invoices(world: World, customer: Json) -> Html:
    rows = [
        (
            day(one["created"]),
            tag("a", one["number"], href=f"../../i/{one['id']}"),
            money(one["total"], one["currency"]),
            badge(one["status"]),
        )
        for one in world.store.every("invoice", customer["id"])
        if one["status"] != "draft"
    ]
    return table(("Date", "Number", "Amount", "Status"), rows, "No invoices yet.")


def show_invoice(world: World, identifier: str, fields: Fields | None) -> Response:
    invoice = world.store.get(identifier, "invoice")
    if invoice is None or invoice["status"] == "draft":
        return _message("This page does not exist", "No such invoice.", NOT_FOUND)
    flaw = None
    if fields is not None and invoice["status"] == "open":
        flaw = _pay_invoice(world, invoice, fields)
        if flaw is None:
            return RedirectResponse(identifier, SEE_OTHER)
        invoice = world.store.get(identifier) or invoice
    due = money(invoice["amount_due"], invoice["currency"])
    payment = Html("")
    if invoice["status"] == "open":
        picker = Html(
            f"<fieldset><legend>Test card</legend><div class='cards'>"
            f"{card_picker((fields or {}).get('card'))}</div></fieldset>"
        )
        button = tag("button", f"Pay {due}", class_="wide", id="pay-invoice", type="submit")
        form = tag("form", Html(picker + button), method="post", action=identifier)
        payment = tag("section", form, class_="panel")
    return page(
        "invoice.html",
        f"Invoice {invoice['number']}",
        REFUSED if flaw else 200,
        number=invoice["number"],
        badge=badge(invoice["status"]),
        who=invoice["customer_name"] or invoice["customer_email"] or "",
        date=day(invoice["created"]),
        problem=problem(flaw),
        lines=join(_line(line) for line in invoice["lines"]["data"]),
        due=due,
        payment=payment,
    )


def _line(line: Json) -> Html:
    amount = tag("td", money(line["amount"], line["currency"]), class_="right number")
    return tag("tr", Html(tag("td", line["description"]) + amount))


def _pay_invoice(world: World, invoice: Json, fields: Fields) -> str | None:
    """Pay with a new card, which then also pays what follows; return why it was refused."""
    card = cards.BY_NUMBER.get(fields.get("card", ""))
    customer = world.store.get(invoice["customer"], "customer")
    if card is None or customer is None or customer.get("deleted"):
        return "Choose a test card."
    try:
        with world.store.transaction():
            portal.change_card(world, customer, card)
            subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
            method = lifecycle.method_of(world, subscription)
            refusal = invoices.settle_now(world, invoice, method, on_session=True)
            if refusal:
                raise refusal
    except StripeError as error:
        return error.message
    return None


def _message(
    title: str, words: str, status: int, link: tuple[str, str | None] | None = None
) -> Response:
    button = _link(*link, class_="button") if link else Html("")
    return page("message.html", title, status, heading=title, text=words, link=button)


def _link(words: str, address: str | None, class_: str) -> Html:
    return tag("a", words, href=address, class_=class_) if address else Html("")


Show = Callable[[World, str, Fields | None], Response]


def _handler(world: World, show: Show) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        fields = None
        if request.method == "POST":
            raw = forms.decode((await request.body()).decode("utf-8", "replace"))
            fields = {key: value for key, value in raw.items() if isinstance(value, str)}
        return show(world, request.path_params["identifier"], fields)

    return answer
