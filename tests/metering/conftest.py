"""A customer with a box and a running period, and events of it."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from msgspec import structs
from sqlmodel import select

from openclaw_web.boxes.models import Box
from openclaw_web.core.database import session_scope
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event
from tests.factories import make_box, make_period, make_subscription


@pytest.fixture
async def period(session):
    subscription = await make_subscription(session)
    await make_box(session, subscription=subscription)
    row = await make_period(session, subscription=subscription)
    await session.commit()
    return row


@pytest.fixture
async def event_of(session, period):
    box = (await session.exec(select(Box).where(Box.customer_id == period.customer_id))).one()

    def make(**fields):
        usual = Event(
            request_id=f"req_{uuid4()}",
            customer_id=period.customer_id,
            box_id=box.id,
            period_start=period.period_start,
            timestamp=datetime.now(UTC),
            model="kimi-for-coding",
            prompt_tokens=100,
            completion_tokens=20,
            cached_tokens=60,
            reasoning_tokens=5,
        )
        return structs.replace(usual, **fields)

    return make


@pytest.fixture
def settle():
    async def write(*events):
        async with session_scope() as session:
            return await metering.settle(session, events)

    return write
