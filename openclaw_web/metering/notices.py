"""Telling a customer in time that the tokens run out: at 75, 90 and 100 %, once a period each.

Nobody on the request's path does this: the worker compares the periods with what was told.
"""

from datetime import datetime
from functools import reduce
from operator import add
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.mails import MailKind
from openclaw_web.accounts.models import Customer, Notice
from openclaw_web.metering.models import UsageMonthly

WHOLE = 100
SHARES = {75: MailKind.LIMIT_75, 90: MailKind.LIMIT_90, 100: MailKind.LIMIT_100}
FIRST = min(SHARES)


class Reached(NamedTuple):
    """A running period of which a share is used that its customer was not told of."""

    customer_id: UUID
    period_start: datetime
    period_end: datetime
    used: int
    limit: int


def kinds_reached(used: int, limit: int) -> list[MailKind]:
    """Return the notices that are due at this count, the lowest first."""
    return [kind for share, kind in SHARES.items() if used * WHOLE >= limit * share]


async def any_customers_to_tell(
    session: AsyncSession, now: datetime, *, limit: int
) -> list[Reached]:
    """Return whose period has passed a mark since they were told last; `now` is business time.

    A provisional period is left out: its limit is a part of what comes with the payment.
    """
    used, most = col(UsageMonthly.tokens_used), col(UsageMonthly.tokens_limit)
    passed = [sa.cast(used * WHOLE >= most * share, sa.Integer) for share in SHARES]
    told = (
        sa.select(sa.func.count())
        .select_from(Notice)
        .where(
            col(Notice.customer_id) == col(UsageMonthly.customer_id),
            col(Notice.period_start) == col(UsageMonthly.period_start),
            col(Notice.kind).in_([str(kind) for kind in SHARES.values()]),
        )
        .scalar_subquery()
    )
    statement = (
        sa.select(
            col(UsageMonthly.customer_id),
            col(UsageMonthly.period_start),
            col(UsageMonthly.period_end),
            used,
            most,
        )
        .join(Customer, col(Customer.id) == col(UsageMonthly.customer_id))
        .where(
            col(UsageMonthly.period_start) <= now,
            col(UsageMonthly.period_end) > now,
            ~col(UsageMonthly.is_provisional),
            col(Customer.deleted_at).is_(None),
            used * WHOLE >= most * FIRST,
            reduce(add, passed) > told,
        )
        .limit(limit)
    )
    rows = await (await session.connection()).execute(statement)
    return [Reached(*row) for row in rows]


async def tell(session: AsyncSession, reached: Reached, now: datetime) -> MailKind | None:
    """Queue one mail for the highest mark, and note the lower ones with it.

    Two workers at once send one mail: whoever notes the mark first.
    """
    newest = None
    for kind in kinds_reached(reached.used, reached.limit):
        noted = await session.scalar(
            insert(Notice)
            .values(
                customer_id=reached.customer_id,
                kind=str(kind),
                period_start=reached.period_start,
                sent_at=now,
            )
            .on_conflict_do_nothing()
            .returning(col(Notice.kind))
        )
        newest = kind if noted is not None else newest
    if newest is not None:
        await accounts.queue_mail(
            session,
            kind=newest,
            customer_id=reached.customer_id,
            payload={
                "tokens_used": reached.used,
                "tokens_limit": reached.limit,
                "period_end": reached.period_end.isoformat(),
            },
            dedupe_key=f"{newest}:{reached.customer_id}:{reached.period_start.isoformat()}",
        )
    return newest
