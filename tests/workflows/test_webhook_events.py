"""The inbox of webhook events: one that breaks does not stand in the way of the others."""

from types import SimpleNamespace

import pytest
from sqlmodel import col, select

from openclaw_web.billing import queries
from openclaw_web.billing import service as billing
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations import payment_reversals
from openclaw_web.jobs import inbox
from openclaw_web.jobs.inbox import Received
from openclaw_web.jobs.models import WebhookEvent
from openclaw_web.workflows import disputes, stripe_events
from tests.factories import make_customer

pytestmark = pytest.mark.usefixtures("database", "redis")


async def store(event_id, stripe_customer_id, *, event_type="invoice.paid", charge=None):
    async with session_scope() as session:
        await inbox.keep(
            session,
            [
                Received(
                    provider="stripe",
                    event_id=event_id,
                    event_type=event_type,
                    payload={
                        "data": {
                            "object": {
                                "object": "invoice",
                                "customer": stripe_customer_id,
                                "charge": charge,
                            }
                        }
                    },
                )
            ],
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
    assert await stripe_events.apply_webhook_events() == 2
    async with session_scope() as session:
        found = await session.exec(select(WebhookEvent).order_by(col(WebhookEvent.event_id)))
        bad, good = found.all()
        assert await queries.find_sync(session, customer.id) is not None
    assert (good.processed, good.outcome) == (True, "applied")
    assert (bad.processed, bad.error_message, bad.lease_until) == (False, "KeyError", None)


async def test_events_that_came_together_are_applied_together_and_each_counts(monkeypatch):
    async with session_scope() as session:
        one = await make_customer(session, stripe_customer_id="cus_one")
        two = await make_customer(session, stripe_customer_id="cus_two")
    for number in range(5):
        await store(f"evt_{number}", "cus_two" if number == 4 else "cus_one")
    monkeypatch.setattr(stripe_events, "apply_claimed_event", None)  # not one by one
    assert await stripe_events.apply_webhook_events() == 5
    async with session_scope() as session:
        asked = [await queries.find_sync(session, customer.id) for customer in (one, two)]
        events = (await session.exec(select(WebhookEvent))).all()
    assert [row and row.requested_seq for row in asked] == [4, 1]
    assert {(one.processed, one.outcome, one.lease_until) for one in events} == {
        (True, "applied", None)
    }


async def test_a_batch_that_breaks_is_applied_one_by_one(monkeypatch):
    async with session_scope() as session:
        customer = await make_customer(session, stripe_customer_id="cus_one")
    for number in range(3):
        await store(f"evt_{number}", "cus_one")
    monkeypatch.setattr(billing, "request_syncs", None)
    assert await stripe_events.apply_webhook_events() == 3
    async with session_scope() as session:
        asked = await queries.find_sync(session, customer.id)
    assert asked is not None
    assert asked.requested_seq == 3


async def test_an_event_of_a_deleted_account_is_ignored():
    async with session_scope() as session:
        await make_customer(session, stripe_customer_id="cus_gone", deleted_at=real_now())
    await store("evt_gone", "cus_gone")
    assert await stripe_events.apply_webhook_events() == 1
    async with session_scope() as session:
        (event,) = (await session.exec(select(WebhookEvent))).all()
    assert (event.processed, event.outcome) == (True, "ignored")


async def test_events_that_stripe_is_asked_about_are_taken_few_at_a_time(monkeypatch):
    async with session_scope() as session:
        await make_customer(session, stripe_customer_id="cus_one")
    await store("evt_paid", "cus_one")
    for number in range(3):
        await store(f"evt_{number}", None, event_type=disputes.DISPUTE_ALERT, charge="ch_1")
    waiting = []

    async def find_charge(_charge_id):
        async with session_scope() as session:
            events = (await session.exec(select(WebhookEvent))).all()
        waiting.append({one.event_id for one in events if not one.attempt})
        return SimpleNamespace(stripe_customer_id="cus_one")

    monkeypatch.setattr(payment_reversals, "find_charge", find_charge)
    monkeypatch.setattr(stripe_events, "CHARGES_AT_ONCE", 2)
    assert [await stripe_events.apply_webhook_events() for _ in range(3)] == [3, 1, 0]
    assert waiting == [{"evt_2"}, {"evt_2"}, set()]  # one that nobody tries has no attempt
