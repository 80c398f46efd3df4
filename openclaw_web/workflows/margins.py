"""Who costs us more upstream than their price bears: an admin hears of it once a period."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import costs
from openclaw_web.billing.costs import ModelUsage
from openclaw_web.billing.entitlement import SERVED
from openclaw_web.billing.models import Tier
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import Alert

ALERT = "margin_low"

# The daily rows of all customers, added up by the database: about a row a customer, day and model.
# A period begins within a day, so this counts a little too much and only says who is looked at.
_ROUGHLY = sa.text("""
SELECT s.customer_id, s.tier, s.current_period_start, d.model, sum(d.prompt_tokens) AS prompt,
       sum(d.cached_tokens) AS cached, sum(d.completion_tokens) AS completion
FROM subscriptions s
JOIN usage_daily d ON d.customer_id = s.customer_id
    AND d.day >= (s.current_period_start AT TIME ZONE 'UTC')::date
    AND d.day <= (s.current_period_end AT TIME ZONE 'UTC')::date
WHERE s.status = ANY(CAST(:served AS subscription_status[]))
GROUP BY s.customer_id, s.tier, s.current_period_start, d.model
ORDER BY s.customer_id
""")
# One customer's ledger of exactly this period.
_EXACTLY = sa.text("""
SELECT e.model, sum(e.prompt_tokens) AS prompt, sum(m.cached_tokens) AS cached,
       sum(e.completion_tokens) AS completion
FROM usage_events e JOIN usage_event_meta m ON m.event_id = e.id
WHERE e.customer_id = :customer_id AND e."timestamp" >= :since - interval '1 day'
  AND m.period_start = :since
GROUP BY e.model
""")


async def watch() -> int:
    """Raise an alert for each customer whose tokens cost too much; returns how many are new."""
    async with session_scope() as session:
        served = [status.value for status in SERVED]
        rows = await (await session.connection()).execute(_ROUGHLY, {"served": served})
        by_customer = [list(lines) for _, lines in groupby(rows, key=lambda line: line.customer_id)]
        suspects = [
            lines[0]
            for lines in by_customer
            if costs.is_too_dear(_cost(lines), Tier(lines[0].tier))
        ]
        count = 0
        for one in suspects:
            count += await _judge(
                session, one.customer_id, Tier(one.tier), one.current_period_start
            )
    return count


async def _judge(
    session: AsyncSession, customer_id: UUID, tier: Tier, period_start: datetime
) -> bool:
    subject = f"{customer_id}:{period_start:%Y-%m-%d}"
    if await _is_told(session, subject):
        return False
    connection = await session.connection()
    rows = await connection.execute(_EXACTLY, {"customer_id": customer_id, "since": period_start})
    cost = _cost(list(rows))
    if not costs.is_too_dear(cost, tier):
        return False
    await jobs.raise_alert(
        session,
        code=ALERT,
        subject=subject,
        detail={
            "customer_id": str(customer_id),
            "tier": tier.value,
            "cost_cents": int(cost),
            "percent_of_price": int(costs.share_of_price(cost, tier) * 100),
        },
    )
    return True


def _cost(rows: Iterable[Any]) -> Decimal:
    return costs.cost_cents(
        ModelUsage(
            model=row.model,
            prompt=int(row.prompt),
            cached=int(row.cached),
            completion=int(row.completion),
        )
        for row in rows
    )


async def _is_told(session: AsyncSession, subject: str) -> bool:
    """Say whether an admin heard of this period before; what they closed stays closed."""
    found = await session.exec(
        select(Alert.id).where(col(Alert.code) == ALERT, col(Alert.subject) == subject).limit(1)
    )
    return found.first() is not None
