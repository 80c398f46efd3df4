"""The CSV of a period: all of the signed-in customer's requests, and nobody else's."""

import csv
import io
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from openclaw_web.accounts import cookies
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import AuthSession
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.security import new_token, token_hash
from openclaw_web.dashboard.usage import forms
from openclaw_web.metering import queries
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event
from tests.factories import make_box, make_period, make_subscription, now

pytestmark = pytest.mark.usefixtures("database", "redis")


@pytest.fixture
async def browser():
    app = FastAPI()
    app.include_router(forms.router)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:3000") as client:
        yield client


async def signed_in(email):
    """Return a customer and the header of their session."""
    token = new_token()
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        session.add(
            AuthSession(
                customer_id=customer.id,
                token_hash=token_hash(token),
                created_at=real_now(),
                last_seen_at=real_now(),
                expires_at=real_now() + timedelta(days=1),
            )
        )
    return customer, {"cookie": f"{cookies.SESSION_COOKIE}={token}"}


async def use(customer, count, **fields):
    async with session_scope() as session:
        subscription = await make_subscription(session, customer=customer)
        box = await make_box(session, subscription=subscription)
        period = await make_period(session, subscription=subscription)
        usual: dict[str, Any] = {
            "model": "k2p5",
            "prompt_tokens": 100,
            "completion_tokens": 20,
        } | fields
        moment = now() - timedelta(hours=1)
        await metering.settle(
            session,
            [
                Event(
                    request_id=f"req_{uuid4()}",
                    customer_id=customer.id,
                    box_id=box.id,
                    period_start=period.period_start,
                    timestamp=moment + timedelta(seconds=number // 2),  # some at the same moment
                    **usual,
                )
                for number in range(count)
            ],
        )
        return period


def rows(answer):
    return list(csv.DictReader(io.StringIO(answer.text)))


async def test_every_request_of_the_period_is_in_the_file_once(browser, monkeypatch):
    monkeypatch.setattr(forms, "PAGE_EVENTS", 3)
    ada, cookie = await signed_in("ada@example.com")
    period = await use(ada, 11)
    answer = await browser.get("/usage/export.csv", headers=cookie)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"].startswith('attachment; filename="openclaw-usage')
    found = rows(answer)
    assert len({row["request_id"] for row in found}) == len(found) == 11
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    async with session_scope() as session:
        ledger, _, _ = await queries.usage_sums(session, ada.id, period)
    assert sum(int(row["total_tokens"]) for row in found) == ledger == 11 * 120


async def test_nobody_gets_anothers_requests_whatever_they_ask(browser):
    eve, _ = await signed_in("eve@example.com")
    await use(eve, 2, model="evens-only")
    _, cookie = await signed_in("ada@example.com")
    for address in ("", f"?customer_id={eve.id}", f"?month={now():%Y-%m}"):
        answer = await browser.get(f"/usage/export.csv{address}", headers=cookie)
        assert "evens-only" not in answer.text


async def test_who_is_not_signed_in_is_asked_to(browser):
    for headers in ({}, {"cookie": f"{cookies.SESSION_COOKIE}=nonsense"}):
        answer = await browser.get("/usage/export.csv", headers=headers)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/login?next=%2Fusage"


async def test_nonsense_is_answered_plainly(browser):
    _, cookie = await signed_in("ada@example.com")
    for month in ("2026-13", "2026-00", "9999-12", "x", "2026-1", "0000-01"):
        answer = await browser.get(f"/usage/export.csv?month={month}", headers=cookie)
        assert (answer.status_code, "2026-11" in answer.text) == (404, True), month


async def test_a_calendar_month_can_be_named(browser):
    ada, cookie = await signed_in("ada@example.com")
    await use(ada, 2)
    this = (now() - timedelta(hours=1)).strftime("%Y-%m")
    assert len(rows(await browser.get(f"/usage/export.csv?month={this}", headers=cookie))) == 2
    assert rows(await browser.get("/usage/export.csv?month=2020-12", headers=cookie)) == []


async def test_a_text_is_never_taken_for_a_formula(browser):
    ada, cookie = await signed_in("ada@example.com")
    await use(ada, 1, model='=HYPERLINK("x")')
    (row,) = rows(await browser.get("/usage/export.csv", headers=cookie))
    assert row["model"] == '\'=HYPERLINK("x")'
