"""The ledger: one statement writes a batch of events and both roll-ups, and never one twice."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now
from openclaw_web.metering.models import UsageReject

logger = logging.getLogger(__name__)

NO_PERIOD = "The customer has no such period."


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One request that reached the provider; its period and time were fixed at admission."""

    request_id: str
    customer_id: UUID
    box_id: UUID
    period_start: datetime
    timestamp: datetime
    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    provider_request_id: str | None = None
    status_code: int | None = None
    latency_ms: int | None = None
    ttfb_ms: int | None = None
    streamed: bool = False
    estimated: bool = False
    outcome: str = "complete"
    upstream: str | None = None
    generation: int | None = None
    is_agent: bool = False  # the box itself asked, not its customer's program

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class PeriodTotal:
    customer_id: UUID
    period_start: datetime
    tokens_used: int


@dataclass
class Settled:
    """What a batch came to: new totals of the periods it changed, and the events refused."""

    totals: list[PeriodTotal] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


# The month's rows are locked first and in order, so that two proxies never deadlock, and so that
# whoever repairs a roll-up (repairing.py) can keep the writers away. The totals grow by the rows
# that were really inserted. Half of the server's work are the four foreign keys, a fifth the four
# indexes; JSON costs less to read there than arrays cost us to write (bench/ledger.py).
_WRITE = sa.text("""
WITH given AS MATERIALIZED (
    SELECT DISTINCT ON (customer_id, request_id) *
    FROM json_to_recordset(CAST(:batch AS json)) AS e(
        request_id text, customer_id uuid, box_id uuid, period_start timestamptz,
        "timestamp" timestamptz, model text, prompt_tokens int, completion_tokens int,
        cached_tokens int, reasoning_tokens int, provider_request_id text, status_code int,
        latency_ms int, ttfb_ms int, streamed boolean, estimated boolean, outcome text,
        upstream text)
    ORDER BY customer_id, request_id
), period AS MATERIALIZED (
    SELECT m.id, m.customer_id, m.period_start, m.period_end
    FROM usage_monthly m
    WHERE (m.customer_id, m.period_start) IN (SELECT customer_id, period_start FROM given)
    ORDER BY m.customer_id, m.period_start
    FOR UPDATE
), counted AS MATERIALIZED (
    SELECT g.*, p.id AS period_id,
           g."timestamp" < g.period_start OR g."timestamp" >= p.period_end AS late
    FROM given g LEFT JOIN period p USING (customer_id, period_start)
), inserted AS (
    INSERT INTO usage_events
        (customer_id, box_id, "timestamp", model, prompt_tokens, completion_tokens, request_id)
    SELECT customer_id, box_id, "timestamp", model, prompt_tokens, completion_tokens, request_id
    FROM counted
    WHERE period_id IS NOT NULL
    ORDER BY customer_id, "timestamp", request_id
    ON CONFLICT (customer_id, request_id) WHERE request_id IS NOT NULL DO NOTHING
    RETURNING id, customer_id, request_id
), written AS MATERIALIZED (
    SELECT i.id AS event_id, c.* FROM inserted i JOIN counted c USING (customer_id, request_id)
), meta AS (
    INSERT INTO usage_event_meta
        (event_id, period_start, provider_request_id, cached_tokens, reasoning_tokens,
         status_code, latency_ms, ttfb_ms, streamed, estimated, outcome, upstream, late)
    SELECT event_id, period_start, provider_request_id, cached_tokens, reasoning_tokens,
           status_code, latency_ms, ttfb_ms, streamed, estimated, outcome, upstream, late
    FROM written
), month AS (
    UPDATE usage_monthly m
    SET tokens_used = m.tokens_used + s.tokens
    FROM (
        SELECT customer_id, period_start, sum(prompt_tokens::bigint + completion_tokens) AS tokens
        FROM written GROUP BY customer_id, period_start
    ) s
    WHERE m.customer_id = s.customer_id AND m.period_start = s.period_start
    RETURNING m.customer_id, m.period_start, m.tokens_used
), day AS (
    INSERT INTO usage_daily AS d
        (customer_id, box_id, day, model, requests, prompt_tokens, cached_tokens, reasoning_tokens,
         completion_tokens)
    SELECT customer_id, box_id, ("timestamp" AT TIME ZONE 'UTC')::date AS day, model, count(*),
           sum(prompt_tokens), sum(cached_tokens), sum(reasoning_tokens), sum(completion_tokens)
    FROM written
    GROUP BY customer_id, box_id, day, model
    ORDER BY customer_id, box_id, day, model
    ON CONFLICT (customer_id, box_id, day, model) DO UPDATE
    SET requests = d.requests + excluded.requests,
        prompt_tokens = d.prompt_tokens + excluded.prompt_tokens,
        cached_tokens = d.cached_tokens + excluded.cached_tokens,
        reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
        completion_tokens = d.completion_tokens + excluded.completion_tokens
)
SELECT customer_id, period_start, tokens_used, NULL AS request_id FROM month
UNION ALL
SELECT customer_id, period_start, NULL, request_id FROM counted WHERE period_id IS NULL
""")


async def write(session: AsyncSession, events: Sequence[Event]) -> Settled:
    """Write a batch; what the database refuses goes to `usage_rejects`, the others are kept.

    Raises:
        sqlalchemy.exc.DBAPIError: the database does not answer; nothing was written.
    """
    settled = Settled()
    await _write_or_split(session, events, settled)
    return settled


async def _write_or_split(session: AsyncSession, events: Sequence[Event], settled: Settled) -> None:
    """Write all at once, or halve the batch until the poisoned event stands alone."""
    if not events:
        return
    try:
        async with session.begin_nested():
            await _write_batch(session, events, settled)
    except (DataError, IntegrityError) as error:
        if len(events) == 1:
            await _reject(session, events[0], str(error.orig), settled)
            return
        middle = len(events) // 2
        await _write_or_split(session, events[:middle], settled)
        await _write_or_split(session, events[middle:], settled)


async def _write_batch(session: AsyncSession, events: Sequence[Event], settled: Settled) -> None:
    batch = msgspec.json.encode(events).decode()
    connection = await session.connection()
    rows = (await connection.execute(_WRITE, {"batch": batch})).all()
    without_period = {row.request_id for row in rows if row.request_id is not None}
    for event in events:
        if event.request_id in without_period:
            await _reject(session, event, NO_PERIOD, settled)
    settled.totals += [
        PeriodTotal(row.customer_id, row.period_start, row.tokens_used)
        for row in rows
        if row.request_id is None
    ]


async def _reject(session: AsyncSession, event: Event, error: str, settled: Settled) -> None:
    logger.error(
        "A usage event was refused: %s",
        error,
        extra={"customer_id": event.customer_id, "request_id": event.request_id},
    )
    settled.rejected.append(event.request_id)
    settled.reasons[event.request_id] = error
    readable = msgspec.json.encode(event).replace(rb"\u0000", b"")  # JSONB has no place for it
    row = insert(UsageReject).values(
        request_id=event.request_id,
        payload=msgspec.json.decode(readable),
        error=error,
        created_at=await business_now(session),
    )
    await session.exec(row.on_conflict_do_nothing(index_elements=["request_id"]))
