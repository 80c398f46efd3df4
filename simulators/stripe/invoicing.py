"""Invoices from draft to paid: totals, numbers, the customer's balance, collecting the money."""

from collections.abc import Iterable, Iterator

from simulators.stripe import events, payments
from simulators.stripe.clock import HOUR, later
from simulators.stripe.errors import StripeError
from simulators.stripe.lines import Line, as_line_item, from_invoice_item
from simulators.stripe.paging import listing
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import World

ACCOUNT = "Test shop"
DRAFT_SECONDS = HOUR  # Stripe finalises a renewal's draft about an hour after the period's turn
RETRY_DAYS = (3, 5, 7)  # Stripe's custom retry schedule, at its defaults


def draft(
    world: World,
    subscription: Json,
    new_lines: Iterable[Line],
    *,
    reason: str,
    period: tuple[int, int],
    finalizes_at: int | None = None,
) -> Json:
    """Store a draft with these lines and everything that was waiting for the next invoice."""
    identifier = new_id("in")
    invoice = compose(
        world, subscription, new_lines, identifier=identifier, reason=reason, period=period
    )
    for waiting in waiting_items(world, subscription):
        world.store.put({**waiting, "invoice": identifier})
    invoice["automatically_finalizes_at"] = finalizes_at
    return events.created(world, "invoice.created", invoice)


def compose(
    world: World,
    subscription: Json,
    new_lines: Iterable[Line],
    *,
    identifier: str,
    reason: str,
    period: tuple[int, int],
) -> Json:
    """Return a draft without storing anything: also what a preview shows."""
    customer = world.store.get(subscription["customer"]) or {}
    on_invoice = [
        *(from_invoice_item(one, identifier) for one in waiting_items(world, subscription)),
        *(as_line_item(line, identifier, subscription["metadata"]) for line in new_lines),
    ]
    total = sum(line["amount"] for line in on_invoice)
    balance = customer.get("balance", 0)
    due = max(0, total + balance)
    return {
        "id": identifier,
        "object": "invoice",
        **_blanks(),
        "amount_due": due,
        "amount_remaining": due,
        "billing_reason": reason,
        "created": world.now(),
        "currency": subscription["currency"],
        "customer": subscription["customer"],
        "customer_email": customer.get("email"),
        "customer_name": customer.get("name"),
        "customer_phone": customer.get("phone"),
        "customer_address": customer.get("address"),
        "lines": listing(f"/v1/invoices/{identifier}/lines", on_invoice),
        "parent": {
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": {
                "metadata": subscription["metadata"],
                "subscription": subscription["id"],
            },
        },
        "period_start": period[0],
        "period_end": period[1],
        "starting_balance": balance,
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
    }


def waiting_items(world: World, subscription: Json) -> Iterator[Json]:
    for item in world.store.every("invoiceitem", subscription["customer"]):
        owner = item["parent"]["subscription_details"]["subscription"]
        if item["invoice"] is None and owner == subscription["id"]:
            yield item


def finalize(world: World, invoice: Json) -> Json:
    """Give the invoice its number, settle it with the customer's balance, and open it."""
    customer = world.store.get(invoice["customer"]) or {}
    sequence = customer["next_invoice_sequence"]
    left = invoice["total"] + customer["balance"]
    opened = {
        **invoice,
        "amount_due": max(0, left),
        "amount_remaining": max(0, left),
        "automatically_finalizes_at": None,
        "effective_at": world.now(),
        "ending_balance": min(0, left),
        "hosted_invoice_url": f"{world.public_url}/i/{invoice['id']}",
        "number": f"{customer['invoice_prefix']}-{sequence:04d}",
        "starting_balance": customer["balance"],
        "status": "open",
        "status_transitions": {**invoice["status_transitions"], "finalized_at": world.now()},
    }
    after = {**customer, "next_invoice_sequence": sequence + 1, "balance": min(0, left)}
    if after["balance"] != customer["balance"]:
        events.changed(world, "customer.updated", customer, after)
    else:
        world.store.put(after)
    if opened["amount_due"]:
        _bill(world, opened)
    world.store.put(opened)
    events.record(world, "invoice.finalized", opened)
    return opened if opened["amount_due"] else _paid(world, opened)


def collect(
    world: World, invoice: Json, method: Json | None, *, on_session: bool
) -> tuple[Json, StripeError | None]:
    """Try once to take the money of an open invoice; return it as it then is, and why not paid."""
    if invoice["status"] != "open":
        return invoice, None
    payment, intent = _payment(world, invoice)
    refusal = payments.attempt(world, intent, method, on_session=on_session)
    tried = {**invoice, "attempted": True, "attempt_count": invoice["attempt_count"] + 1}
    if refusal:
        world.store.put(tried)
        events.record(world, "invoice.payment_failed", tried)
        return tried, refusal
    done = {"canceled_at": None, "paid_at": world.now()}
    world.store.put(
        {
            **payment,
            "amount_paid": invoice["amount_due"],
            "status": "paid",
            "status_transitions": done,
        }
    )
    return _paid(world, tried), None


def schedule_retry(world: World, invoice: Json) -> tuple[Json, bool]:
    """Plan the next try of a refused invoice; the second value says that there is none left."""
    retries = invoice.get("_retries", 0)
    is_last = retries >= len(RETRY_DAYS)
    planned = None if is_last else later(world.now(), days=RETRY_DAYS[retries])
    after = {**invoice, "next_payment_attempt": planned, "_retries": retries + 1}
    if is_last:
        after["auto_advance"] = False
    events.changed(world, "invoice.updated", invoice, after)
    return after, is_last


def stop(world: World, invoice: Json) -> None:
    """Leave a draft or open invoice as it is: nothing more happens to it by itself."""
    stopped = {
        **invoice,
        "auto_advance": False,
        "automatically_finalizes_at": None,
        "next_payment_attempt": None,
    }
    events.changed(world, "invoice.updated", invoice, stopped)


def void(world: World, invoice: Json) -> Json:
    voided = {
        **invoice,
        "status": "void",
        "next_payment_attempt": None,
        "status_transitions": {**invoice["status_transitions"], "voided_at": world.now()},
    }
    payment, intent = _payment(world, invoice)
    done = {"canceled_at": world.now(), "paid_at": None}
    world.store.put({**payment, "status": "canceled", "status_transitions": done})
    payments.cancel_intent(world, intent, "void_invoice")
    world.store.put(voided)
    events.record(world, "invoice.voided", voided)
    return voided


def payments_of(world: World, invoice: Json) -> Iterator[Json]:
    if "_payment" in invoice:
        yield _payment(world, invoice)[0]


def subscription_of(invoice: Json) -> str:
    return invoice["parent"]["subscription_details"]["subscription"]


def of_subscription(world: World, subscription: Json) -> Iterator[Json]:
    for invoice in world.store.every("invoice", subscription["customer"]):
        if subscription_of(invoice) == subscription["id"]:
            yield invoice


def _payment(world: World, invoice: Json) -> tuple[Json, Json]:
    payment = world.store.get(invoice["_payment"]) or {}
    return payment, world.store.get(payment["payment"]["payment_intent"]) or {}


def _bill(world: World, invoice: Json) -> None:
    """Make the payment intent that collects the invoice, and the link between the two."""
    intent = payments.new_intent(
        world,
        invoice["customer"],
        invoice["amount_due"],
        invoice["currency"],
        DESCRIPTIONS[invoice["billing_reason"]],
    )
    payment: Json = {
        "id": new_id("inpay"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice["amount_due"],
        "created": world.now(),
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
    world.store.put(payment)
    invoice["_payment"] = payment["id"]


def _paid(world: World, invoice: Json) -> Json:
    paid = {
        **invoice,
        "amount_paid": invoice["amount_due"],
        "amount_remaining": 0,
        "attempted": True,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "paid",
        "status_transitions": {**invoice["status_transitions"], "paid_at": world.now()},
    }
    world.store.put(paid)
    events.record(world, "invoice.paid", paid)
    events.record(world, "invoice.payment_succeeded", paid)
    return paid


DESCRIPTIONS = {
    "subscription_create": "Subscription creation",
    "subscription_update": "Subscription update",
    "subscription_cycle": "Subscription renewal",
}
NOTHING = (
    "account_tax_ids application automatically_finalizes_at custom_fields customer_account"
    " customer_shipping default_payment_method default_source description due_date effective_at"
    " ending_balance footer from_invoice hosted_invoice_url invoice_pdf last_finalization_error"
    " latest_revision next_payment_attempt number on_behalf_of receipt_number rendering"
    " shipping_cost shipping_details statement_descriptor test_clock webhooks_delivered_at"
)
ZEROES = (
    "amount_overpaid amount_paid amount_shipping attempt_count post_payment_credit_notes_amount"
    " pre_payment_credit_notes_amount"
)
EMPTY_LISTS = (
    "customer_tax_ids default_tax_rates discounts total_discount_amounts"
    " total_pretax_credit_amounts total_taxes"
)


def _blanks() -> Json:
    """Return what no invoice of this simulator uses, so that answers have all their fields."""
    return {
        **dict.fromkeys(NOTHING.split()),
        **dict.fromkeys(ZEROES.split(), 0),
        **{name: [] for name in EMPTY_LISTS.split()},
        "account_country": "US",
        "account_name": ACCOUNT,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "collection_method": "charge_automatically",
        "customer_tax_exempt": "none",
        "issuer": {"type": "self"},
        "livemode": False,
        "metadata": {},
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
    }
