"""Invoices from draft to paid: totals, numbers, the customer's balance, collecting the money."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from simulators.stripe import balances, discounts, events, payments
from simulators.stripe.cards import Presence
from simulators.stripe.clock import HOUR, later
from simulators.stripe.errors import StripeError
from simulators.stripe.invoice_shape import blanks
from simulators.stripe.lines import Line, as_line_item, from_invoice_item
from simulators.stripe.paging import listing
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import World

DRAFT_SECONDS = HOUR  # Stripe finalises a renewal's draft about an hour after the period's turn
RETRY_DAYS = (3, 5, 7)  # Stripe's custom retry schedule, at its defaults
SMALLEST_CHARGE = 50  # less than half a dollar is not charged but owed on the next invoice
UPDATED = "invoice.updated"


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What an invoice is made of; `at` is the moment that decides which discounts still count."""

    subscription: Json
    lines: list[Line]
    reason: str
    period: tuple[int, int]
    at: int
    discounts: list[str | Json] = field(default_factory=list)


def bill(world: World, subscription: Json, lines: list[Line], reason: str) -> Bill:
    """Return the bill for something that happens now."""
    now = world.now()
    return Bill(
        subscription=subscription,
        lines=lines,
        reason=reason,
        period=(now, now),
        at=now,
        discounts=list(subscription["discounts"]),
    )


def draft(world: World, wanted: Bill, finalizes_at: int | None = None) -> Json:
    """Store a draft with these lines and everything that was waiting for the next invoice."""
    identifier = new_id("in")
    invoice = compose(world, wanted, identifier)
    for waiting in list(waiting_items(world, wanted.subscription)):
        world.store.put({**waiting, "invoice": identifier})
    invoice["automatically_finalizes_at"] = finalizes_at
    return events.created(world, "invoice.created", invoice)


def compose(world: World, wanted: Bill, identifier: str) -> Json:
    """Return a draft without storing anything: also what a preview shows."""
    subscription = wanted.subscription
    customer = world.store.get(subscription["customer"]) or {}
    on_invoice = [
        *(from_invoice_item(one, identifier) for one in waiting_items(world, subscription)),
        *(as_line_item(line, identifier, subscription["metadata"]) for line in wanted.lines),
    ]
    given = discounts.in_force(world, wanted.discounts, wanted.at)
    taken_off = discounts.apply(on_invoice, given)
    subtotal = sum(line["amount"] for line in on_invoice)
    total = subtotal - sum(one["amount"] for one in taken_off)
    balance = customer.get("balance", 0)
    due = _due(total, balance)
    return {
        "id": identifier,
        "object": "invoice",
        **blanks(),
        "amount_due": due,
        "amount_remaining": due,
        "billing_reason": wanted.reason,
        "created": world.now(),
        "currency": subscription["currency"],
        "customer": subscription["customer"],
        "customer_email": customer.get("email"),
        "customer_name": customer.get("name"),
        "customer_phone": customer.get("phone"),
        "customer_address": customer.get("address"),
        "discounts": [one["id"] for one in given],
        "lines": listing(f"/v1/invoices/{identifier}/lines", on_invoice),
        "parent": {
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": {
                "metadata": subscription["metadata"],
                "subscription": subscription["id"],
            },
        },
        "period_start": wanted.period[0],
        "period_end": wanted.period[1],
        "starting_balance": balance,
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "test_clock": subscription["test_clock"],
        "total": total,
        "total_discount_amounts": taken_off,
        "total_excluding_tax": total,
        "total_pretax_credit_amounts": [{**one, "type": "discount"} for one in taken_off],
    }


def waiting_items(world: World, subscription: Json) -> Iterator[Json]:
    """Walk the invoice items that the subscription's next invoice will collect."""
    for item in world.store.every("invoiceitem", parent=subscription["id"]):
        if item["invoice"] is None:
            yield item


def finalize(world: World, invoice: Json) -> Json:
    """Give the invoice its number, settle it with the customer's balance, and open it."""
    customer = world.customer(invoice["customer"])
    sequence = customer["next_invoice_sequence"]
    due = _due(invoice["total"], customer["balance"])
    opened = {
        **invoice,
        "amount_due": due,
        "amount_remaining": due,
        "automatically_finalizes_at": None,
        "effective_at": world.now(),
        "hosted_invoice_url": f"{world.public_url}/i/{invoice['id']}",
        "number": f"{customer['invoice_prefix']}-{sequence:04d}",
        "starting_balance": customer["balance"],
        "status": "open",
        "status_transitions": {**invoice["status_transitions"], "finalized_at": world.now()},
    }
    customer = world.store.put({**customer, "next_invoice_sequence": sequence + 1})
    opened["ending_balance"] = _settle_balance(world, customer, invoice, due)
    _spend_discounts(world, opened)
    if due:
        _request_payment(world, opened)
    world.store.put(opened)
    events.record(world, "invoice.finalized", opened)
    return opened if due else _paid(world, opened)


def collect(
    world: World, invoice: Json, method: Json | None, presence: Presence
) -> tuple[Json, StripeError | None]:
    """Try once to take the money of an open invoice; return it as it then is, and why not paid."""
    if invoice["status"] not in {"open", "uncollectible"} or not invoice["amount_remaining"]:
        return invoice, None
    payment, intent = _payment(world, invoice)
    refusal = payments.attempt(world, intent, method, presence)
    tried = {**invoice, "attempted": True, "attempt_count": invoice["attempt_count"] + 1}
    if refusal:
        world.store.put(tried)
        if refusal.details.get("code") == payments.NEEDS_ACTION:
            events.record(world, "invoice.payment_action_required", tried)
        events.record(world, "invoice.payment_failed", tried)
        return tried, refusal
    _end_payment(world, payment, "paid", amount=invoice["amount_remaining"])
    return _paid(world, tried), None


def schedule_retry(world: World, invoice: Json) -> tuple[Json, bool]:
    """Plan the next try of a refused invoice; the second value says that there is none left."""
    retries = invoice.get("_retries", 0)
    is_last = retries >= len(RETRY_DAYS)
    planned = None if is_last else later(world.now(), days=RETRY_DAYS[retries])
    after = {**invoice, "next_payment_attempt": planned, "_retries": retries + 1}
    if is_last:
        after["auto_advance"] = False
    events.changed(world, UPDATED, invoice, after)
    return after, is_last


def stop(world: World, invoice: Json) -> None:
    """Leave a draft or open invoice as it is: nothing more happens to it by itself."""
    stopped = {
        **invoice,
        "auto_advance": False,
        "automatically_finalizes_at": None,
        "next_payment_attempt": None,
    }
    events.changed(world, UPDATED, invoice, stopped)


def void(world: World, invoice: Json) -> Json:
    """Take an invoice back as if it had never been; credit that it used is given back."""
    voided = _closed(world, invoice, "void", "voided_at")
    _give_up_payment(world, invoice)
    used = (invoice["ending_balance"] or 0) - invoice["starting_balance"]
    customer = world.store.get(invoice["customer"]) or {}
    if used > 0 and not customer.get("deleted"):
        balances.change(
            world,
            customer,
            -used,
            kind="unapplied_from_invoice",
            currency=invoice["currency"],
            invoice=invoice["id"],
        )
    events.record(world, "invoice.voided", voided)
    return voided


def write_off(world: World, invoice: Json) -> Json:
    """Mark an invoice as uncollectible; it can still be paid or voided."""
    written_off = _closed(world, invoice, "uncollectible", "marked_uncollectible_at")
    events.record(world, "invoice.marked_uncollectible", written_off)
    return written_off


def settle_elsewhere(world: World, invoice: Json) -> Json:
    """Mark an invoice as paid by other means than Stripe."""
    _give_up_payment(world, invoice)
    return _paid(world, {**invoice, "amount_paid_off_stripe": invoice["amount_remaining"]})


def payments_of(world: World, invoice: Json) -> Iterator[Json]:
    if "_payment" in invoice:
        yield _payment(world, invoice)[0]


def intent_of(world: World, invoice: Json) -> Json | None:
    return _payment(world, invoice)[1] if "_payment" in invoice else None


def subscription_of(invoice: Json) -> str:
    return invoice["parent"]["subscription_details"]["subscription"]


def of_subscription(world: World, subscription: Json) -> Iterator[Json]:
    yield from world.store.every("invoice", parent=subscription["id"])


def _due(total: int, balance: int) -> int:
    left = total + balance
    return left if left >= SMALLEST_CHARGE else 0


def _settle_balance(world: World, customer: Json, invoice: Json, due: int) -> int:
    """Use up the customer's credit, or add to it; return the balance that is left."""
    left = invoice["total"] + customer["balance"] - due
    if left != customer["balance"]:
        kind = "invoice_too_small" if left > 0 else "applied_to_invoice"
        balances.change(
            world,
            customer,
            left - customer["balance"],
            kind=kind,
            currency=invoice["currency"],
            invoice=invoice["id"],
        )
    return left


def _spend_discounts(world: World, invoice: Json) -> None:
    used = [one["discount"] for one in invoice["total_discount_amounts"] if one["amount"]]
    before = world.store.get(subscription_of(invoice)) if used else None
    if before:
        after = discounts.spend(world, before, used)
        events.changed(world, "customer.subscription.updated", before, after)


def _payment(world: World, invoice: Json) -> tuple[Json, Json]:
    payment = world.store.get(invoice["_payment"]) or {}
    return payment, world.store.get(payment["payment"]["payment_intent"]) or {}


def _request_payment(world: World, invoice: Json) -> None:
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
        "created": world.wall(),
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
    world.store.put(payment)
    world.store.put({**intent, "_invoice": invoice["id"]})
    invoice["_payment"] = payment["id"]


def _end_payment(world: World, payment: Json, status: str, amount: int | None = None) -> None:
    done = {"canceled_at": None, "paid_at": None}
    done["paid_at" if status == "paid" else "canceled_at"] = world.wall()
    ended = {**payment, "amount_paid": amount, "status": status, "status_transitions": done}
    world.store.put(ended)
    if status == "paid":
        events.record(world, "invoice_payment.paid", ended)


def _give_up_payment(world: World, invoice: Json) -> None:
    if "_payment" in invoice:
        payment, intent = _payment(world, invoice)
        _end_payment(world, payment, "canceled")
        payments.cancel_intent(world, intent, "void_invoice")


def _closed(world: World, invoice: Json, status: str, moment: str) -> Json:
    return world.store.put(
        {
            **invoice,
            "auto_advance": False,
            "next_payment_attempt": None,
            "status": status,
            "status_transitions": {**invoice["status_transitions"], moment: world.now()},
        }
    )


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
