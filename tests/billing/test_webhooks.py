"""Stripe's webhook: what is taken, what is refused, and what is kept of it."""

import hashlib
import hmac
import json
import time
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI
from sqlmodel import select

from openclaw_web.billing import webhooks
from openclaw_web.billing.redaction import without_people
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payment_client, payments
from openclaw_web.integrations import redis as our_redis
from openclaw_web.jobs.models import Alert, WebhookEvent

SECRET = "whsec_only_for_tests"  # noqa: S105 - a made-up one
PATH = "/webhooks/stripe"
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "checkout.session.completed",
    "api_version": payment_client.API_VERSION,
    "livemode": False,
    "data": {
        "object": {
            "id": "cs_1",
            "object": "checkout.session",
            "customer": "cus_1",
            "customer_details": {"email": "canary@example.com", "name": "Canary Bird"},
            "url": "https://checkout.stripe.com/c/pay/cs_1",
            "metadata": {"note": "write to canary@example.com\x00"},
        }
    },
}


@pytest.fixture
def configured(monkeypatch):
    """Return a function that changes settings of the webhook for this test."""

    def change(**fields):
        fields = {"stripe_webhook_secret": SECRET, "stripe_secret_key": "sk_test_1", **fields}
        chosen = replace(settings(), **fields)
        monkeypatch.setattr(webhooks, "settings", lambda: chosen)
        monkeypatch.setattr(payments, "settings", lambda: chosen)

    change()
    return change


@pytest.fixture
async def web(database, redis, configured):
    assert all((database, redis, configured))
    app = FastAPI()
    app.include_router(webhooks.router)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def signed(body: bytes, *, secret: str = SECRET, age: int = 0, scheme: str = "v1") -> dict:
    moment = int(time.time()) - age
    mac = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={moment},{scheme}={mac}"}


async def stored(session) -> list[WebhookEvent]:
    return list((await session.exec(select(WebhookEvent))).all())


async def test_a_signed_event_is_stored_and_the_worker_is_woken(web, session):
    body = json.dumps(EVENT).encode()
    answer = await web.post(PATH, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (200, {"received": True, "is_new": True})
    event = (await stored(session))[0]
    assert (event.event_id, event.object_id, event.livemode) == ("evt_1", "cs_1", False)
    assert not event.processed
    assert await our_redis.wait_for_bell("webhooks", timeout_seconds=1) == "evt_1"


async def test_the_same_event_again_is_answered_alike_and_stored_once(web, session):
    body = json.dumps(EVENT).encode()
    answers = [await web.post(PATH, content=body, headers=signed(body)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [answer.json()["is_new"] for answer in answers] == [True, False, False]
    assert len(await stored(session)) == 1


BODY = json.dumps(EVENT).encode()
FORGED = {
    "no signature": (BODY, {}),
    "another secret": (BODY, signed(BODY, secret="whsec_other")),  # noqa: S106 - made up
    "an older scheme only": (BODY, signed(BODY, scheme="v0")),
    "too old": (BODY, signed(BODY, age=301)),
    "altered": (BODY.replace(b"cus_1", b"cus_2"), signed(BODY)),
    "not even text": (b"\xff\xfe", signed(b"\xff\xfe")),
    "a signature that is no hex": (BODY, {"stripe-signature": b"t=1,v1=\xe9"}),
    "a time that is no number": (BODY, {"stripe-signature": "t=now,v1=00"}),
    "signed, but no JSON": (b"hello", signed(b"hello")),
    "signed, but no event": (b"[]", signed(b"[]")),
    "signed, but without an object": (b'{"id":"evt_1"}', signed(b'{"id":"evt_1"}')),
}


@pytest.mark.parametrize("message", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_message_is_refused(message, web, session):
    body, headers = message
    answer = await web.post(PATH, content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_signature"
    assert await stored(session) == []


async def test_a_message_of_almost_five_minutes_is_still_taken(web):
    answer = await web.post(PATH, content=BODY, headers=signed(BODY, age=290))
    assert answer.status_code == 200


async def test_a_huge_body_is_refused_before_it_is_read(web, session):
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 65536

    answer = await web.post(PATH, content=endless(), headers=signed(b""))
    assert answer.status_code == 413
    assert sent < 20
    assert await stored(session) == []


async def test_without_a_secret_there_is_no_webhook(web, configured, session):
    configured(stripe_webhook_secret="")
    assert (await web.post(PATH, content=BODY, headers=signed(BODY, secret=""))).status_code == 404
    assert await stored(session) == []


@pytest.mark.parametrize(
    ("key", "livemode"), [("sk_test_1", True), ("sk_live_1", False), ("rk_live_1", False)]
)
async def test_an_event_of_the_other_mode_is_refused_and_alerted(
    key, livemode, web, configured, session
):
    configured(stripe_secret_key=key)
    body = json.dumps({**EVENT, "livemode": livemode}).encode()
    answer = await web.post(PATH, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_mode")
    assert await stored(session) == []
    assert (await session.exec(select(Alert))).one().code == "webhook_wrong_mode"


async def test_nothing_personal_is_stored(web, session):
    await web.post(PATH, content=BODY, headers=signed(BODY))
    kept = json.dumps((await stored(session))[0].payload)
    assert "canary" not in kept.lower()
    assert "checkout.stripe.com" not in kept
    assert "cus_1" in kept


def test_empty_personal_fields_show_that_they_were_empty():
    assert without_people({"email": None, "name": "", "phone": "1"}) == {
        "email": None,
        "name": "",
        "phone": "[redacted]",
    }


def test_an_absurdly_deep_document_is_cut():
    deep: dict = {}
    for _ in range(500):
        deep = {"x": deep}
    assert "redacted" in json.dumps(without_people(deep))
