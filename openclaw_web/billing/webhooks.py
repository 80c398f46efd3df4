"""Stripe's webhook: verify, store under the event's own id, answer. Nothing is applied here."""

import logging

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from openclaw_web.billing.inbox import Inbox
from openclaw_web.billing.redaction import without_people
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payments
from openclaw_web.integrations.payment_objects import PaymentEvent
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.inbox import Received

logger = logging.getLogger(__name__)

LARGEST_BODY = 1024 * 1024
LONGEST_ID = 255  # what the inbox has room for
LONGEST_TYPE = 100
SIGNATURE_HEADER = "stripe-signature"

router = APIRouter()
_inbox = Inbox()


@router.post("/webhooks/stripe", response_model=None)
async def receive(request: Request) -> JSONResponse:
    """Store one event; the same event twice is answered alike and changes nothing.

    Without a secret there is no way to know Stripe's messages, so there is no such page.
    """
    secret = settings().stripe_webhook_secret
    if not secret:
        return _refusal(404, "no_webhook", "This deployment takes no webhooks from Stripe.")
    body = await _body(request)
    if body is None:
        return _refusal(413, "too_large", "An event has at most 1 MiB.")
    try:
        event = payments.verify_webhook(body, request.headers.get(SIGNATURE_HEADER), secret)
    except payments.WebhookRefusedError as error:
        logger.warning("A webhook was refused: %s", error)
        return _refusal(400, "bad_signature", str(error))
    if len(event.id) > LONGEST_ID or len(event.type) > LONGEST_TYPE:
        return _refusal(400, "bad_event", "The event's id or type is too long.")
    if event.livemode != payments.is_live():
        return await _wrong_mode(event)
    return JSONResponse({"received": True, "is_new": await _store(event)})


async def _body(request: Request) -> bytes | None:
    """Read the raw body, and stop as soon as it is too large, whatever Content-Length said."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


async def _store(event: PaymentEvent) -> bool:
    return await _inbox.keep(
        Received(
            provider="stripe",
            event_id=event.id,
            event_type=event.type,
            payload=without_people(event.payload),
            object_id=event.object_id,
            livemode=event.livemode,
            api_version=event.api_version,
        )
    )


async def _wrong_mode(event: PaymentEvent) -> JSONResponse:
    """Refuse an event of the test world in the live one, or the other way, and tell an admin."""
    async with session_scope() as session:
        await jobs.raise_alert(
            session,
            code="webhook_wrong_mode",
            subject="stripe",
            detail={"event_id": event.id, "livemode": event.livemode},
        )
    return _refusal(
        400, "wrong_mode", "This event's live mode is not that of this deployment's key."
    )


def _refusal(status: int, code: str, sentence: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": sentence}}, status_code=status)
