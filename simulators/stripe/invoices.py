"""The invoice part of the API; `invoicing` holds what an invoice is."""

from simulators.stripe import changes, invoicing, lifecycle
from simulators.stripe.errors import StripeError, invalid, required
from simulators.stripe.lines import Line, for_period
from simulators.stripe.paging import LIST_PARAMS, answer, answer_short, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World

DETAILS = "subscription_details"


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("invoice", identifier)


def list_invoices(world: World, params: Params) -> Json:
    def wanted(invoice: Json) -> bool:
        return (
            params.get("subscription") in {None, invoicing.subscription_of(invoice)}
            and params.get("status") in {None, invoice["status"]}
            and within(invoice["created"], params.get("created"))
        )

    everything = world.store.every("invoice", params.get("customer"))
    return answer("/v1/invoices", params, everything, wanted)


def list_lines(world: World, params: Params, identifier: str) -> Json:
    invoice = world.need("invoice", identifier)
    return answer_short(f"/v1/invoices/{identifier}/lines", params, invoice["lines"]["data"])


def list_payments(world: World, params: Params) -> Json:
    def wanted(payment: Json) -> bool:
        return params.get("invoice") in {None, payment["invoice"]} and params.get("status") in {
            None,
            payment["status"],
        }

    return answer("/v1/invoice_payments", params, world.store.every("invoice_payment"), wanted)


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
    if invoice["status"] not in {"open", "paid"}:
        raise invalid(
            f"Invoice is {invoice['status']} and cannot be paid", None, "invoice_not_open"
        )
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    if "payment_method" in params:
        method = world.refer("payment_method", params["payment_method"], "payment_method")
    else:
        method = lifecycle.method_of(world, subscription)
    refusal = settle_now(world, invoice, method, on_session=False)
    if refusal:
        raise refusal
    return world.need("invoice", identifier)


def settle_now(
    world: World, invoice: Json, method: Json | None, *, on_session: bool
) -> StripeError | None:
    """Try to collect an open invoice and let its subscription know how it went."""
    invoice, refusal = invoicing.collect(world, invoice, method, on_session=on_session)
    lifecycle.settle(world, invoice, refusal)
    return refusal


def void(world: World, _params: Params, identifier: str) -> Json:
    invoice = world.need("invoice", identifier)
    if invoice["status"] != "open":
        raise invalid("You can only pass in open invoices. This invoice isn't open.")
    voided = invoicing.void(world, invoice)
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    if (subscription.get("_pending") or {}).get("invoice") == identifier:
        lifecycle.expire(world, subscription)
    return voided


def finalize(world: World, _params: Params, identifier: str) -> Json:
    invoice = world.need("invoice", identifier)
    if invoice["status"] != "draft":
        raise invalid(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        )
    return invoicing.finalize(world, invoice)


def create_preview(world: World, params: Params) -> Json:
    """Show the invoice that a change would make, or else the next one; nothing is stored."""
    if "subscription" not in params:
        raise required("subscription")
    before = world.refer("subscription", params["subscription"], "subscription")
    if before["status"] in lifecycle.ENDED:
        raise invalid("No upcoming invoices for customer: the subscription is canceled.")
    change = changes.read(world, params.get(DETAILS) or {})
    outcome = changes.plan(world, before, change)
    identifier = new_id("upcoming_in")
    if outcome.bills_now:
        moments = (world.now(), world.now())
        return invoicing.compose(
            world,
            outcome.after,
            outcome.lines,
            identifier=identifier,
            reason="subscription_update",
            period=moments,
        )
    items = lifecycle.items_of(outcome.after)
    start = items[0]["current_period_end"]
    renewal = [_renewal(world, outcome.after, item) for item in items]
    period = (items[0]["current_period_start"], start)
    return invoicing.compose(
        world,
        outcome.after,
        [*outcome.lines, *renewal],
        identifier=identifier,
        reason="upcoming",
        period=period,
    )


def _renewal(world: World, subscription: Json, item: Json) -> Line:
    start = item["current_period_end"]
    end = lifecycle.end_of_period(item["price"], subscription["billing_cycle_anchor"], start)
    return for_period(item, lifecycle.product_name(world, item), start, end)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/invoices",
        run=list_invoices,
        supports=f"{LIST_PARAMS} customer subscription status created",
    ),
    Operation(method="GET", path="/v1/invoices/{}", run=retrieve, supports="expand"),
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
        supports="expand subscription "
        + " ".join(f"{DETAILS}.{name}" for name in changes.CHANGE_PARAMS.split()),
    ),
    Operation(
        method="POST",
        path="/v1/invoices/{}/pay",
        run=pay,
        supports="payment_method off_session expand",
    ),
    Operation(method="POST", path="/v1/invoices/{}/void", run=void, supports="expand"),
    Operation(method="POST", path="/v1/invoices/{}/finalize", run=finalize, supports="expand"),
)
