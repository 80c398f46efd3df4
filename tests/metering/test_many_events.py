"""With many events, a look at one customer costs what that customer has used, and no more."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import col, select

from openclaw_web.metering import checking, queries, sums
from openclaw_web.metering.models import UsageEvent, UsageMonthly
from tests.factories import make_box, make_period, make_subscription

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("redis")]

CUSTOMERS = 100
EVENTS = 200_000
DAYS = 40
PAGES_PER_EVENT = 12  # index, row and details, each a few pages down
BEGINNING = datetime(2026, 10, 1, tzinfo=UTC)
FILL = (
    "SET LOCAL session_replication_role = replica",  # only here: the rows are right by themselves
    """
    INSERT INTO usage_events (customer_id, box_id, "timestamp", model, prompt_tokens,
                              completion_tokens, request_id)
    SELECT b.customer_id, b.id, :beginning + n * CAST(:span AS interval) / :events, 'k2p5',
           900, 30, 'req_' || n
    FROM generate_series(0, :events - 1) n
    JOIN (SELECT id, customer_id, row_number() OVER () - 1 AS number FROM boxes) b
         ON b.number = n % :customers
    ORDER BY n
    """,
    """
    INSERT INTO usage_event_meta (event_id, period_start)
    SELECT e.id, m.period_start FROM usage_events e JOIN usage_monthly m USING (customer_id)
    """,
    """
    INSERT INTO usage_daily (customer_id, box_id, day, model, requests, prompt_tokens,
                             completion_tokens)
    SELECT customer_id, box_id, ("timestamp" AT TIME ZONE 'UTC')::date AS day, model, count(*),
           sum(prompt_tokens), sum(completion_tokens)
    FROM usage_events GROUP BY customer_id, box_id, day, model
    """,
    """
    UPDATE usage_monthly m SET tokens_used = (
        SELECT sum(total_tokens) FROM usage_events e WHERE e.customer_id = m.customer_id)
    """,
)


@pytest.fixture
async def customer_id(session):
    for _ in range(CUSTOMERS):
        subscription = await make_subscription(session)
        await make_box(session, subscription=subscription)
        await make_period(
            session,
            subscription=subscription,
            period_start=BEGINNING,
            period_end=BEGINNING + timedelta(days=DAYS),
        )
    await session.commit()
    connection = await session.connection()
    numbers = {
        "beginning": BEGINNING,
        "span": timedelta(days=DAYS),
        "events": EVENTS,
        "customers": CUSTOMERS,
    }
    for statement in map(sa.text, FILL):
        wanted = {name: numbers[name] for name in statement.compile().params}
        await connection.execute(statement, wanted)
    await session.commit()
    await (await session.connection()).execute(sa.text("ANALYZE"))
    await session.commit()
    return (await session.exec(select(UsageMonthly.customer_id).limit(1))).one()


async def plan_of(session, statement, **values):
    """Run a statement and return the scans of its plan, and the pages that it touched."""
    connection = await session.connection()
    text = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    ((found,),) = await connection.execute(sa.text(text), values)
    (top,) = json.loads(found) if isinstance(found, str) else found
    nodes, scans = [top["Plan"]], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Relation Name" in node:
            scans.append((node["Node Type"], node["Relation Name"]))
    return scans, top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"]


def literally(statement):
    return str(
        statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    ).replace(":", r"\:")


async def test_a_look_costs_what_its_customer_used(session, customer_id):
    await touches_its_own_events_only(session, customer_id)
    await finds_a_page_of_requests_wherever_it_is(session, customer_id)
    await agrees_by_both_looks(session, customer_id)


async def touches_its_own_events_only(session, customer_id):
    own = EVENTS // CUSTOMERS
    for days_back, share in ((DAYS, 1.0), (2, 2.5 / DAYS)):
        since = (BEGINNING + timedelta(days=DAYS - days_back)).date()
        values = {"customer_id": customer_id, "since": sums.midnight(since), "first_day": since}
        scans, pages = await plan_of(session, sums._LOOK.text, **values)  # noqa: SLF001 - its plan
        assert ("Seq Scan", "usage_events") not in scans
        assert ("Seq Scan", "usage_event_meta") not in scans
        assert pages < PAGES_PER_EVENT * own * share + 300, (days_back, pages)


async def finds_a_page_of_requests_wherever_it_is(session, customer_id):
    moment, number = col(UsageEvent.timestamp), col(UsageEvent.id)
    mine = queries._events(customer_id)  # noqa: SLF001 - its plan
    newest = mine.order_by(moment.desc(), number.desc()).limit(25)
    far = BEGINNING + timedelta(days=DAYS // 2)
    page = mine.where(moment >= BEGINNING, sa.tuple_(moment, number) > (far, 7))
    for statement, most in ((newest, 400), (page.order_by(moment, number).limit(1_000), 12_000)):
        scans, pages = await plan_of(session, literally(statement))
        assert ("Seq Scan", "usage_events") not in scans
        assert pages < most


async def agrees_by_both_looks(session, customer_id):
    now = BEGINNING + timedelta(days=DAYS)
    for is_thorough in (True, False):
        checked = await checking.check(session, customer_id, now, is_thorough=is_thorough)
        assert (checked.is_green, checked.is_thorough) == (True, is_thorough)
        (found,) = checked.sums.values()
        assert found.ledger == EVENTS // CUSTOMERS * 930
