"""One look at Stripe: everything that a sync decides from, each list asked for once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from openclaw_web.billing import mapping
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import payment_reversals, payments
from openclaw_web.integrations.payment_objects import (
    CheckoutSession,
    StripeInvoice,
    StripeSubscription,
)
from openclaw_web.integrations.payment_reversals import StripeCharge, StripeDispute

STRIPE_SECONDS = 45  # less than the lease, so that an answer still counts when it comes

One = TypeVar("One")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What Stripe has of a customer, and what was taken from their cards and taken back."""

    subscriptions: tuple[StripeSubscription, ...] = ()
    invoices: tuple[StripeInvoice, ...] = ()
    charges: tuple[StripeCharge, ...] = ()
    disputes: tuple[StripeDispute, ...] = ()
    page: CheckoutSession | None = None
    is_customer_deleted: bool = False
    # Stripe may say nothing of a deleted customer's payments: that is not "there was none".
    are_charges_known: bool = True

    def charges_for(self, invoice: StripeInvoice) -> list[StripeCharge]:
        """Return what was taken for an invoice."""
        intents = invoice.payment_intent_ids
        return [one for one in self.charges if one.is_paid and one.payment_intent_id in intents]

    def paid_by(self, payment_intent_id: str | None) -> str | None:
        """Return the subscription that a payment was for."""
        return next(
            (
                one.stripe_subscription_id
                for one in self.invoices
                if payment_intent_id in one.payment_intent_ids
            ),
            None,
        )

    def status_of(self, stripe_subscription_id: str | None) -> str | None:
        return next(
            (one.status for one in self.subscriptions if one.id == stripe_subscription_id), None
        )


async def look(stripe_customer_id: str | None, page_id: str | None) -> Found:
    """Ask for everything at once.

    Raises:
        VendorError: Stripe refused, or did not answer while our lease holds.
    """
    if stripe_customer_id is None:
        return Found()
    try:
        async with asyncio.timeout(STRIPE_SECONDS), asyncio.TaskGroup() as group:
            subscriptions = group.create_task(_subscriptions(stripe_customer_id))
            invoices = group.create_task(_listed(payments.invoices_of, stripe_customer_id))
            taken = group.create_task(_taken(stripe_customer_id))
            page = group.create_task(_page(page_id))
    except TimeoutError as error:
        raise VendorError(
            "Stripe was too slow for one sync.", can_retry=True, code="slow"
        ) from error
    except ExceptionGroup as group:
        vendor_error = next((one for one in group.exceptions if isinstance(one, VendorError)), None)
        if vendor_error is None:
            raise
        raise vendor_error from group
    listed, is_customer_deleted = subscriptions.result()
    charges = taken.result()
    return Found(
        subscriptions=listed,
        invoices=invoices.result(),
        charges=charges[0] if charges else (),
        disputes=charges[1] if charges else (),
        are_charges_known=charges is not None,
        page=page.result(),
        is_customer_deleted=is_customer_deleted,
    )


async def _subscriptions(stripe_customer_id: str) -> tuple[tuple[StripeSubscription, ...], bool]:
    """Return what Stripe lists; where nothing runs, also whether the customer was deleted there."""
    try:
        listed = await payments.subscriptions_of(stripe_customer_id)
    except VendorError as error:
        await _raise_unless_deleted(error, stripe_customer_id)
        return (), True
    if any(one.status not in mapping.ENDED for one in listed):
        return listed, False
    return listed, await payments.is_customer_deleted(stripe_customer_id)


async def _taken(
    stripe_customer_id: str,
) -> tuple[tuple[StripeCharge, ...], tuple[StripeDispute, ...]] | None:
    """Return the charges; only a customer who disputes one costs more than one question.

    `None`: Stripe has deleted this customer, and says nothing of the charges any more.
    """
    try:
        charges = await payment_reversals.charges_of(stripe_customer_id)
        return charges, await payment_reversals.disputes_of(charges)
    except VendorError as error:
        await _raise_unless_deleted(error, stripe_customer_id)
        return None


async def _listed(
    ask: Callable[[str], Awaitable[tuple[One, ...]]], stripe_customer_id: str
) -> tuple[One, ...]:
    try:
        return await ask(stripe_customer_id)
    except VendorError as error:
        await _raise_unless_deleted(error, stripe_customer_id)
        return ()


async def _raise_unless_deleted(error: VendorError, stripe_customer_id: str) -> None:
    """Raise an error again, unless Stripe only says that it has deleted this customer."""
    is_missing = error.code == "resource_missing"
    if not is_missing or not await payments.is_customer_deleted(stripe_customer_id):
        raise error


async def _page(page_id: str | None) -> CheckoutSession | None:
    return await payments.retrieve_checkout_session(page_id) if page_id else None
