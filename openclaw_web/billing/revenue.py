"""What came in, month by month, in cents; and whether Stripe's books say the same.

An invoice counts in the month (UTC) in which it was paid, and so does what was given back of it.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import Invoice
from openclaw_web.integrations.payment_books import BookedInvoice

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Month:
    """One month in one currency; `month` is written 2028-02."""

    month: str
    currency: str
    invoices: int
    paid_cents: int
    refunded_cents: int

    @property
    def revenue_cents(self) -> int:
        return self.paid_cents - self.refunded_cents


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A month or an invoice of which our copy says something else than Stripe."""

    subject: str
    sentence: str


async def report(session: AsyncSession) -> list[Month]:
    """Return our own books, the oldest month first."""
    return sums(await booked_here(session))


async def booked_here(session: AsyncSession) -> list[BookedInvoice]:
    """Return every paid invoice of our own copy that brought money."""
    found = await session.exec(
        select(Invoice).where(col(Invoice.status) == "paid", col(Invoice.paid_cents) > 0)
    )
    return [
        BookedInvoice(
            id=one.stripe_invoice_id,
            stripe_customer_id="",
            currency=one.currency,
            paid_cents=one.paid_cents,
            refunded_cents=one.refunded_cents,
            paid_at=one.paid_at,
        )
        for one in found
        if one.paid_at is not None
    ]


def sums(invoices: Iterable[BookedInvoice]) -> list[Month]:
    """Add up invoices by the month in which they were paid."""
    by_month: dict[Key, list[BookedInvoice]] = defaultdict(list)
    for one in invoices:
        by_month[_month(one.paid_at), one.currency].append(one)
    return [
        Month(
            month=month,
            currency=currency,
            invoices=len(some),
            paid_cents=sum(one.paid_cents for one in some),
            refunded_cents=sum(one.refunded_cents for one in some),
        )
        for (month, currency), some in sorted(by_month.items())
    ]


def differences(ours: Iterable[BookedInvoice], theirs: Iterable[BookedInvoice]) -> list[Difference]:
    """Return the months whose revenue differs, and the invoices that make them differ."""
    here, there = {one.id: one for one in ours}, {one.id: one for one in theirs}
    months_here = {(one.month, one.currency): one for one in sums(here.values())}
    months_there = {(one.month, one.currency): one for one in sums(there.values())}
    found = [
        Difference(
            subject=f"{key[0]} {key[1]}",
            sentence=f"Our books say {_cents(months_here.get(key))}, Stripe's say"
            f" {_cents(months_there.get(key))}.",
        )
        for key in sorted({*months_here, *months_there})
        if _cents(months_here.get(key)) != _cents(months_there.get(key))
    ]
    return found + [
        Difference(
            subject=identifier,
            sentence=f"Our copy says {_money(here.get(identifier))}, Stripe says"
            f" {_money(there.get(identifier))}.",
        )
        for identifier in sorted({*here, *there})
        if _money(here.get(identifier)) != _money(there.get(identifier))
    ]


def _month(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m}"


def _cents(month: Month | None) -> str:
    return f"{month.revenue_cents if month else 0} cents"


def _money(one: BookedInvoice | None) -> str:
    return "nothing" if one is None else f"{one.paid_cents} paid, {one.refunded_cents} given back"
