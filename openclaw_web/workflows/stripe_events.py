"""Stripe's stored events become requests for a sync; what they say is never believed.

Most only tell whom to look at. Those of a batch are applied together, in one transaction, however
many they are; the others, and all of a batch that breaks, one after the other. An event about a
charge has Stripe asked whose it is: few of them are taken at a time, so that none waits under its
lease.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as account_queries
from openclaw_web.billing import queries
from openclaw_web.billing import service as billing
from openclaw_web.core.database import session_scope
from openclaw_web.integrations import payments
from openclaw_web.jobs import inbox
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import WebhookEvent, WebhookOutcome
from openclaw_web.workflows import disputes

logger = logging.getLogger(__name__)

AT_ONCE = 500
CHARGES_AT_ONCE = 8
CHARGE_SECONDS = 40  # less than the lease: nobody else takes an event that we still ask about
STRANGER_ATTEMPTS = 6  # an event of somebody who is not our customer waits for about six minutes
ADMIN_EVENTS = frozenset({disputes.DISPUTE_ALERT, disputes.WARNING_ALERT, disputes.BOUNCED_ALERT})
# They only say that something happened to their customer.
PLAIN = frozenset(payments.EVENTS) - disputes.CHARGE_EVENTS


async def apply_webhook_events(*, limit: int = AT_ONCE) -> int:
    """Turn stored events into requests for a sync, and return how many were looked at.

    One that breaks is tried again later and, after enough tries, told to an admin; those behind it
    do not wait for that.
    """
    owner = f"{socket.gethostname()}:{uuid4().hex}"
    async with session_scope() as session:
        events = await jobs.claim_webhook_events(
            session, owner=owner, limit=limit, but=disputes.CHARGE_EVENTS
        )
    done = await _apply_plain_ones(events)
    for event in events:
        if event.event_id not in done:
            await apply_claimed_event(event)
    return len(events) + await _apply_charge_events(owner)


async def _apply_charge_events(owner: str) -> int:
    async with session_scope() as session:
        events = await jobs.claim_webhook_events(
            session, owner=owner, limit=CHARGES_AT_ONCE, only=disputes.CHARGE_EVENTS
        )
    await asyncio.gather(*(apply_claimed_event(event) for event in events))
    return len(events)


async def apply_claimed_event(event: WebhookEvent) -> UUID | None:
    """Ask for the sync that an event of ours calls for; returns whose, once it was applied."""
    try:
        async with asyncio.timeout(CHARGE_SECONDS):
            payer = await disputes.payer_of(event.event_type, _object_of(event))
        async with session_scope() as session:
            return await _apply_event(session, event, payer=payer)
    except Exception as error:
        logger.exception("The event %s could not be applied.", event.event_id)
        async with session_scope() as session:
            await jobs.retry_webhook_event(session, event, error=type(error).__name__)
    return None


async def _apply_plain_ones(events: Sequence[WebhookEvent]) -> frozenset[str]:
    """Apply those that need no second look together, and return their ids; all or none."""
    plain = {
        event.event_id: stripe_id
        for event in events
        if event.provider == "stripe"
        and event.event_type in PLAIN
        and (stripe_id := _stripe_customer_of(_object_of(event)))
    }
    if not plain:
        return frozenset()
    try:
        async with session_scope() as session:
            ours = await queries.any_customers_of_stripe(session, set(plain.values()))
            known = {event_id: ours[one] for event_id, one in plain.items() if one in ours}
            if known:
                await inbox.finish_applied(session, sorted(known))
                await billing.request_syncs(session, Counter(known.values()))
    except Exception:
        logger.exception("%d events could not be applied together.", len(plain))
        return frozenset()
    return frozenset(known)


async def _apply_event(
    session: AsyncSession, event: WebhookEvent, *, payer: str | None = None
) -> UUID | None:
    """Find out whose event this is and ask for a sync.

    `payer` is the Stripe customer of an event that names none.
    """
    if event.provider != "stripe" or event.event_type not in payments.EVENTS:
        await jobs.finish_webhook_event(session, event, outcome=WebhookOutcome.IGNORED)
        return None
    thing = _object_of(event)
    customer_id = await _customer_of(session, {**thing, "customer": payer} if payer else thing)
    if event.event_type in ADMIN_EVENTS:
        await jobs.raise_alert(
            session,
            code=event.event_type,
            subject=event.object_id or event.event_id,
            detail={"customer_id": str(customer_id or ""), "charge": str(thing.get("charge", ""))},
        )
    if customer_id is not None and await account_queries.find_customer(session, customer_id):
        await jobs.finish_webhook_event(session, event, outcome=WebhookOutcome.APPLIED)
        await billing.request_sync(session, customer_id)
        return customer_id
    if event.attempt < STRANGER_ATTEMPTS and customer_id is None:
        # Stripe can be faster than our own commit.
        await jobs.retry_webhook_event(session, event, error="This customer is not known yet.")
    else:
        await jobs.finish_webhook_event(
            session, event, outcome=WebhookOutcome.IGNORED, error="This is no customer of ours."
        )
    return None


def _object_of(event: WebhookEvent) -> Mapping[str, Any]:
    data = event.payload.get("data")
    thing = data.get("object") if isinstance(data, dict) else None
    return thing if isinstance(thing, dict) else {}


async def _customer_of(session: AsyncSession, thing: Mapping[str, Any]) -> UUID | None:
    """Return our customer, by Stripe's customer id, else by our own checkout's id."""
    stripe_id = _stripe_customer_of(thing)
    if stripe_id is not None:
        customer_id = await queries.any_customer_of_stripe(session, stripe_id)
        if customer_id is not None:
            return customer_id
    checkout_id = uuid_from(thing.get("client_reference_id"))
    return await queries.any_customer_of_checkout(session, checkout_id) if checkout_id else None


def _stripe_customer_of(thing: Mapping[str, Any]) -> str | None:
    """Return which of Stripe's customers an object belongs to, or is."""
    stripe_id = thing.get("id") if thing.get("object") == "customer" else thing.get("customer")
    if isinstance(stripe_id, dict):
        stripe_id = stripe_id.get("id")
    return stripe_id if isinstance(stripe_id, str) else None


def uuid_from(text: Any) -> UUID | None:
    """Return an id of ours that Stripe was given, or nothing where it is none."""
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError):
        return None
