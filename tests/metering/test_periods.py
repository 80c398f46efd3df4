"""Periods follow one another, never overlap, and end where Stripe would end them."""

from datetime import UTC, datetime, timedelta

import pytest

from openclaw_web.metering import forecast, periods, queries
from openclaw_web.metering import service as metering
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
