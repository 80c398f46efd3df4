"""Four processes and two hundred callers at the last percent of a limit, with Redis emptied."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from sqlmodel import col, select

from openclaw_web.core.database import session_scope
from openclaw_web.metering.models import UsageMonthly
from tests.factories import make_box, make_period, make_subscription

PROJECT = Path(__file__).parents[2]
LIMIT = 10_000_000
USED = 9_900_000
LARGEST = 2_000
PROCESSES = 4
CALLERS = 50


@pytest.mark.slow
async def test_four_processes_share_the_last_percent(session, database, redis, valkey_server):
    subscription = await make_subscription(session)
    box = await make_box(session, subscription=subscription)
    period = await make_period(
        session, subscription=subscription, tokens_used=USED, tokens_limit=LIMIT
    )
    await session.commit()
    task = {
        "customer_id": str(box.customer_id),
        "box_id": str(box.id),
        "period_start": period.period_start.isoformat(),
        "used": USED,
        "limit": LIMIT,
        "tokens": LARGEST,
        "callers": CALLERS,
        "database": database,
        "redis": valkey_server.url,
    }
    async with asyncio.timeout(300):
        running = [
            asyncio.create_task(run_process({**task, "seed": seed})) for seed in range(PROCESSES)
        ]
        while await total(box.customer_id) < (USED + LIMIT) // 2:  # noqa: ASYNC110 - the database
            await asyncio.sleep(0.01)
        await redis.flushall()
        reports = await asyncio.gather(*running)
    granted = sum(sum(report["granted"]) for report in reports)
    assert await total(box.customer_id) == USED + granted
    assert LIMIT <= USED + granted < LIMIT + LARGEST
    keys = [key async for key in redis.scan_iter("meter:*")]
    fields = [name for key in keys for name in await redis.hgetall(key)]
    assert fields
    assert not [name for name in fields if name.startswith("l:")]


async def run_process(task: dict) -> dict:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.metering.limit_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=PROJECT,
    )
    answer, _ = await child.communicate(json.dumps(task).encode())
    assert child.returncode == 0
    return json.loads(answer)


async def total(customer_id) -> int:
    async with session_scope() as session:
        found = await session.exec(
            select(UsageMonthly.tokens_used).where(col(UsageMonthly.customer_id) == customer_id)
        )
        return found.one()
