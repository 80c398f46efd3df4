"""What a subscription costs: the lines of its invoices, and what a change in a period is worth."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from simulators.stripe.clock import day
from simulators.stripe.store import Json, new_id

SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£"}
WITHOUT_CENTS = frozenset({"jpy", "krw", "vnd"})


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line before it belongs to an invoice; `item` is the subscription item.

    The amount is before discounts; a proration already has them in it, so it takes no more.
    """

    item: Json
    amount: int
    description: str
    start: int
    end: int
    proration: bool = False
    discountable: bool = True


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


def for_trial(item: Json, name: str) -> Line:
    return Line(
        item=item,
        amount=0,
        description=f"Trial period for {name}",
        start=item["current_period_start"],
        end=item["current_period_end"],
    )


def until_anchor(item: Json, name: str, amount: int) -> Line:
    """Return what the time up to the first billing date costs."""
    start, end = item["current_period_start"], item["current_period_end"]
    return Line(
        item=item,
        amount=amount,
        description=f"Time on {name} from {day(start)} until {day(end)}",
        start=start,
        end=end,
        proration=True,
    )


def unused(item: Json, name: str, billed: int, at: int) -> Line:
    """Return what is given back for the rest of the item's period, of what was billed for it."""
    return Line(
        item=item,
        amount=-half_up(billed * left_of(item, at)),
        description=f"Unused time on {name} after {day(at)}",
        start=at,
        end=item["current_period_end"],
        proration=True,
        discountable=False,
    )


def remaining(item: Json, name: str, price: int, at: int) -> Line:
    """Return what the rest of the item's period costs, where all of it would cost `price`."""
    return Line(
        item=item,
        amount=half_up(price * left_of(item, at)),
        description=f"Remaining time on {name} after {day(at)}",
        start=at,
        end=item["current_period_end"],
        proration=True,
        discountable=False,
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


def as_invoice_item(line: Line, subscription: Json, now: int) -> Json:
    """Return the line as something that the next invoice will collect."""
    common = _common(line)
    return {
        **{key: common[key] for key in COMMON_TO_ITEMS},
        "id": new_id("ii"),
        "object": "invoiceitem",
        "customer": subscription["customer"],
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
        "test_clock": subscription["test_clock"],
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
        "discountable": line.discountable,
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


def left_of(item: Json, at: int) -> Fraction:
    """Return the part of the item's period that is still to come, by the second as Stripe does."""
    start, end = item["current_period_start"], item["current_period_end"]
    return min(Fraction(1), max(Fraction(0), Fraction(end - at, end - start)))


def half_up(amount: Fraction) -> int:
    """Round as money is rounded: half a cent is a cent."""
    return floor(amount + Fraction(1, 2))


def billed_by(invoice: Json) -> dict[str, int]:
    """Return what an invoice takes for each subscription item's period, after discounts."""
    billed: dict[str, int] = {}
    for line in invoice["lines"]["data"]:
        details = line["parent"]["subscription_item_details"]
        if details and line["discountable"]:
            net = line["amount"] - sum(one["amount"] for one in line["discount_amounts"])
            billed[details["subscription_item"]] = net
    return billed
