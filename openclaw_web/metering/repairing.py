"""Bringing months, days and counters back to the ledger, while proxies write; it is never touched.

The month's rows are locked first, in the writer's own order, so no event of the customer is on its
way into the ledger while the roll-ups are set: what the look finds under the locks is final.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.integrations import redis
from openclaw_web.jobs import service as jobs
from openclaw_web.metering import checking, meters, periods
from openclaw_web.metering.checking import Checked
from openclaw_web.metering.invariants import Finding, Invariant
from openclaw_web.metering.models import UsageCheck, UsageDaily, UsageMonthly
from openclaw_web.metering.sums import Counts, DayKey, Look, Month

logger = logging.getLogger(__name__)

DISAGREES = "meter_disagrees"
REPAIRED = "meter_repaired"
LOCK_MILLISECONDS = 5_000  # a writer holds these rows for some milliseconds
MOST_SAID = 20
LOOKED_AGAIN_SECONDS = 1.5  # by then every proxy has read the corrected totals


@dataclass(frozen=True)
class Repair:
    """One sum that is brought back to the ledger; tokens, or the counts of a day."""

    table: str
    row: str
    before: str
    after: str
    is_lower_total: bool = False  # said more than was used: the proxies have to forget it

    def as_dict(self) -> dict[str, str]:
        return {"table": self.table, "row": self.row, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Mended:
    repairs: list[Repair]
    left: list[Finding]


async def mend(
    session: AsyncSession, customer_id: UUID, now: datetime, *, months: Sequence[Month] = ()
) -> Mended:
    """Set the roll-ups of these periods, or of the watched ones, to what the ledger says.

    Where a repair `is_lower_total`, the caller has the proxies forget their totals once this is
    committed; their counter in Redis cannot be lowered, as they would tell the old one again.
    Each repair is audited and told to a person by an alert. What is broken in the ledger itself is
    left to that person: events without details could be of any period, so nothing is set then.
    """
    await _lock(session, customer_id)
    first, seen, watched = await _look(session, customer_id, now, months)
    if any(one.invariant is Invariant.DETAILS for one in first.findings):
        await tell(session, customer_id, first.findings)
        return Mended([], first.findings)
    repairs = [
        *[await _set_month(session, customer_id, month, seen) for month in watched],
        *[await _set_day(session, customer_id, key, seen) for key in _wrong_days(seen)],
        *[_forget_counter(month, seen, first) for month in watched],
    ]
    done = [repair for repair in repairs if repair is not None]
    if done:
        await _note(session, customer_id, done, now)
    last, _, _ = await _look(session, customer_id, now, months)
    left = [one for one in last.findings if one.invariant is not Invariant.COUNTER]
    await tell(session, customer_id, left)
    return Mended(done, left)


async def forget_totals() -> None:
    """Have all proxies learn the totals anew: what they hold only grows, and would go on counting.

    Once for all customers that were set right. If Redis is away, the next check finds them again.
    """
    await asyncio.sleep(LOOKED_AGAIN_SECONDS)
    try:
        await meters.forget_totals()
    except (redis.RedisError, OSError, TimeoutError):
        logger.exception(
            "The proxies could not be told of lower totals; some customers may be stopped too "
            "early until the next check, or until the proxies are started anew."
        )


async def doubt(session: AsyncSession, customer_id: UUID, sums: Mapping[str, int]) -> None:
    """Tell a person that a page saw sums that differ, and have the meter checked at once."""
    await session.exec(
        sa.update(UsageCheck)
        .where(col(UsageCheck.customer_id) == customer_id, col(UsageCheck.agrees))
        .values(agrees=False)
        .execution_options(synchronize_session=False)
    )
    sentence = "; ".join(f"{name}: {count}" for name, count in sums.items())
    await jobs.raise_alert(
        session,
        code=DISAGREES,
        subject=str(customer_id),
        detail={"sentence": f"Their usage page says: {sentence}."},
    )


async def _lock(session: AsyncSession, customer_id: UUID) -> None:
    connection = await session.connection()
    await connection.execute(sa.text(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))
    await periods.take_turn(session, customer_id)  # a period opened now would not be locked below
    await connection.execute(
        sa.select(col(UsageMonthly.id))
        .where(col(UsageMonthly.customer_id) == customer_id)
        .order_by(col(UsageMonthly.customer_id), col(UsageMonthly.period_start))
        .with_for_update()
    )


async def _look(
    session: AsyncSession, customer_id: UUID, now: datetime, months: Sequence[Month]
) -> tuple[Checked, Look, list[Month]]:
    """Look thoroughly and remember it; a second look sees what was set by then."""
    watched = months or await checking.watched_months(session, customer_id, now)
    checked, seen = await checking.check_under_lock(session, customer_id, watched, now)
    starts = {month.period_start for month in watched}
    return checked, seen, [month for month in seen.months if month.period_start in starts]


async def _set_month(
    session: AsyncSession, customer_id: UUID, month: Month, seen: Look
) -> Repair | None:
    truth = seen.sums(month).ledger
    if truth == month.tokens_used:
        return None
    await session.exec(
        sa.update(UsageMonthly)
        .where(
            col(UsageMonthly.customer_id) == customer_id,
            col(UsageMonthly.period_start) == month.period_start,
        )
        .values(tokens_used=truth)
        .execution_options(synchronize_session=False)
    )
    row = month.period_start.isoformat()
    is_lower = truth < month.tokens_used
    return Repair("usage_monthly", row, str(month.tokens_used), str(truth), is_lower_total=is_lower)


def _forget_counter(month: Month, seen: Look, checked: Checked) -> Repair | None:
    """Say that the proxies count more than was used: a database was restored, or lost commits."""
    sums, counter = seen.sums(month), checked.sums[month.period_start].counter
    if counter is None or counter <= sums.ledger:
        return None
    row = month.period_start.isoformat()
    return Repair("the proxies' counter", row, str(counter), str(sums.ledger), is_lower_total=True)


def _wrong_days(seen: Look) -> list[DayKey]:
    ledger = seen.ledger_days()
    keys = {*ledger, *seen.days}
    return sorted(key for key in keys if ledger.get(key) != seen.days.get(key))


async def _set_day(
    session: AsyncSession, customer_id: UUID, key: DayKey, seen: Look
) -> Repair | None:
    """Set one day's row; without any event it becomes zero, since nothing of usage is deleted."""
    told, truth = seen.days.get(key), seen.ledger_days().get(key, Counts())
    if told == truth:
        return None
    values: dict[str, Any] = {
        "requests": truth.requests,
        "prompt_tokens": truth.prompt,
        "cached_tokens": truth.cached,
        "reasoning_tokens": truth.reasoning,
        "completion_tokens": truth.completion,
    }
    names = {"box_id": key.box_id, "day": key.day, "model": key.model}
    row = insert(UsageDaily).values(customer_id=customer_id, **names, **values)
    await session.exec(
        row.on_conflict_do_update(
            index_elements=["customer_id", "box_id", "day", "model"], set_=values
        )
    )
    before = str(tuple(told)) if told is not None else "no row"
    return Repair("usage_daily", f"{key.day} {key.model}", before, str(tuple(truth)))


async def _note(
    session: AsyncSession, customer_id: UUID, repairs: Sequence[Repair], now: datetime
) -> None:
    """Count the repair, put it into the audit log and tell a person."""
    said = [repair.as_dict() for repair in repairs[:MOST_SAID]]
    logger.error(
        "%d sums were brought back to the ledger.",
        len(repairs),
        extra={"customer_id": customer_id},
    )
    newest = sa.select(sa.func.max(col(UsageCheck.period_start))).where(
        col(UsageCheck.customer_id) == customer_id
    )
    await session.exec(
        sa.update(UsageCheck)
        .where(
            col(UsageCheck.customer_id) == customer_id,
            col(UsageCheck.period_start) == newest.scalar_subquery(),
        )
        .values(repairs=UsageCheck.repairs + 1, repaired_at=now)
        .execution_options(synchronize_session=False)
    )
    await accounts.audit(
        session,
        action="usage.repaired",
        actor_type="system",
        user_id=customer_id,
        resource_type="usage",
        resource_id=str(customer_id),
        diff={"repairs": said, "count": len(repairs)},
    )
    one = repairs[0]
    sentence = (
        f"A sum did not say what the ledger says and was set right: {one.table} {one.row} "
        f"said {one.before} instead of {one.after}. In all: {len(repairs)}. Find out why."
    )
    await jobs.raise_alert(
        session,
        code=REPAIRED,
        subject=str(customer_id),
        detail={"sentence": sentence, "repairs": said},
    )


async def tell(session: AsyncSession, customer_id: UUID, findings: Sequence[Finding]) -> None:
    """Open or close the alert about what does not agree."""
    if not findings:
        await jobs.resolve_alert(session, code=DISAGREES, subject=str(customer_id))
        return
    await jobs.raise_alert(
        session,
        code=DISAGREES,
        subject=str(customer_id),
        detail={
            "sentence": findings[0].sentence,
            "findings": [finding.as_dict() for finding in findings[:MOST_SAID]],
        },
    )
