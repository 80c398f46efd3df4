"""The inbox of webhook events: one that breaks does not stand in the way of the others."""

import pytest
from sqlmodel import col, select

from openclaw_web.billing import queries
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import WebhookEvent
from openclaw_web.workflows import subscription as workflow
from tests.factories import make_customer

pytestmark = pytest.mark.usefixtures("database", "redis")


async def store(event_id, stripe_customer_id):
    async with session_scope() as session:
        await jobs.record_webhook_event(
            session,
            provider="stripe",
            event_id=event_id,
            event_type="invoice.paid",
            payload={"data": {"object": {"object": "invoice", "customer": stripe_customer_id}}},
        )


async def test_an_event_that_breaks_is_tried_again_and_holds_nobody_up(monkeypatch):
    async with session_scope() as session:
        customer = await make_customer(session, stripe_customer_id="cus_good")
    look_up = queries.any_customer_of_stripe

    async def break_for_one(session, stripe_customer_id):
        if stripe_customer_id == "cus_bad":
            raise KeyError(stripe_customer_id)
        return await look_up(session, stripe_customer_id)

    monkeypatch.setattr(queries, "any_customer_of_stripe", break_for_one)
    await store("evt_bad", "cus_bad")
    await store("evt_good", "cus_good")
    assert await workflow.apply_webhook_events() == 2
    async with session_scope() as session:
        found = await session.exec(select(WebhookEvent).order_by(col(WebhookEvent.event_id)))
        bad, good = found.all()
        assert await queries.find_sync(session, customer.id) is not None
    assert (good.processed, good.outcome) == (True, "applied")
    assert (bad.processed, bad.error_message, bad.lease_until) == (False, "KeyError", None)
