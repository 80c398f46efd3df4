"""Stripe's own delivery: its signature, our address, and a purchase that needs nobody's help."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvicorn
from fastapi import FastAPI
from sqlmodel import select

from openclaw_web.billing import service as billing
from openclaw_web.billing import webhooks
from openclaw_web.billing.models import Subscription, SubscriptionStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payment_client, payments
from openclaw_web.integrations import redis as our_redis
from openclaw_web.jobs.models import WebhookEvent
from openclaw_web.workflows import stripe_events
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import come_to_pay, only
from tests.billing.stripe_world import KEY, stripe_world
from tests.contracts.simulator_process import free_port


@pytest.fixture
async def stripe(tmp_path, database, redis):
    """Run a Stripe of this test's own: its webhook goes to an address that only this test has."""
    assert database
    assert redis
    with stripe_world(tmp_path) as world:
        payment_client.open_payments(KEY, world.url)
        await billing.publish_catalogue()
        yield world
        await payment_client.close_payments()


@asynccontextmanager
async def web(secret: str, port: int, monkeypatch):
    chosen = replace(settings(), stripe_webhook_secret=secret, stripe_secret_key=KEY)
    monkeypatch.setattr(webhooks, "settings", lambda: chosen)
    monkeypatch.setattr(payments, "settings", lambda: chosen)
    app = FastAPI()
    app.include_router(webhooks.router)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="warning", lifespan="off", ws="none")
    )
    running = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await running


async def test_a_paid_page_is_enough(stripe, monkeypatch):
    port = free_port()
    address = f"http://127.0.0.1:{port}/webhooks/stripe"
    await payments.ensure_webhook_endpoint(address)
    secret = await payments.ensure_webhook_endpoint(address)  # made anew: only now it is known
    assert len(stripe.api("GET", "/webhook_endpoints")["data"]) == 1
    visitor = await come_to_pay()
    async with web(secret, port, monkeypatch):
        await asyncio.to_thread(stripe.pay, visitor.page)
        async with asyncio.timeout(20):
            while not await _is_served():
                await our_redis.wait_for_bell("webhooks", timeout_seconds=1)
                await stripe_events.apply_webhook_events()
                for customer_id in await workflow.due_syncs():
                    await workflow.sync(customer_id)
    assert (await only(Subscription)).customer_id == visitor.id
    async with session_scope() as session:
        kept = (await session.exec(select(WebhookEvent))).all()
    assert "payer@example.com" not in str([event.payload for event in kept])


async def _is_served() -> bool:
    async with session_scope() as session:
        found = (await session.exec(select(Subscription))).first()
    return found is not None and found.status is SubscriptionStatus.ACTIVE
