"""Breaking each invariant on purpose: a check that cannot fail is a defect.

Everything here happens to the customer who is named, in the caller's transaction, which is rolled
back: `local/metering.py` makes somebody up for it.
"""

from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.errors import NotFoundError
from openclaw_web.metering.invariants import Invariant

# What is done, and which invariant has to notice it. The event is the customer's first, the day the
# one of the first row.
STATEMENTS: Mapping[str, tuple[Invariant, str]] = {
    "month": (
        Invariant.MONTH,
        """
        UPDATE usage_monthly SET tokens_used = tokens_used + 1 WHERE customer_id = :customer_id
        """,
    ),
    "day": (
        Invariant.DAY,
        """
        UPDATE usage_daily SET completion_tokens = completion_tokens + 1
        WHERE customer_id = :customer_id AND day = :day AND model = :model
        """,
    ),
    "day-requests": (
        Invariant.DAY,
        """
        UPDATE usage_daily SET requests = requests + 1
        WHERE customer_id = :customer_id AND day = :day AND model = :model
        """,
    ),
    "day-lost": (
        Invariant.DAY,
        """
        DELETE FROM usage_daily
        WHERE customer_id = :customer_id AND day = :day AND model = :model
        """,
    ),
    "negative": (
        Invariant.SIGN,
        """
        UPDATE usage_daily SET cached_tokens = -5
        WHERE customer_id = :customer_id AND day = :day AND model = :model
        """,
    ),
    "ledger-event-deleted": (Invariant.MONTH, "DELETE FROM usage_events WHERE id = :event_id"),
    "ledger-event-changed": (
        Invariant.MONTH,
        "UPDATE usage_events SET prompt_tokens = prompt_tokens + 1 WHERE id = :event_id",
    ),
    "ledger-event-twice": (
        Invariant.MONTH,
        """
        WITH copied AS (
            INSERT INTO usage_events (customer_id, box_id, "timestamp", model, prompt_tokens,
                                      completion_tokens)
            SELECT customer_id, box_id, "timestamp", model, prompt_tokens, completion_tokens
            FROM usage_events WHERE id = :event_id
            RETURNING id)
        INSERT INTO usage_event_meta (event_id, period_start)
        SELECT copied.id, m.period_start FROM copied, usage_event_meta m
        WHERE m.event_id = :event_id
        """,
    ),
    "meta-missing": (
        Invariant.DETAILS,
        "DELETE FROM usage_event_meta WHERE event_id = :event_id",
    ),
    "month-missing": (
        Invariant.PERIOD,
        """
        DELETE FROM usage_monthly WHERE id = (
            SELECT id FROM usage_monthly WHERE customer_id = :customer_id
            ORDER BY period_start DESC LIMIT 1)
        """,
    ),
    "overlap": (
        Invariant.OVERLAP,
        """
        INSERT INTO usage_monthly (customer_id, period_start, period_end, tokens_limit)
        SELECT customer_id, period_start + interval '1 hour', period_end + interval '1 hour',
               tokens_limit
        FROM usage_monthly WHERE customer_id = :customer_id ORDER BY period_start DESC LIMIT 1
        """,
    ),
    "event-outside": (
        Invariant.WITHIN,
        """
        UPDATE usage_events e SET "timestamp" = p.period_end
        FROM usage_monthly p, usage_event_meta m
        WHERE e.id = :event_id AND m.event_id = e.id AND p.customer_id = e.customer_id
              AND p.period_start = m.period_start
        """,
    ),
}
_FIRST = sa.text("""
SELECT (SELECT min(id) FROM usage_events WHERE customer_id = :customer_id) AS event_id, day, model
FROM usage_daily WHERE customer_id = :customer_id ORDER BY day, model LIMIT 1
""")
# These two are not in the database: `local/metering.py` breaks them in Redis and on the disk.
COUNTER, SPOOL = "counter-ahead", "spool-waits"
NAMES = (*STATEMENTS, COUNTER, SPOOL)
NOTICED_BY: Mapping[str, Invariant] = {
    **{name: invariant for name, (invariant, _) in STATEMENTS.items()},
    COUNTER: Invariant.COUNTER,
    SPOOL: Invariant.SPOOL,
}


async def break_it(session: AsyncSession, name: str, customer_id: UUID) -> None:
    """Do one of the statements to this customer; whoever calls rolls it back.

    Raises:
        NotFoundError: nobody knows this sabotage.
    """
    if name not in STATEMENTS:
        raise NotFoundError(f"There is no sabotage called {name!r}; there are: {', '.join(NAMES)}.")
    connection = await session.connection()
    named = {"customer_id": customer_id}
    first = (await connection.execute(_FIRST, named)).mappings().one()
    statement = sa.text(STATEMENTS[name][1])
    values = {**named, **first}
    wanted = {key: values[key] for key in statement.compile().params}
    await connection.execute(statement, wanted)
