"""Two clocks: business time moves with the stored offset, real time does not."""

import asyncio
from datetime import UTC, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from openclaw_web.core.clock import OFFSET_KEY, REAL_NOW, business_now, real_now
from openclaw_web.core.database import engine, session_scope
from openclaw_web.core.switches import advance_clock, read_switch

CLOSE = timedelta(seconds=30)


async def test_business_time_is_real_time_until_somebody_moves_it(session):
    now = await business_now(session)
    assert now.tzinfo is UTC
    assert abs(now - real_now()) < CLOSE


async def test_business_time_moves_with_the_offset_and_real_time_stays(session):
    assert await advance_clock(session, 86_400, by="test") == 86_400
    assert await advance_clock(session, 60, by="test") == 86_460
    ahead = await business_now(session) - real_now()
    assert abs(ahead - timedelta(seconds=86_460)) < CLOSE
    of_the_database = await session.scalar(sa.select(REAL_NOW))
    assert abs(of_the_database - real_now()) < CLOSE


@pytest.mark.usefixtures("database")
async def test_a_unit_of_work_reads_business_time_once_and_again_when_it_moves_it():
    reads = []
    async with session_scope() as session:
        before = await business_now(session)
        event.listen(engine().sync_engine, "after_cursor_execute", lambda *told: reads.append(told))
        assert before <= await business_now(session) <= before + CLOSE
        assert not reads
        await advance_clock(session, 86_400, by="test")
        assert await business_now(session) >= before + timedelta(days=1)


async def test_business_time_never_goes_back(session):
    with pytest.raises(ValueError, match="only moves forward"):
        await advance_clock(session, -1, by="test")


@pytest.mark.usefixtures("database")
async def test_two_steps_at_once_both_count():
    async def step() -> None:
        async with session_scope() as session:
            await advance_clock(session, 60, by="test")

    await asyncio.gather(*(step() for _ in range(4)))
    async with session_scope() as session:
        assert await read_switch(session, OFFSET_KEY) == 240
