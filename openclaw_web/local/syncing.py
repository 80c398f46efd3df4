"""Comparing one customer with Stripe by hand, and applying a stored event once more."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from openclaw_web.accounts import queries as account_queries
from openclaw_web.accounts import service as accounts
from openclaw_web.billing import leases, queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import Subscription
from openclaw_web.boxes import queries as boxes
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError
from openclaw_web.core.settings import Settings
from openclaw_web.integrations import payment_client
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import WebhookEvent, WebhookOutcome
from openclaw_web.metering import queries as metering
from openclaw_web.workflows import stripe_events, subscription

LOOKS = 60  # a sync of a worker that has it just now ends within its lease of a minute
LOOK_SECONDS = 1.0
MOST_INVOICES = 100
COLUMNS = (
    "tier",
    "status",
    "stripe_status",
    "tokens_limit",
    "current_period_start",
    "current_period_end",
    "cancel_at_period_end",
    "trial_end",
    "past_due_since",
    "grace_until",
    "pending_tier",
)


class SyncFailedError(OpenClawError):
    """The sync was tried and did not come to its end; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What became of a stored event, and what its sync changed."""

    event_type: str
    outcome: str
    is_applied: bool
    changes: tuple[str, ...]


async def sync(chosen: Settings, email: str) -> list[str]:
    """Compare a customer with Stripe now, and return what changed, a line each.

    Raises:
        NotFoundError: nobody has this address.
        SyncFailedError: Stripe refused or did not answer, or a worker holds on to this customer.
    """
    async with _open(chosen):
        async with session_scope() as session:
            customer = await accounts.find_customer_by_email(session, email)
        if customer is None:
            raise NotFoundError(f"Nobody is known as {email}.")
        return await _sync(customer.id)


async def replay(chosen: Settings, event_id: str) -> Replayed:
    """Apply a stored event of Stripe's once more, and do the sync that it asks for.

    Raises:
        NotFoundError: no such event is stored.
        SyncFailedError: the sync did not come to its end.
    """
    async with _open(chosen):
        async with session_scope() as session:
            event = await jobs.reopen_webhook_event(
                session, event_id, owner=f"by hand:{uuid4().hex}"
            )
        customer_id = await stripe_events.apply_claimed_event(event)
        async with session_scope() as session:
            found = await session.get_one(WebhookEvent, event.id)
        changes = await _sync(customer_id, asks=False) if customer_id else []
    outcome = found.outcome or f"tried again later: {found.error_message}"
    if found.outcome and found.error_message:
        outcome = f"{found.outcome}: {found.error_message}"
    return Replayed(
        event_type=found.event_type,
        outcome=outcome,
        is_applied=found.outcome == WebhookOutcome.APPLIED,
        changes=tuple(changes),
    )


async def _sync(customer_id: UUID, *, asks: bool = True) -> list[str]:
    before = await _look(customer_id)
    async with session_scope() as session:
        await leases.end_rest(session, customer_id)
        if asks:
            await billing.request_sync(session, customer_id)
    await subscription.sync(customer_id)
    await _wait_until_done(customer_id)
    after = await _look(customer_id)
    return [
        f"{name}: {_said(before.get(name))} -> {_said(after.get(name))}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


async def _wait_until_done(customer_id: UUID) -> None:
    """Wait for a worker that was faster than we were."""
    for _ in range(LOOKS):
        async with session_scope() as session:
            row = await queries.find_sync(session, customer_id)
        if row is None or row.requested_seq <= row.synced_seq:
            return
        if row.lease_owner is None and row.error:
            raise SyncFailedError(f"The sync failed: {row.error}")
        await asyncio.sleep(LOOK_SECONDS)
    raise SyncFailedError("A worker has been syncing this customer for a minute; try again.")


async def _look(customer_id: UUID) -> Mapping[str, object]:
    """Return what a customer has, by names that a person can read."""
    async with session_scope() as session:
        row = await queries.find_subscription(session, customer_id)
        box = await boxes.find_box_of_customer(session, customer_id)
        period = await metering.find_period(session, customer_id, await business_now(session))
        invoices = await queries.invoices_of_customer(session, customer_id, limit=MOST_INVOICES)
        customer = await account_queries.find_customer(session, customer_id)
    stripe_id = customer.stripe_customer_id if customer else None
    seen: dict[str, object] = {"customer.stripe_customer_id": stripe_id, **_of_subscription(row)}
    if box is not None:
        seen |= {"box.status": box.status.value, "box.delete_after": box.delete_after}
    if period is not None:
        seen["period.tokens_limit"] = period.tokens_limit
        seen["period.is_provisional"] = period.is_provisional
    for invoice in invoices:
        seen[f"invoice {invoice.number or invoice.stripe_invoice_id}"] = (
            f"{invoice.status}, {invoice.paid_cents} cents paid, {invoice.refunded_cents} back"
        )
    return seen


def _of_subscription(row: Subscription | None) -> dict[str, object]:
    if row is None:
        return {}
    return {f"subscription.{name}": getattr(row, name) for name in COLUMNS} | {
        "subscription.stripe_subscription_id": row.stripe_subscription_id
    }


def _said(value: object) -> str:
    return "nothing" if value is None else str(value)


@asynccontextmanager
async def _open(chosen: Settings) -> AsyncGenerator[None]:
    open_database(chosen.database_url)
    open_redis(chosen.redis_url)
    try:
        yield
    finally:
        await payment_client.close_payments()
        await close_redis()
        await close_database()
