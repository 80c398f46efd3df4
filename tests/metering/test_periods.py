"""Periods follow one another, never overlap, and end where Stripe would end them."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.metering import checking, forecast, periods, queries, sums
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import UsageEventMeta, UsageMonthly
from tests.factories import make_customer


def day(month: int, number: int, year: int = 2026) -> datetime:
    return datetime(year, month, number, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "now", "expected"),
    [
        (day(1, 5), day(2, 5), day(1, 20), (day(1, 5), day(2, 5))),
        (day(1, 5), day(2, 5), day(2, 5), (day(2, 5), day(3, 5))),
        (day(1, 5), day(2, 5), day(4, 30), (day(4, 5), day(5, 5))),
        (day(1, 31), day(2, 28), day(3, 1), (day(2, 28), day(3, 31))),
        (day(11, 30), day(12, 30), day(12, 31), (day(12, 30), day(1, 30, 2027))),
    ],
    ids=["inside", "the very end", "months later", "the last of a month", "over new year"],
)
def test_a_period_is_found_for_any_moment(start, end, now, expected):
    assert periods.period_at(start, end, now) == expected


async def open_period(session, customer, start, end, *, tokens_limit=1000, **fields):
    return await metering.open_period(
        session,
        customer_id=customer.id,
        period_start=start,
        period_end=end,
        tokens_limit=tokens_limit,
        **fields,
    )


async def test_a_new_period_closes_the_one_it_runs_into(session):
    customer = await make_customer(session)
    old = await open_period(session, customer, day(1, 5), day(2, 5))
    await open_period(session, customer, day(1, 20), day(2, 20), tokens_limit=5000)
    await session.refresh(old)
    assert old.period_end == day(1, 20)
    new = await queries.find_period(session, customer.id, day(1, 25))
    assert new is not None
    assert new.tokens_limit == 5000


async def test_a_provisional_period_is_completed_once_stripe_told_us(session):
    customer = await make_customer(session)
    await open_period(
        session, customer, day(1, 5), day(2, 4), tokens_limit=250, is_provisional=True
    )
    row = await open_period(session, customer, day(1, 5), day(2, 5))
    assert (row.tokens_limit, row.period_end, row.is_provisional) == (1000, day(2, 5), False)
    again = await open_period(
        session, customer, day(1, 5), day(2, 4), tokens_limit=250, is_provisional=True
    )
    assert (again.tokens_limit, again.is_provisional) == (1000, False)


async def test_a_start_that_stripe_names_a_little_earlier_makes_no_second_period(session):
    customer = await make_customer(session)
    await open_period(session, customer, day(1, 5), day(2, 5))
    counted_on = day(2, 5) + timedelta(seconds=3)
    began = await open_period(
        session, customer, counted_on, day(3, 5), tokens_limit=250, is_provisional=True
    )
    for _ in range(2):
        row = await open_period(session, customer, day(2, 5), day(3, 6), tokens_limit=9_000)
        assert (row.id, row.period_start) == (began.id, counted_on)
        assert (row.period_end, row.tokens_limit, row.is_provisional) == (day(3, 6), 9_000, False)
    months = await checking.months_of(session, customer.id)
    assert list(sums.overlaps(months)) == []
    assert len(months) == 2


async def test_an_old_period_that_is_opened_again_stays_as_it_is(session):
    customer = await make_customer(session)
    old = await open_period(session, customer, day(1, 5), day(2, 5))
    await open_period(session, customer, day(1, 20), day(2, 20), tokens_limit=5000)
    again = await open_period(session, customer, day(1, 5), day(2, 5), tokens_limit=7)
    assert (again.id, again.tokens_limit, again.period_end) == (old.id, 1000, day(1, 20))


async def test_closing_a_period_takes_its_total_from_the_ledger_and_marks_what_is_late(
    session, period, event_of, settle
):
    now = event_of().timestamp
    await settle(event_of(timestamp=now - timedelta(hours=2)), event_of())
    await session.exec(sa.update(UsageMonthly).values(tokens_used=5))
    await metering.open_period(
        session,
        customer_id=period.customer_id,
        period_start=now - timedelta(hours=1),
        period_end=now + timedelta(days=30),
        tokens_limit=1,
    )
    await session.refresh(period)
    assert period.tokens_used == 240
    late = (
        await session.exec(select(UsageEventMeta.late).order_by(col(UsageEventMeta.event_id)))
    ).all()
    assert late == [False, True]


async def test_a_period_that_ends_before_it_starts_is_refused(session):
    customer = await make_customer(session)
    with pytest.raises(periods.PeriodError):
        await open_period(session, customer, day(2, 5), day(1, 5))


@pytest.mark.parametrize(
    ("used", "days", "expected"),
    [(500, 10, day(1, 21)), (100, 10, None), (0, 10, None), (1000, 10, day(1, 11)), (9, 0.1, None)],
    ids=["halfway in a third", "slow", "unused", "reached already", "too early to tell"],
)
def test_the_forecast_is_a_straight_line(used, days, expected):
    reached = forecast.limit_reached_at(
        used=used,
        limit=1000,
        period_start=day(1, 1),
        period_end=day(2, 1),
        now=day(1, 1) + timedelta(days=days),
    )
    assert reached == expected
