"""The invoice part of the API; `invoicing` holds what an invoice is."""

from simulators.stripe import (
    changes,
    discounts,
    events,
    invoicing,
    lifecycle,
    methods,
    payments,
    shapes,
    starting,
    subscriptions,
)
from simulators.stripe.cards import Presence
from simulators.stripe.errors import StripeError, invalid, required
from simulators.stripe.lines import Line, for_period
from simulators.stripe.paging import LIST_PARAMS, answer, answer_short, within
from simulators.stripe.shapes import items_of
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

DETAILS = "subscription_details"
COLLECTABLE = frozenset({"open", "uncollectible"})


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("invoice", identifier)


def update(world: World, params: Params, identifier: str) -> Json:
    before = world.need("invoice", identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    customer = before["customer"]
    method = methods.of_customer(world, params, "default_payment_method", customer)
    if method:
        after["default_payment_method"] = method["id"]
    for name in ("description", "auto_advance"):
        if name in params:
            after[name] = params[name]
    if "auto_advance" in params and before["status"] not in {"draft", "open"}:
        raise invalid("This invoice can no longer be advanced.", "auto_advance")
    if params.get("auto_advance") and before["status"] == "draft":
        after["automatically_finalizes_at"] = world.now() + invoicing.DRAFT_SECONDS
    elif params.get("auto_advance") is False:
        after |= {"automatically_finalizes_at": None, "next_payment_attempt": None}
    return events.changed(world, invoicing.UPDATED, before, after)


def list_invoices(world: World, params: Params) -> Json:
    def wanted(invoice: Json) -> bool:
        return (
            params.get("status") in {None, invoice["status"]}
            and params.get("customer") in {None, invoice["customer"]}
            and ("subscription" in params or subscriptions.is_on_clock(invoice, params))
            and within(invoice["created"], params.get("created"))
        )

    subscription = params.get("subscription")
    customer = None if subscription else params.get("customer")
    everything = world.store.every("invoice", customer, parent=subscription)
    return answer("/v1/invoices", params, everything, wanted)


def list_lines(world: World, params: Params, identifier: str) -> Json:
    invoice = world.need("invoice", identifier)
    return answer_short(f"/v1/invoices/{identifier}/lines", params, invoice["lines"]["data"])


def list_payments(world: World, params: Params) -> Json:
    status = params.get("status")
    shelf = world.store.every("invoice_payment", parent=params.get("invoice"))
    return answer(
        "/v1/invoice_payments", params, shelf, lambda payment: status in {None, payment["status"]}
    )


def list_items(world: World, params: Params) -> Json:
    def wanted(item: Json) -> bool:
        is_waiting = item["invoice"] is None
        return params.get("invoice") in {None, item["invoice"]} and params.get("pending") in {
            None,
            is_waiting,
        }

    everything = world.store.every("invoiceitem", params.get("customer"))
    return answer("/v1/invoiceitems", params, everything, wanted)


def pay(world: World, params: Params, identifier: str) -> Json:
    """Collect an open invoice now.

    Raises:
        StripeError: 402 when the card is refused; the attempt is recorded all the same.
    """
    invoice = world.need("invoice", identifier)
    if invoice["status"] == "paid":
        raise invalid("Invoice is already paid", None, "invoice_already_paid")
    if invoice["status"] == "draft":
        invoice = invoicing.finalize(world, invoice)
    if invoice["status"] == "void":
        raise invalid("Invoice is void and cannot be paid", None, "invoice_not_open")
    if params.get("paid_out_of_band"):
        invoice = invoicing.settle_elsewhere(world, invoice)
        lifecycle.settle(world, invoice, None)
        return world.need("invoice", identifier)
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    customer = invoice["customer"]
    method = methods.of_customer(world, params, "payment_method", customer)
    method = method or lifecycle.method_of(world, subscription, invoice)
    presence = Presence.OFF if params.get("off_session", True) else Presence.ON
    refusal = settle_now(world, invoice, method, presence)
    if refusal:
        raise refusal
    return world.need("invoice", identifier)


def settle_now(
    world: World, invoice: Json, method: Json | None, presence: Presence
) -> StripeError | None:
    """Try to collect an open invoice and let its subscription know how it went."""
    invoice, refusal = invoicing.collect(world, invoice, method, presence)
    lifecycle.settle(world, invoice, refusal, method)
    return refusal


def confirm(world: World, params: Params, identifier: str) -> Json:
    """Try a payment intent again, with another card or with the customer present."""
    intent = world.need("payment_intent", identifier)
    payments.check_confirmable(intent)
    chosen = methods.of_customer(world, params, "payment_method", intent["customer"])
    chosen = chosen or world.store.get(intent["payment_method"] or "")
    if chosen is None:
        raise invalid(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            None,
            "payment_intent_unexpected_state",
        )
    presence = Presence.OFF if params.get("off_session") in {True, "recurring"} else Presence.ON
    invoice = world.need("invoice", intent.get("_invoice", "of this payment"))
    refusal = settle_now(world, invoice, chosen, presence)
    if refusal and refusal.details.get("code") != payments.NEEDS_ACTION:
        raise refusal
    return world.need("payment_intent", identifier)


def void(world: World, _params: Params, identifier: str) -> Json:
    invoice = world.need("invoice", identifier)
    if invoice["status"] not in COLLECTABLE:
        raise invalid("You can only pass in open invoices. This invoice isn't open.")
    voided = invoicing.void(world, invoice)
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    if (subscription.get("_pending") or {}).get("invoice") == identifier:
        lifecycle.expire(world, subscription)
    return voided


def mark_uncollectible(world: World, _params: Params, identifier: str) -> Json:
    invoice = world.need("invoice", identifier)
    if invoice["status"] != "open":
        raise invalid("You can only pass in open invoices. This invoice isn't open.")
    return invoicing.write_off(world, invoice)


def finalize(world: World, _params: Params, identifier: str) -> Json:
    invoice = world.need("invoice", identifier)
    if invoice["status"] != "draft":
        raise invalid(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        )
    opened = invoicing.finalize(world, invoice)
    if opened["status"] == "open" and opened["auto_advance"]:
        after = {**opened, "next_payment_attempt": world.now() + invoicing.DRAFT_SECONDS}
        return events.changed(world, invoicing.UPDATED, opened, after)
    lifecycle.settle(world, opened, None)
    return opened


def create_preview(world: World, params: Params) -> Json:
    """Show the invoice that a change would make, or else the next one; nothing is stored."""
    if "subscription" not in params:
        return _preview_of_start(world, params)
    before = world.refer("subscription", params["subscription"], "subscription")
    if params.get("customer") not in {None, before["customer"]}:
        raise invalid("The subscription does not belong to this customer.", "subscription")
    if before["status"] in lifecycle.ENDED or before["cancel_at_period_end"]:
        raise invalid(
            f"No upcoming invoices for customer: {before['customer']}",
            None,
            "invoice_upcoming_none",
        )
    given = before["discounts"]
    if "discounts" in params:
        given = _imagined_discounts(world, params, before)
        before = {**before, "discounts": given}
    change = changes.read(world, params.get(DETAILS) or {})
    outcome = changes.plan(world, before, change)
    identifier = new_id("upcoming_in")
    if outcome.bills_now:
        bill = invoicing.bill(world, outcome.after, outcome.lines, "subscription_update")
        return invoicing.compose(world, bill, identifier)
    return invoicing.compose(world, _renewal(world, outcome, given), identifier)


def _renewal(world: World, outcome: changes.Outcome, given: list[str | Json]) -> invoicing.Bill:
    """Return the bill of the next period's turn."""
    after = outcome.after
    began, start = shapes.period_of(after)
    end = shapes.next_end(after, items_of(after)[0]["price"], start)
    ahead: list[Line] = [
        for_period(item, shapes.product_name(world, item), start, end) for item in items_of(after)
    ]
    return invoicing.Bill(
        subscription=after,
        lines=[*outcome.lines, *ahead],
        reason="upcoming",
        period=(began, start),
        at=start,
        discounts=given,
    )


def _preview_of_start(world: World, params: Params) -> Json:
    """Show the first invoice of a subscription that a customer could begin now."""
    details = params.get(DETAILS) or {}
    if "customer" not in params:
        raise required("subscription")
    if not details.get("items"):
        raise invalid(
            f"No upcoming invoices for customer: {params['customer']}",
            None,
            "invoice_upcoming_none",
        )
    names = ("items", "trial_end", "proration_behavior")
    wanted = {name: details[name] for name in names if name in details}
    wanted |= {name: params[name] for name in ("customer", "discounts") if name in params}
    wish = subscriptions.read_start(world, wanted)
    subscription, lines = starting.prepare(world, wish)
    subscription["discounts"] = [
        discounts.shape(world, *one, customer=None, subscription=None) for one in wish.discounts
    ]
    bill = invoicing.bill(world, subscription, lines, "upcoming")
    return invoicing.compose(world, bill, new_id("upcoming_in"))


def _imagined_discounts(world: World, params: Params, before: Json) -> list[str | Json]:
    wishes = params["discounts"] or []
    customer = world.store.get(before["customer"])
    amount = sum(one["price"]["unit_amount"] * one["quantity"] for one in items_of(before))
    kept = discounts.kept(world, wishes, before["discounts"])
    fresh = [wish for wish in wishes if "discount" not in wish]
    chosen = discounts.read(world, fresh, customer, amount)
    owner = {"customer": before["customer"], "subscription": before["id"]}
    return [*kept, *(discounts.shape(world, *one, **owner) for one in chosen)]


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/invoices",
        run=list_invoices,
        supports=f"{LIST_PARAMS} customer subscription status created",
    ),
    Operation(method="GET", path="/v1/invoices/{}", run=retrieve, supports="expand"),
    Operation(
        method="POST",
        path="/v1/invoices/{}",
        run=update,
        supports="metadata description auto_advance default_payment_method expand",
    ),
    Operation(method="GET", path="/v1/invoices/{}/lines", run=list_lines, supports=LIST_PARAMS),
    Operation(
        method="GET",
        path="/v1/invoice_payments",
        run=list_payments,
        supports=f"{LIST_PARAMS} invoice status",
    ),
    Operation(
        method="GET",
        path="/v1/invoiceitems",
        run=list_items,
        supports=f"{LIST_PARAMS} customer invoice pending",
    ),
    Operation(
        method="POST",
        path="/v1/invoices/create_preview",
        run=create_preview,
        supports=f"expand subscription customer {discounts.WISHES} discounts.discount "
        + " ".join(f"{DETAILS}.{name}" for name in changes.CHANGE_PARAMS.split()),
    ),
    Operation(
        method="POST",
        path="/v1/invoices/{}/pay",
        run=pay,
        supports="payment_method off_session paid_out_of_band expand",
    ),
    Operation(method="POST", path="/v1/invoices/{}/void", run=void, supports="expand"),
    Operation(
        method="POST",
        path="/v1/invoices/{}/mark_uncollectible",
        run=mark_uncollectible,
        supports="expand",
    ),
    Operation(method="POST", path="/v1/invoices/{}/finalize", run=finalize, supports="expand"),
    Operation(
        method="POST",
        path="/v1/payment_intents/{}/confirm",
        run=confirm,
        supports="payment_method off_session return_url expand",
    ),
)
