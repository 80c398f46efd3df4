"""Ledger, months, days and counter agree; what does not is found, and set right by the ledger."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import AuditLog
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import engine, session_scope
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations import redis as shared
from openclaw_web.jobs.models import Alert
from openclaw_web.metering import checking, counters, repairing, sabotage, tasks
from openclaw_web.metering import service as metering
from openclaw_web.metering.invariants import Invariant
from openclaw_web.metering.ledger import PeriodTotal
from openclaw_web.metering.meter import Meter, Reservation, Verdict
from openclaw_web.metering.meters import Meters
from openclaw_web.metering.models import UsageCheck, UsageDaily, UsageEvent, UsageMonthly
from openclaw_web.metering.sharing import EPOCH_KEY, Sharing
from tests.factories import make_box, make_period, make_subscription

pytestmark = pytest.mark.usefixtures("redis")


async def check(period, *, is_thorough=False):
    async with session_scope() as session:
        now = await business_now(session)
        return await checking.check(session, period.customer_id, now, is_thorough=is_thorough)


async def broken(checked):
    return {finding.invariant for finding in checked.findings}


async def do(statement, **values):
    async with session_scope() as session:
        return await (await session.connection()).execute(sa.text(statement), values)


async def days_pass(count):
    async with session_scope() as session:
        await advance_clock(session, count * 86_400, by="a test")


async def rows(table):
    async with session_scope() as session:
        return list((await session.exec(select(table))).all())


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch):
    monkeypatch.setattr(repairing, "LOOKED_AGAIN_SECONDS", 0)


@pytest.fixture
async def used(period, event_of, settle):
    """A period with events of two models on several days; it began a day ago."""
    now = event_of().timestamp
    await settle(
        event_of(),
        event_of(model="other", prompt_tokens=7),
        event_of(timestamp=now - timedelta(hours=20)),
    )
    return period


async def test_a_meter_that_agrees_is_green_and_says_its_sums(used):
    for is_thorough in (True, False):
        checked = await check(used, is_thorough=is_thorough)
        assert checked.findings == []
        assert checked.is_thorough is is_thorough
        (sums,) = checked.sums.values()
        assert (sums.ledger, sums.month, sums.days, sums.do_agree) == (267, 267, 267, True)


async def test_each_sabotage_turns_the_verdict_red(used):
    await check(used)
    for name in sabotage.STATEMENTS:
        async with AsyncSession(engine()) as session:
            now = await business_now(session)
            await sabotage.break_it(session, name, used.customer_id)
            checked = await checking.check(session, used.customer_id, now)
            assert sabotage.NOTICED_BY[name] in await broken(checked), name
            await session.rollback()
    assert (await check(used)).is_green


async def test_a_sum_of_older_days_is_not_added_up_again_and_still_checked(used, event_of, settle):
    await days_pass(10)
    assert (await check(used)).is_thorough
    later = event_of().timestamp + timedelta(days=10)
    await settle(event_of(timestamp=later))
    cheap = await check(used)
    assert (cheap.is_green, cheap.is_thorough) == (True, False)
    assert [sums.ledger for sums in cheap.sums.values()] == [387]
    (known,) = await rows(UsageCheck)
    assert (known.settled_tokens, known.month_tokens) == (267, 387)
    await do("UPDATE usage_daily SET prompt_tokens = prompt_tokens + 3 WHERE prompt_tokens = 7")
    assert await broken(await check(used)) == {Invariant.DAY}


async def test_an_event_that_comes_days_late_is_no_difference(used, event_of, settle):
    await days_pass(10)
    await check(used)
    await settle(event_of(prompt_tokens=1_000))
    checked = await check(used)
    assert (checked.is_green, checked.is_thorough) == (True, True)


async def test_both_periods_of_a_day_on_which_the_period_turns_are_checked(
    session, used, event_of, settle
):
    turn = event_of().timestamp
    await metering.open_period(
        session,
        customer_id=used.customer_id,
        period_start=turn,
        period_end=turn + timedelta(days=30),
        tokens_limit=9,
    )
    await session.commit()
    await settle(event_of(period_start=turn, timestamp=turn))
    for _ in range(2):
        checked = await check(used)
        assert checked.findings == []
        assert {(sums.ledger, sums.days) for sums in checked.sums.values()} == {
            (267, 267),
            (120, 120),
        }


async def test_events_of_a_period_that_was_closed_under_them_are_marked_late(
    session, used, event_of, settle
):
    now = event_of().timestamp
    moved = now - timedelta(hours=1)
    await metering.open_period(
        session,
        customer_id=used.customer_id,
        period_start=moved,
        period_end=moved + timedelta(days=30),
        tokens_limit=9,
    )
    await session.commit()
    await settle(event_of())  # admitted before the proxy heard of it
    checked = await check(used)
    assert checked.findings == []
    assert sorted(sums.ledger for sums in checked.sums.values()) == [0, 387]


async def test_the_worker_sets_roll_ups_right_tells_a_person_and_leaves_the_ledger(used):
    await check(used)
    wrongs = ["month", "day", "day-requests", "day-lost", "negative", "ledger-event-deleted"]
    for count, name in enumerate(wrongs, start=1):
        async with session_scope() as session:
            await sabotage.break_it(session, name, used.customer_id)
        events = len(await rows(UsageEvent))
        await tasks.check_meter(used.customer_id)
        assert (await check(used, is_thorough=True)).is_green, name
        assert len(await rows(UsageEvent)) == events
        assert [one.repairs for one in await rows(UsageCheck)] == [count]
    assert [alert.code for alert in await rows(Alert)] == [repairing.REPAIRED]
    assert [row.action for row in await rows(AuditLog)].count("usage.repaired") == len(wrongs)


async def test_a_row_of_a_day_without_events_becomes_zero_and_stays(used):
    await do("UPDATE usage_daily SET day = day - 1 WHERE model = 'other'")
    await tasks.check_meter(used.customer_id)
    found = {(row.model, row.prompt_tokens) for row in await rows(UsageDaily)}
    assert {("other", 0), ("other", 7)} <= found


async def test_what_only_a_person_can_mend_is_told_and_nothing_is_set(used):
    await check(used)
    months = [(one.period_start, one.tokens_used) for one in await rows(UsageMonthly)]
    await do("CREATE TABLE kept AS SELECT * FROM usage_monthly")
    await do("CREATE TABLE kept_meta AS SELECT * FROM usage_event_meta")
    for name in ("meta-missing", "month-missing", "overlap"):
        async with session_scope() as session:
            await sabotage.break_it(session, name, used.customer_id)
        await tasks.check_meter(used.customer_id)
        (alert,) = [one for one in await rows(Alert) if one.resolved_at is None]
        assert (alert.code, alert.subject) == (repairing.DISAGREES, str(used.customer_id)), name
        await do("DELETE FROM usage_monthly")
        await do("INSERT INTO usage_monthly SELECT * FROM kept")
        await do("INSERT INTO usage_event_meta SELECT * FROM kept_meta ON CONFLICT DO NOTHING")
        assert [(one.period_start, one.tokens_used) for one in await rows(UsageMonthly)] == months
        await tasks.check_meter(used.customer_id)
        assert all(one.resolved_at for one in await rows(Alert)), name


async def test_a_period_whose_row_is_gone_is_looked_for(used):
    await check(used)
    await do("DELETE FROM usage_monthly")
    assert await tasks.check_meters() == 1
    (alert,) = await rows(Alert)
    assert "no period" in alert.detail["sentence"]


async def test_repairing_while_proxies_write_loses_nothing(used, event_of, settle):
    async def spoil_and_mend():
        for _ in range(8):
            await do("UPDATE usage_monthly SET tokens_used = tokens_used + 5")
            await do("UPDATE usage_daily SET prompt_tokens = prompt_tokens + 5")
            async with session_scope() as session:
                now = await business_now(session)
                await repairing.mend(session, used.customer_id, now)

    async def write():
        for _ in range(10):
            await settle(*(event_of() for _ in range(5)))

    await asyncio.gather(spoil_and_mend(), write(), write())
    await tasks.check_meter(used.customer_id)
    checked = await check(used, is_thorough=True)
    assert checked.findings == []
    assert [sums.ledger for sums in checked.sums.values()] == [267 + 100 * 120]


async def test_only_meters_that_moved_or_were_not_looked_at_for_a_day_are_due(
    session, used, event_of, settle
):
    async def due():
        async with session_scope() as fresh:
            now = await business_now(fresh)
            return await checking.any_customers_due(fresh, now, limit=10)

    idle = await make_subscription(session)
    await make_box(session, subscription=idle)
    await make_period(session, subscription=idle)
    await session.commit()
    assert set(await due()) == {used.customer_id, idle.customer_id}
    assert await tasks.check_meters() == 2
    assert await due() == []
    await settle(event_of())
    assert await due() == [used.customer_id]
    assert await tasks.check_meters() == 1
    await days_pass(1)
    assert len(await due()) == 2
    await days_pass(60)
    assert await due() == []


async def test_the_page_gets_sums_of_now_without_writing_anything(used, event_of, settle):
    await check(used)
    await settle(event_of())
    before = await rows(UsageCheck)
    async with session_scope() as session:
        now = await business_now(session)
        sums, known = await checking.live_sums(session, used.customer_id, used.period_start, now)
    assert sums is not None
    assert known is not None
    assert (sums.ledger, sums.days, sums.do_agree, known.month_tokens) == (387, 387, True, 267)
    assert [row.month_tokens for row in await rows(UsageCheck)] == [before[0].month_tokens]


async def test_a_counter_in_redis_may_lag_behind_and_not_run_ahead(redis, used):
    meter, sharing = Meter(used.customer_id, used.period_start), Sharing()
    sharing.epoch = "e1"
    key = sharing.compose([meter], 0.0, registers=False).keys[1]
    assert key == counters.key_of("e1", used.customer_id, used.period_start)
    await redis.hset(EPOCH_KEY, "id", "e1")
    for base, expected in ((100, set()), (267, set()), (268, {Invariant.COUNTER})):
        await redis.hset(key, "base", base)
        assert await broken(await check(used)) == expected
    (sums,) = (await check(used)).sums.values()
    assert (sums.counter, sums.do_agree) == (268, False)


async def test_a_counter_that_ran_ahead_is_brought_back_and_its_customer_served_again(
    used, event_of
):
    """A restored database: who is stopped uses nothing, so that the meter does not move."""
    limit, start = 5_000, used.period_start
    proxy = Meters(Sharing(reconnect_seconds=0.0))
    await proxy.start()
    meter = proxy.meter(used.customer_id, start)
    admitted = await until(proxy, meter, limit, lambda answer: isinstance(answer, Reservation))
    proxy.settled(meter, 5_000)
    proxy.end(admitted, 5_000)
    event = event_of(prompt_tokens=5_000, completion_tokens=0)  # its commit was lost
    proxy.written([event], [PeriodTotal(used.customer_id, start, 5_267)])
    await until(proxy, meter, limit, lambda answer: answer is Verdict.REACHED)
    await check(used)  # as if the meter had been looked at and had not moved since
    await do("UPDATE usage_checks SET agrees = true")
    assert await tasks.check_meters() == 1
    (known,) = await rows(UsageCheck)
    assert known.repairs == 1
    (alert,) = await rows(Alert)
    assert alert.code == repairing.REPAIRED
    assert "5267 instead of 267" in alert.detail["sentence"]
    await until(proxy, meter, limit, lambda answer: isinstance(answer, Reservation))
    assert meter.base == 267
    await tasks.check_meters()
    assert await tasks.check_meters() == 0
    (known,) = await rows(UsageCheck)
    assert (known.repairs, known.agrees) == (1, True)
    await proxy.stop()


async def until(proxy, meter, limit, holds):
    """Ask for a place near the limit until the answer is the wanted one."""
    async with asyncio.timeout(20):
        while True:
            proxy.take_place(meter)
            answer = await proxy.start_near(meter, 1, limit=limit)
            if holds(answer):
                return answer
            await asyncio.sleep(0)


async def test_without_redis_there_is_no_counter_and_the_check_goes_on(used, monkeypatch):
    monkeypatch.setattr(shared, "SOCKET_TIMEOUT_SECONDS", 0)
    checked = await check(used)
    assert checked.findings == []
    assert [sums.counter for sums in checked.sums.values()] == [None]


async def test_a_broken_check_of_one_customer_does_not_keep_others_waiting(
    session, used, monkeypatch
):
    other = await make_subscription(session)
    await make_period(session, subscription=other)
    await session.commit()
    real = tasks.look_at

    async def look_at(customer_id):
        if customer_id == used.customer_id:
            raise ZeroDivisionError
        return await real(customer_id)

    monkeypatch.setattr(tasks, "look_at", look_at)
    assert await tasks.check_meters() == 2
    assert [one.customer_id for one in await rows(UsageCheck)] == [other.customer_id]


async def test_a_customer_without_periods_has_nothing_to_check(session):
    now = await business_now(session)
    assert (await checking.check(session, uuid4(), now)).is_green
    assert (await checking.check_history(session, uuid4())).is_green


async def test_nothing_of_another_customer_is_touched(session, used):
    other = await make_subscription(session)
    await make_period(session, subscription=other, tokens_used=5)
    await session.commit()
    await tasks.check_meter(used.customer_id)
    async with session_scope() as fresh:
        kept = await fresh.scalar(
            sa.select(col(UsageMonthly.tokens_used)).where(
                col(UsageMonthly.customer_id) == other.customer_id
            )
        )
    assert kept == 5


async def test_a_total_that_was_too_high_is_forgotten_by_the_proxies_too(used, monkeypatch):
    async with session_scope() as session:
        await sabotage.break_it(session, "month", used.customer_id)
    before = {one.tokens_used for one in await rows(UsageMonthly)}
    forgotten = []

    async def forget():
        forgotten.append({one.tokens_used for one in await rows(UsageMonthly)})

    monkeypatch.setattr(repairing.meters, "forget_totals", forget)
    await tasks.check_meter(used.customer_id)
    ((after,),) = forgotten  # told after the correction, and once
    assert after < max(before)
    await tasks.check_meter(used.customer_id)
    assert len(forgotten) == 1
