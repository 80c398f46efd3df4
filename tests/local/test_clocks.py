"""Moving the clock of a stack that runs: from a shell and from /dev, and where it is refused."""

import asyncio
import contextlib
import dataclasses
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from openclaw_web import worker as operator
from openclaw_web.billing.models import Subscription
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.jobs import service as jobs
from openclaw_web.local import clock_page, clocks, dev_pages, moving
from openclaw_web.local.places import write_secret
from tests.billing.buying import come_to_pay, only
from tests.billing.stripe_world import stripe_world
from tests.contracts.simulator_process import TOKEN
from tests.flows import year_world

ORIGIN = {"origin": "http://localhost:3000"}
MONTH = timedelta(days=35)


def configured(stripe_url, folder):
    write_secret(folder / "dev-token", TOKEN)
    services = {"stripe": stripe_url, "token_file": str(folder / "dev-token")}
    return dataclasses.replace(settings(), dev_services=json.dumps(services))


async def business_time():
    async with session_scope() as session:
        return await business_now(session)


@contextlib.asynccontextmanager
async def working(folder):
    """Run the worker's loops that a purchase needs, and an operator without a cluster."""
    no_cluster: Any = SimpleNamespace()
    one = operator.Worker(cluster=no_cluster, cluster_name="none", home=folder)

    async def operate():
        await year_world.operate()
        await asyncio.sleep(0.02)

    loops = [
        asyncio.create_task(one._forever(name, turn, pause))  # noqa: SLF001 - the loop itself
        for name, turn, pause in (
            (jobs.TIMER_BELL, operator.turn_timers, operator.TIMER_SECONDS),
            ("webhooks", operator.apply_webhooks, 0.0),
            ("sync", one.sync_customers, 0.0),
            ("operator", operate, 0.0),
        )
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


@contextlib.asynccontextmanager
async def browser(chosen, monkeypatch):
    monkeypatch.setattr(dev_pages, "settings", lambda: chosen)
    app = FastAPI()
    app.include_router(dev_pages.router)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:3000") as client:
        yield client


@pytest.mark.usefixtures("database", "redis")
async def test_a_month_passes_stop_by_stop_and_everybody_is_where_they_would_be(
    tmp_path, monkeypatch
):
    with stripe_world(tmp_path) as stripe:
        chosen = configured(stripe.url, tmp_path)
        async with year_world.opened(stripe.url), working(tmp_path):
            visitor, there = await come_to_pay(), await business_time()
            await asyncio.to_thread(stripe.pay, visitor.page)
            async with browser(chosen, monkeypatch) as client:
                page = (await client.post("/dev/clock", data={"by": "1d"}, headers=ORIGIN)).text
            assert "business time" in page
            began = await business_time()
            assert began >= there + timedelta(days=1)
            stops = [hop async for hop in clocks.move(chosen, MONTH, by="test")]
    assert [stop.left for stop in stops] == [()] * len(stops)
    told = "\n".join(str(stop) for stop in stops)
    assert "(a period ends)" in told
    assert "invoice.paid" in told
    row = await only(Subscription)
    now = await business_time()
    assert row.current_period_start < now < row.current_period_end
    assert timedelta(0) <= now - stops[-1].moment < timedelta(minutes=1)
    assert stops[-1].moment - began >= MONTH


@pytest.mark.usefixtures("database", "redis")
async def test_without_a_worker_it_is_said_what_was_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr(moving, "ANSWER_SECONDS", 0.01)
    with stripe_world(tmp_path) as stripe:
        chosen = configured(stripe.url, tmp_path)
        (stop,) = [hop async for hop in clocks.move(chosen, timedelta(days=1), by="test")]
    assert stop.left == ("No worker turned the timers when asked; is one running?",)


async def test_business_time_does_not_move_where_stripe_is_real():
    for chosen in (settings(), dataclasses.replace(settings(), environment="production")):
        with pytest.raises(clocks.ClockError, match="Stripe and time are real"):
            _ = [hop async for hop in clocks.advance(chosen, MONTH)]


@pytest.mark.parametrize(
    ("headers", "by", "status"),
    [({}, "1d", 403), ({"origin": "http://evil.example"}, "1d", 403), (ORIGIN, "1y", 400)],
    ids=["nobody's page", "another site", "no such step"],
)
async def test_the_button_is_only_ours(headers, by, status, tmp_path, monkeypatch):
    chosen = configured("http://127.0.0.1:9", tmp_path)
    async with browser(chosen, monkeypatch) as client:
        answer = await client.post("/dev/clock", data={"by": by}, headers=headers)
        page = (await client.get("/dev/")).text
    assert answer.status_code == status
    assert all(f'value="{one}"' in page for one in clock_page.SPANS)
