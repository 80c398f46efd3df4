"""The ledger and its roll-ups agree, whatever is delivered how often."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import sqlalchemy as sa
from sqlmodel import select

from openclaw_web.core.database import session_scope
from openclaw_web.metering import queries
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.models import UsageMonthly, UsageReject
from tests.factories import make_subscription


async def sums(period):
    async with session_scope() as session:
        return await queries.usage_sums(session, period.customer_id, period)


async def test_an_event_counts_in_the_ledger_the_month_and_the_day(settle, period, event_of):
    settled = await settle(event_of(), event_of(model="other"))
    assert await sums(period) == (240, 240, 240)
    assert [total.tokens_used for total in settled.totals] == [240]


async def test_an_event_delivered_again_changes_nothing(settle, period, event_of):
    event = event_of()
    await settle(event, event)
    await settle(event, event_of())
    assert await sums(period) == (240, 240, 240)


async def test_two_proxies_settling_the_same_events_at_once_count_them_once(
    settle, period, event_of
):
    events = [event_of() for _ in range(40)]
    await asyncio.gather(*(settle(*events[start:], *events[:start]) for start in range(0, 40, 10)))
    assert await sums(period) == (4800, 4800, 4800)


async def test_a_poisoned_event_is_set_aside_and_the_others_count(
    settle, session, period, event_of
):
    poison = event_of(prompt_tokens=-1)
    settled = await settle(*(event_of() for _ in range(4)), poison, event_of(box_id=uuid4()))
    assert await sums(period) == (480, 480, 480)
    assert len(settled.rejected) == 2
    rejects = (await session.exec(select(UsageReject))).all()
    assert poison.request_id in {reject.request_id for reject in rejects}


async def test_an_event_of_no_period_is_set_aside(settle, session, period, event_of):
    await settle(event_of(period_start=period.period_start - timedelta(days=400)), event_of())
    assert await sums(period) == (120, 120, 120)
    assert len((await session.exec(select(UsageReject))).all()) == 1


async def test_opening_a_period_again_keeps_what_was_used(settle, period, event_of):
    await settle(event_of())
    async with session_scope() as other:
        row = await metering.open_period(
            other,
            customer_id=period.customer_id,
            period_start=period.period_start,
            period_end=period.period_end,
            tokens_limit=5,
        )
    assert (row.tokens_used, row.tokens_limit) == (120, period.tokens_limit)


async def test_a_lost_period_row_is_opened_again_with_the_ledgers_sum(
    settle, session, period, event_of
):
    await settle(event_of())
    await session.exec(sa.delete(UsageMonthly))
    await session.commit()
    row = await metering.open_period(
        session,
        customer_id=period.customer_id,
        period_start=period.period_start,
        period_end=period.period_end,
        tokens_limit=period.tokens_limit,
    )
    assert row.tokens_used == 120


async def test_events_are_listed_newest_first_and_by_page(settle, session, period, event_of):
    await settle(event_of(model="first"), event_of(model="second", outcome="cut", estimated=True))
    customer_id = period.customer_id
    newest = await queries.recent_events(session, customer_id, limit=1)
    older = await queries.recent_events(session, customer_id, limit=5, before_id=newest[0].id)
    assert {newest[0].model, older[0].model} == {"first", "second"}
    assert newest[0].total_tokens == 120
    assert newest[0].cached_tokens == 60
    assert await queries.recent_events(session, uuid4(), limit=5) == []


async def test_days_are_listed_by_model(settle, session, period, event_of):
    now = datetime.now(UTC)
    await settle(event_of(), event_of(timestamp=now - timedelta(days=3)), event_of(model="other"))
    days = await queries.daily_usage(session, period.customer_id, days=2)
    assert [(day.model, day.requests, day.prompt_tokens) for day in days] == [
        ("kimi-for-coding", 1, 100),
        ("other", 1, 100),
    ]


async def test_the_documented_dashboard_query_agrees_with_ours(settle, session, period, event_of):
    await settle(event_of(prompt_tokens=1_234_567))
    documented = sa.text(
        """
        SELECT um.tokens_used, um.tokens_limit,
               ROUND(um.tokens_used::NUMERIC / um.tokens_limit * 100, 1) AS pct_used,
               um.period_start, um.period_end
        FROM usage_monthly um
        WHERE um.customer_id = :id AND um.period_start <= now() AND um.period_end > now()
        ORDER BY um.period_start DESC LIMIT 1
        """
    )
    connection = await session.connection()
    row = (await connection.execute(documented, {"id": period.customer_id})).one()
    ours = await queries.current_usage(session, period.customer_id)
    assert ours is not None
    assert (ours.used, ours.limit, ours.percent) == (row[0], row[1], float(row[2]))
    assert (ours.period_start, ours.period_end) == (row[3], row[4])


async def test_there_is_no_usage_between_periods(session):
    subscription = await make_subscription(session)
    assert await queries.current_usage(session, subscription.customer_id) is None


def test_an_event_reads_back_as_it_was_written():
    event = Event(
        request_id="req_1",
        customer_id=uuid4(),
        box_id=uuid4(),
        period_start=datetime(2026, 1, 1, tzinfo=UTC),
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        model="m",
        prompt_tokens=1,
        completion_tokens=0,
        generation=3,
    )
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event
