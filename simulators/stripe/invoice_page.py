"""A hosted invoice that can be paid, and the bank's 3-D Secure page for a payment that waits."""

from starlette.responses import RedirectResponse, Response

from simulators.stripe import invoices, invoicing, lifecycle, payments, portal
from simulators.stripe.cards import Presence
from simulators.stripe.clock import day
from simulators.stripe.errors import StripeError
from simulators.stripe.lines import money
from simulators.stripe.rendering import (
    Fields,
    Html,
    badge,
    card_form,
    join,
    message,
    page,
    problem,
    read_card,
    tag,
)
from simulators.stripe.store import Json
from simulators.stripe.world import World

SEE_OTHER, REFUSED, NOT_FOUND, GONE = 303, 402, 404, 410


def show(world: World, identifier: str, fields: Fields | None) -> Response:
    invoice = world.store.get(identifier, "invoice")
    if invoice is None or invoice["status"] == "draft":
        return message("This page does not exist", "No such invoice.", NOT_FOUND)
    flaw = None
    if fields is not None and invoice["status"] in invoices.COLLECTABLE:
        flaw = _pay(world, invoice, fields)
        invoice = world.store.get(identifier) or invoice
        intent = invoicing.intent_of(world, invoice) or {}
        if intent.get("status") == "requires_action":
            return RedirectResponse(f"../3ds/{intent['id']}", SEE_OTHER)
        if flaw is None:
            return RedirectResponse(identifier, SEE_OTHER)
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
        sums=join(_sums(invoice)),
        payment=_payment(invoice, fields or {}),
    )


def show_challenge(world: World, identifier: str, fields: Fields | None) -> Response:
    """Ask the card's owner, as their bank would, whether they mean to pay."""
    intent = world.store.get(identifier, "payment_intent")
    invoice = world.store.get((intent or {}).get("_invoice") or "", "invoice")
    if intent is None or invoice is None:
        return message("This page does not exist", "No such payment.", NOT_FOUND)
    address = f"../i/{invoice['id']}"
    if intent["status"] != "requires_action":
        link = ("Go to the invoice", address)
        return message("Nothing to confirm", "This payment no longer waits.", GONE, link=link)
    method = world.store.get(intent["payment_method"] or "") or {}
    if fields is None:
        return page(
            "challenge.html",
            "3-D Secure",
            deed=f"pays {money(intent['amount'], intent['currency'])}",
            last4=method["card"]["last4"],
            action=identifier,
            kept="",
        )
    with world.store.transaction():
        if fields.get("outcome") == "complete":
            invoices.settle_now(world, invoice, method, Presence.AUTHENTICATED)
        else:
            payments.fail_challenge(world, intent)
    return RedirectResponse(address, SEE_OTHER)


def _pay(world: World, invoice: Json, fields: Fields) -> str | None:
    """Pay with a new card, which then also pays what follows; return why it was refused."""
    customer = world.store.get(invoice["customer"], "customer")
    chosen = read_card(fields, world.now())
    if isinstance(chosen, str):
        return chosen
    if customer is None or customer.get("deleted"):
        return "This customer does not exist any more."
    try:
        with world.store.transaction():
            method = portal.change_card(world, customer, *chosen)
            subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
            method = lifecycle.method_of(world, subscription, invoice) or method
            refusal = invoices.settle_now(world, invoice, method, Presence.ON)
            if refusal and refusal.details.get("code") != payments.NEEDS_ACTION:
                raise refusal
    except StripeError as error:
        return error.message
    return None


def _payment(invoice: Json, fields: Fields) -> Html:
    if invoice["status"] not in invoices.COLLECTABLE:
        return Html("")
    due = money(invoice["amount_remaining"], invoice["currency"])
    button = tag("button", f"Pay {due}", class_="wide", id="pay-invoice", type="submit")
    content = Html(card_form(fields) + button)
    form = tag("form", content, method="post", action=invoice["id"])
    return tag("section", form, class_="panel")


def _line(line: Json) -> Html:
    amount = tag("td", money(line["amount"], line["currency"]), class_="right number")
    return tag("tr", Html(tag("td", line["description"]) + amount))


def _sums(invoice: Json) -> list[Html]:
    """Return what is taken off and what is left to pay; the plain total when there is no more."""
    currency = invoice["currency"]
    off = sum(one["amount"] for one in invoice["total_discount_amounts"])
    credit = invoice["amount_due"] - invoice["total"]
    rows = [("Discount", -off)] if off else []
    if credit and invoice["total"] > 0:
        rows += [("Total", invoice["total"]), ("Applied balance", credit)]
    rows.append(("Amount due" if credit else "Total", invoice["amount_due"]))
    return [
        tag(
            "div",
            Html(tag("span", words) + tag("span", money(amount, currency), class_="number")),
            class_="sum total" if words == rows[-1][0] else "sum",
        )
        for words, amount in rows
    ]
