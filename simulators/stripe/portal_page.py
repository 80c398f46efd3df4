"""The billing portal's page: what is paid for, the card, and the invoices."""

from starlette.responses import RedirectResponse, Response

from simulators.stripe import lifecycle, portal, shapes
from simulators.stripe.clock import day
from simulators.stripe.errors import StripeError
from simulators.stripe.lines import each_period, money
from simulators.stripe.rendering import (
    Fields,
    Html,
    anchor,
    badge,
    card_form,
    card_on_file,
    message,
    page,
    problem,
    read_card,
    table,
    tag,
)
from simulators.stripe.store import Json
from simulators.stripe.world import World

SEE_OTHER, REFUSED, NOT_FOUND, GONE = 303, 402, 404, 410


def show(world: World, identifier: str, fields: Fields | None) -> Response:
    session = world.store.get(identifier, "billing_portal.session")
    customer = world.store.get(session["customer"], "customer") if session else None
    if session is None or customer is None or customer.get("deleted"):
        return message("This page does not exist", "No such billing session.", NOT_FOUND)
    link = ("← Back", session["return_url"])
    if portal.is_over(world, session):
        return message(
            "This page has expired", "Open billing again from your account.", GONE, link=link
        )
    flaw = None
    if fields is not None and portal.allows(world, session, "payment_method_update"):
        flaw = _change_card(world, customer, fields)
        if flaw is None:
            return RedirectResponse(_after_change(session), SEE_OTHER)
    return page(
        "portal.html",
        "Billing",
        REFUSED if flaw else 200,
        back=anchor(*link, class_="back"),
        who=customer["name"] or customer["email"] or customer["id"],
        problem=problem(flaw),
        panels=_panels(world, session, customer, fields or {}, is_open=flaw is not None),
    )


def _panels(world: World, session: Json, customer: Json, fields: Fields, *, is_open: bool) -> Html:
    card = card_on_file(_card_of(world, customer), world.now())
    only_card = session["flow"] is not None
    if portal.allows(world, session, "payment_method_update"):
        button = tag("button", "Save card", type="submit", id="save-card")
        content = Html(card_form(fields) + button)
        form = tag("form", content, method="post", action=session["id"])
        state = " open" if is_open or only_card else ""
        card = Html(f"{card}<details{state}><summary>Update card</summary>{form}</details>")
    panels = [("Current subscription", _subscriptions(world, customer)), ("Payment method", card)]
    if only_card:
        panels = panels[1:]
    elif portal.allows(world, session, "invoice_history"):
        panels.append(("Invoices", _invoices(world, customer)))
    return Html(
        "".join(
            tag("section", Html(tag("h2", title) + content), class_="panel")
            for title, content in panels
        )
    )


def _change_card(world: World, customer: Json, fields: Fields) -> str | None:
    chosen = read_card(fields, world.now())
    if isinstance(chosen, str):
        return chosen
    try:
        with world.store.transaction():
            portal.change_card(world, customer, *chosen)
    except StripeError as refusal:
        return refusal.message
    return None


def _after_change(session: Json) -> str:
    """Return where a saved card leads: where the session's flow says, or back to this page."""
    redirect = ((session["flow"] or {}).get("after_completion") or {}).get("redirect")
    return redirect["return_url"] if redirect else session["id"]


def _card_of(world: World, customer: Json) -> Json | None:
    for subscription in lifecycle.of_customer(world, customer["id"]):
        return lifecycle.method_of(world, subscription)
    chosen = customer["invoice_settings"]["default_payment_method"]
    return world.store.get(chosen) if chosen else None


def _subscriptions(world: World, customer: Json) -> Html:
    rows = []
    for one in lifecycle.of_customer(world, customer["id"]):
        item = shapes.items_of(one)[0]
        price = item["price"]
        each = f"{money(price['unit_amount'], price['currency'])} per {each_period(price)}"
        verb = "Ends" if one["cancel_at_period_end"] else "Renews"
        turn = f"{verb} {day(item['current_period_end'])}"
        rows.append((shapes.product_name(world, item), each, turn, badge(one["status"])))
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
