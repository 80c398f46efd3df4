"""What a subscription costs: the lines of its invoices, and what a change in a period is worth."""

from dataclasses import dataclass
from fractions import Fraction

from simulators.stripe.clock import day
from simulators.stripe.store import Json, new_id

SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£"}
WITHOUT_CENTS = frozenset({"jpy", "krw", "vnd"})


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line before it belongs to an invoice; `item` is the subscription item."""

    item: Json
    amount: int
    description: str
    start: int
    end: int
    proration: bool = False


def money(amount: int, currency: str) -> str:
    sign = "-" if amount < 0 else ""
    number = f"{abs(amount):,}" if currency in WITHOUT_CENTS else f"{abs(amount) / 100:,.2f}"
    if currency in SYMBOLS:
        return f"{sign}{SYMBOLS[currency]}{number}"
    return f"{sign}{number} {currency.upper()}"


def each_period(price: Json) -> str:
    """Return "month", or "3 months"."""
    recurring = price["recurring"]
    count = recurring["interval_count"]
    return recurring["interval"] if count == 1 else f"{count} {recurring['interval']}s"


def cost(item: Json) -> int:
    return item["price"]["unit_amount"] * item["quantity"]


def for_period(item: Json, name: str, start: int, end: int) -> Line:
    price = item["price"]
    each = f"{money(price['unit_amount'], price['currency'])} / {each_period(price)}"
    return Line(
        item=item,
        amount=cost(item),
        description=f"{item['quantity']} × {name} (at {each})",  # noqa: RUF001 - Stripe's own sign
        start=start,
        end=end,
    )


def unused(item: Json, name: str, at: int) -> Line:
    """Return what is given back for the rest of the item's period."""
    left = _left(item, at)
    return Line(
        item=item,
        amount=-round(cost(item) * left),
        description=f"Unused time on {name} after {day(at)}",
        start=at,
        end=item["current_period_end"],
        proration=True,
    )


def remaining(item: Json, name: str, at: int) -> Line:
    """Return what the rest of the item's period costs."""
    left = _left(item, at)
    return Line(
        item=item,
        amount=round(cost(item) * left),
        description=f"Remaining time on {name} after {day(at)}",
        start=at,
        end=item["current_period_end"],
        proration=True,
    )


def as_line_item(line: Line, invoice: str, metadata: Json) -> Json:
    """Return the line as it stands on an invoice."""
    return {
        **_common(line),
        "id": new_id("il"),
        "object": "line_item",
        "invoice": invoice,
        "metadata": metadata,
        "parent": {
            "type": "subscription_item_details",
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": line.proration,
                "proration_details": {"credited_items": None},
                "subscription": line.item["subscription"],
                "subscription_item": line.item["id"],
            },
        },
        "quantity": line.item["quantity"],
    }


def as_invoice_item(line: Line, customer: str, now: int) -> Json:
    """Return the line as something that the next invoice will collect."""
    common = _common(line)
    return {
        **{key: common[key] for key in COMMON_TO_ITEMS},
        "id": new_id("ii"),
        "object": "invoiceitem",
        "customer": customer,
        "customer_account": None,
        "date": now,
        "invoice": None,
        "metadata": {},
        "net_amount": line.amount,
        "parent": {
            "type": "subscription_details",
            "subscription_details": {
                "subscription": line.item["subscription"],
                "subscription_item": line.item["id"],
            },
        },
        "proration": line.proration,
        "proration_details": {"discount_amounts": []},
        "quantity": line.item["quantity"],
        "tax_rates": [],
        "test_clock": None,
    }


def from_invoice_item(waiting: Json, invoice: str) -> Json:
    """Return the line that an invoice item becomes when an invoice collects it."""
    owner = waiting["parent"]["subscription_details"]
    return {
        **{key: waiting[key] for key in COMMON_TO_ITEMS},
        "id": new_id("il"),
        "object": "line_item",
        "discount_amounts": [],
        "invoice": invoice,
        "metadata": waiting["metadata"],
        "parent": {
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": waiting["id"],
                "proration": waiting["proration"],
                "proration_details": {"credited_items": None},
                "subscription": owner["subscription"],
            },
            "subscription_item_details": None,
        },
        "pretax_credit_amounts": [],
        "quantity": waiting["quantity"],
        "subscription": owner["subscription"],
        "subtotal": waiting["amount"],
        "taxes": [],
    }


COMMON_TO_ITEMS = (
    "amount",
    "currency",
    "description",
    "discountable",
    "discounts",
    "livemode",
    "period",
    "pricing",
    "quantity_decimal",
)


def _common(line: Line) -> Json:
    price = line.item["price"]
    return {
        "amount": line.amount,
        "currency": price["currency"],
        "description": line.description,
        "discount_amounts": [],
        "discountable": not line.proration,
        "discounts": [],
        "livemode": False,
        "period": {"start": line.start, "end": line.end},
        "pretax_credit_amounts": [],
        "pricing": {
            "type": "price_details",
            "price_details": {"price": price["id"], "product": price["product"]},
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity_decimal": str(line.item["quantity"]),
        "subscription": line.item["subscription"],
        "subtotal": line.amount,
        "taxes": [],
    }


def _left(item: Json, at: int) -> Fraction:
    """Return the part of the item's period that is still to come, by the second as Stripe does."""
    start, end = item["current_period_start"], item["current_period_end"]
    return min(Fraction(1), max(Fraction(0), Fraction(end - at, end - start)))
