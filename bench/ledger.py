"""What one usage event costs when it is written: PostgreSQL's CPU and our own, in microseconds.

    python bench/ledger.py [--events 1000] [--rounds 15]

Starts a PostgreSQL of its own without fsync, so that the figures are work and not waiting. CPU of
the server is the backend's own, from /proc: Linux only.
"""

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web import tables
from openclaw_web.core import database, migrations
from openclaw_web.local import scratch
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event

START = datetime(2026, 11, 1, tzinfo=UTC)
PEOPLE = sa.text(
    """
    WITH person AS (
        INSERT INTO customers (id, email)
        SELECT gen_random_uuid(), gen_random_uuid() || '@bench.invalid'
        FROM generate_series(1, :count)
        RETURNING id
    ), subscription AS (
        INSERT INTO subscriptions (customer_id, tier, status, tokens_limit, current_period_start,
            current_period_end, stripe_subscription_id)
        SELECT id, 'starter', 'active', 1000000000, :start, :end, 'sub_' || id FROM person
        RETURNING id, customer_id
    ), period AS (
        INSERT INTO usage_monthly (customer_id, period_start, period_end, tokens_limit)
        SELECT id, :start, :end, 1000000000 FROM person
    )
    INSERT INTO boxes (id, customer_id, subscription_id, k8s_namespace, telegram_user_ids)
    SELECT gen_random_uuid(), customer_id, id, 'customer-' || id, '{1}' FROM subscription
    RETURNING customer_id, id
    """
)


def batch(boxes: list[tuple[UUID, UUID]], count: int) -> list[Event]:
    """Return new events, one after the other of each customer."""
    return [
        Event(
            request_id=f"req_{uuid4()}",
            customer_id=boxes[number % len(boxes)][0],
            box_id=boxes[number % len(boxes)][1],
            period_start=START,
            timestamp=START + timedelta(days=3, milliseconds=number),
            model="kimi-for-coding",
            prompt_tokens=12_345,
            completion_tokens=678,
            cached_tokens=11_000,
            reasoning_tokens=50,
            provider_request_id="chatcmpl-0123456789abcdef",
            status_code=200,
            latency_ms=2_345,
            ttfb_ms=456,
            streamed=True,
            upstream="api.kimi.com",
            generation=3,
        )
        for number in range(count)
    ]


def backend_us(pid: int) -> float:
    """Return the CPU that a server process has used, in microseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="utf-8").split()[0]) / 1_000


async def measure(boxes: list[tuple[UUID, UUID]], *, events: int, rounds: int) -> tuple[float, ...]:
    """Write batches in one connection and return our CPU, the server's and the time, per event."""
    batches = [batch(boxes, events) for _ in range(rounds + 3)]
    found = []
    for number, one in enumerate(batches):
        async with AsyncSession(database.engine()) as session, session.begin():
            pid = await session.scalar(sa.select(sa.func.pg_backend_pid()))
            assert pid  # noqa: S101 - a benchmark
            before, own, clock = backend_us(pid), time.process_time(), time.perf_counter()
            settled = await metering.settle(session, one)
            spent, took = time.process_time() - own, time.perf_counter() - clock
            assert not settled.rejected  # noqa: S101 - a benchmark
        if number >= 3:  # noqa: PLR2004 - the first ones prepare statements and caches
            found.append((spent * 1e6, backend_us(pid) - before, took * 1e6))
    return tuple(min(column) / events for column in zip(*found, strict=True))


async def run(url: str, *, events: int, rounds: int) -> None:
    tables.resolve()
    database.open_database(url)
    print(f"{'customers':>10} {'our CPU us':>11} {'server CPU us':>14} {'time us':>8}   per event")
    for customers in (1, 200):
        async with AsyncSession(database.engine()) as session, session.begin():
            rows = await (await session.connection()).execute(
                PEOPLE, {"count": customers, "start": START, "end": START + timedelta(days=30)}
            )
            boxes = [(row[0], row[1]) for row in rows]
        ours, server, took = await measure(boxes, events=events, rounds=rounds)
        print(f"{customers:>10} {ours:>11.1f} {server:>14.1f} {took:>8.1f}")
    await database.close_database()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="openclaw-cloud-bench-") as folder,
        scratch.postgres_server(Path(folder)) as server,
    ):
        url = server.url("bench")
        migrations.ensure_database(url)
        migrations.migrate(url)
        asyncio.run(run(url, events=chosen.events, rounds=chosen.rounds))


if __name__ == "__main__":
    main()
