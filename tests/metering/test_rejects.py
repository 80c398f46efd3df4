"""A refused event waits for its period or for a person, and is never counted twice or deleted."""

from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts.models import AuditLog
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.metering import rejects, tasks
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import NO_PERIOD
from openclaw_web.metering.models import Resolution, UsageMonthly, UsageReject

pytestmark = pytest.mark.usefixtures("redis")
ADMIN = {"actor_type": "admin", "actor_id": "root"}


async def open_rejects():
    async with session_scope() as session:
        return await rejects.any_customers_open_rejects(session, limit=10)


async def the_row():
    async with session_scope() as session:
        return (await session.exec(select(UsageReject))).one()


async def retry(reject_id):
    async with session_scope() as session:
        return await rejects.retry(session, reject_id, **ADMIN)


async def open_period_of(event):
    async with session_scope() as session:
        return await metering.open_period(
            session,
            customer_id=event.customer_id,
            period_start=event.period_start,
            period_end=event.period_start + timedelta(days=1),
            tokens_limit=1_000,
        )


@pytest.fixture
async def too_early(period, event_of, settle):
    """An event that came before its period."""
    start = period.period_start - timedelta(days=100)
    event = event_of(period_start=start, timestamp=start + timedelta(hours=1))
    await settle(event)
    return event


async def test_a_refused_event_is_shown_with_its_reason(too_early):
    (view,) = await open_rejects()
    assert (view.request_id, view.reason) == (too_early.request_id, NO_PERIOD)
    assert (view.customer_id, view.tokens) == (str(too_early.customer_id), 120)
    assert (view.model, view.attempt) == ("kimi-for-coding", 0)


async def test_an_event_whose_period_opens_later_is_written_by_the_worker_once(too_early):
    assert await tasks.retry_rejects() == 0
    await open_period_of(too_early)
    assert [await tasks.retry_rejects() for _ in range(2)] == [1, 0]
    row = await the_row()
    assert (row.resolution, row.resolved_by, row.attempt) == ("written", "worker", 1)
    assert await open_rejects() == []
    async with session_scope() as session:
        used = await session.scalar(
            sa.select(col(UsageMonthly.tokens_used)).where(
                col(UsageMonthly.period_start) == too_early.period_start
            )
        )
        (audit,) = (await session.exec(select(AuditLog))).all()
    assert used == 120
    assert (audit.action, audit.actor_type) == ("usage.reject_written", "system")


@pytest.mark.usefixtures("too_early")
async def test_what_is_refused_again_stays_open_and_counts_the_tries():
    row = await the_row()
    assert await retry(row.id) is None
    (view,) = await open_rejects()
    assert (view.attempt, view.reason) == (1, NO_PERIOD)
    assert view.tried_at is not None


async def test_an_event_that_is_in_the_ledger_meanwhile_changes_nothing_there(too_early, settle):
    period = await open_period_of(too_early)
    settled = await settle(too_early)
    assert [total.tokens_used for total in settled.totals] == [120]
    assert await retry((await the_row()).id) is Resolution.WRITTEN
    async with session_scope() as session:
        kept = await session.get(UsageMonthly, period.id)
    assert kept is not None
    assert kept.tokens_used == 120


async def test_setting_aside_needs_a_reason_and_is_final(too_early, settle):
    row = await the_row()
    async with session_scope() as session:
        with pytest.raises(ValidationError, match="why"):
            await rejects.set_aside(session, row.id, reason=" \x00 ", **ADMIN)
        await rejects.set_aside(session, row.id, reason="a test's own", **ADMIN)
    row = await the_row()
    assert (row.resolution, row.note, row.resolved_by) == ("set_aside", "a test's own", "root")
    assert row.payload["request_id"] == too_early.request_id
    with pytest.raises(ValidationError, match="settled already"):
        await retry(row.id)
    await open_period_of(too_early)
    assert await tasks.retry_rejects() == 0
    await settle()
    assert await open_rejects() == []


async def test_a_payload_that_is_no_event_can_be_seen_and_set_aside(session):
    session.add(UsageReject(request_id="req_x", payload={"model": 7}, error="broken"))
    await session.commit()
    (view,) = await open_rejects()
    assert (view.model, view.customer_id, view.tokens) == ("7", "", 0)
    with pytest.raises(ValidationError, match="cannot be read"):
        await retry(view.id)
    async with session_scope() as other:
        await rejects.set_aside(other, view.id, reason="nonsense", **ADMIN)


async def test_an_unknown_one_is_refused(session):
    assert session
    with pytest.raises(NotFoundError):
        await retry(uuid4())
