"""Checking a customer's meter: often and cheaply, and daily from the first event of the period.

Both kinds of look compare at one moment. The cheap one takes the sums of older days from the last
thorough one; when it finds a difference, the thorough one decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.metering import counters, invariants
from openclaw_web.metering.counters import Period
from openclaw_web.metering.invariants import Finding
from openclaw_web.metering.models import UsageCheck, UsageMonthly
from openclaw_web.metering.sums import ONE_DAY, Look, Month, Settled, Sums, look

WATCHED = timedelta(days=7)  # a period that ended longer ago does not change any more
LOST = timedelta(days=40)
THOROUGH = timedelta(days=1)
DAYS_LOOKED_AT = 2  # events hardly ever come later; if they do, a thorough look finds them


@dataclass(frozen=True)
class Checked:
    """What a check of a customer found, and the sums of each watched period."""

    findings: list[Finding]
    sums: dict[datetime, Sums]
    is_thorough: bool

    @property
    def is_green(self) -> bool:
        return not self.findings


async def check(
    session: AsyncSession, customer_id: UUID, now: datetime, *, is_thorough: bool = False
) -> Checked:
    """Check the periods that run or ended lately, and remember the outcome; `now` is business time.

    Events, days, months and counters are read at one moment, without locks, so writers go on.
    """
    known = await _known(session, customer_id)
    watched = await watched_months(session, customer_id, now)
    counted = await counters.bases(customer_id, [month.period_start for month in watched])
    if not is_thorough:
        cheap = await _cheap(session, customer_id, watched, known, counted)
        if cheap is not None and cheap[1].is_green:
            await _remember(session, customer_id, *cheap, known=known, now=now)
            return cheap[1]
    seen, checked = await look_thoroughly(
        session, customer_id, watched, counted, since=_first_day(watched, known, now)
    )
    await _remember(session, customer_id, seen, checked, known=known, now=now)
    return checked


async def check_under_lock(
    session: AsyncSession, customer_id: UUID, watched: Sequence[Month], now: datetime
) -> tuple[Checked, Look]:
    """Check thoroughly for somebody who keeps the writers away, and remember the outcome."""
    known = await _known(session, customer_id)
    counted = await counters.bases(customer_id, [month.period_start for month in watched])
    seen, checked = await look_thoroughly(
        session, customer_id, watched, counted, since=_first_day(watched, known, now)
    )
    await _remember(session, customer_id, seen, checked, known=known, now=now)
    return checked, seen


async def check_history(session: AsyncSession, customer_id: UUID) -> Checked:
    """Check all periods that a customer ever had, and remember nothing."""
    months = await months_of(session, customer_id)
    if not months:
        return Checked([], {}, is_thorough=True)
    counted = await counters.bases(customer_id, [month.period_start for month in months])
    since = months[0].days[0]
    return (await look_thoroughly(session, customer_id, months, counted, since=since))[1]


async def live_sums(
    session: AsyncSession, customer_id: UUID, period_start: datetime, now: datetime
) -> tuple[Sums | None, UsageCheck | None]:
    """Return a running period's sums as they are now, and what the newest check left.

    For a page that looks every few seconds: nothing is written.
    """
    known = await _known(session, customer_id)
    watched = await watched_months(session, customer_id, now)
    counted = await counters.bases(customer_id, [period_start])
    cheap = await _cheap(session, customer_id, watched, known, counted)
    checked = cheap[1] if cheap is not None else None
    if checked is None or not checked.is_green:
        since = _first_day(watched, known, now)
        checked = (await look_thoroughly(session, customer_id, watched, counted, since=since))[1]
    return checked.sums.get(period_start), known.get(period_start)


async def look_thoroughly(
    session: AsyncSession,
    customer_id: UUID,
    watched: Sequence[Month],
    counted: Mapping[datetime, int],
    *,
    since: date,
) -> tuple[Look, Checked]:
    """Add up every event since the first day of these periods."""
    # A day more: a clock that was a little behind may have put an event before its period.
    seen = await look(session, customer_id, since=since - ONE_DAY)
    return seen, _judged(customer_id, seen, _fresh(seen, watched), {}, counted, is_thorough=True)


async def months_of(session: AsyncSession, customer_id: UUID) -> list[Month]:
    """Return all periods of a customer, the oldest first."""
    rows = await session.exec(
        select(UsageMonthly.period_start, UsageMonthly.period_end, UsageMonthly.tokens_used)
        .where(col(UsageMonthly.customer_id) == customer_id)
        .order_by(col(UsageMonthly.period_start))
    )
    return [Month(*row) for row in rows]


async def any_customers_due(session: AsyncSession, now: datetime, *, limit: int) -> list[UUID]:
    """Return whose meter is to be checked: something was counted since, or a day has passed.

    Level-triggered: it compares what each period says with what the last check saw there. A period
    that was checked and has lost its row comes first.
    """
    lost = await _any_customers_without_checked_period(session, now, limit=limit)
    running = sa.and_(
        col(UsageMonthly.period_end) > now - WATCHED, col(UsageMonthly.period_start) <= now
    )
    is_new = col(UsageCheck.customer_id).is_(None)
    statement = (
        sa.select(col(UsageMonthly.customer_id))
        .join(
            UsageCheck,
            sa.and_(
                col(UsageCheck.customer_id) == col(UsageMonthly.customer_id),
                col(UsageCheck.period_start) == col(UsageMonthly.period_start),
            ),
            isouter=True,
        )
        .where(
            running,
            sa.or_(
                is_new,
                ~col(UsageCheck.agrees),
                col(UsageCheck.month_tokens) != col(UsageMonthly.tokens_used),
                col(UsageCheck.full_at) <= now - THOROUGH,
            ),
        )
        .group_by(col(UsageMonthly.customer_id))
        .order_by(sa.func.min(col(UsageCheck.checked_at)).asc().nulls_first())
        .limit(limit)
    )
    due = (await (await session.connection()).execute(statement)).scalars()
    return list(dict.fromkeys([*lost, *due]))


async def any_customers_ahead(session: AsyncSession, now: datetime, *, limit: int) -> list[UUID]:
    """Return for whom the proxies count more than the database, as after one was restored.

    Nothing else shows it: who is stopped for it uses nothing, so the meter does not move. Somebody
    who is counted this moment may be among them.
    """
    before = await _any_customers_totals(session, now)
    counted = await counters.any_customers_bases(list(before))
    if all(base <= before[period] for period, base in counted.items()):
        return []
    totals = await _any_customers_totals(session, now)  # read after the counters
    ahead = [period for period, base in counted.items() if base > totals.get(period, 0)]
    return list(dict.fromkeys(customer_id for customer_id, _ in ahead))[:limit]


async def _any_customers_totals(session: AsyncSession, now: datetime) -> dict[Period, int]:
    running = sa.and_(
        col(UsageMonthly.period_end) > now - WATCHED, col(UsageMonthly.period_start) <= now
    )
    rows = await session.exec(
        select(UsageMonthly.customer_id, UsageMonthly.period_start, UsageMonthly.tokens_used).where(
            running
        )
    )
    return {(customer_id, start): tokens for customer_id, start, tokens in rows}


async def _any_customers_without_checked_period(
    session: AsyncSession, now: datetime, *, limit: int
) -> list[UUID]:
    exists = sa.exists().where(
        col(UsageMonthly.customer_id) == col(UsageCheck.customer_id),
        col(UsageMonthly.period_start) == col(UsageCheck.period_start),
    )
    statement = (
        sa.select(col(UsageCheck.customer_id))
        .where(col(UsageCheck.period_start) > now - LOST, ~exists)
        .distinct()
        .limit(limit)
    )
    return list((await (await session.connection()).execute(statement)).scalars())


async def is_thorough_due(session: AsyncSession, customer_id: UUID, now: datetime) -> bool:
    """Say whether the last thorough look is a day old, or found a difference."""
    known = await _known(session, customer_id)
    watched = await watched_months(session, customer_id, now)
    return any(
        (last := known.get(month.period_start)) is None
        or not last.agrees
        or last.full_at <= now - THOROUGH
        for month in watched
    )


async def _known(session: AsyncSession, customer_id: UUID) -> dict[datetime, UsageCheck]:
    rows = await session.exec(
        select(UsageCheck)
        .where(col(UsageCheck.customer_id) == customer_id)
        .order_by(col(UsageCheck.period_start).desc())
        .limit(12)
        .execution_options(populate_existing=True)
    )
    return {row.period_start: row for row in rows}


async def watched_months(session: AsyncSession, customer_id: UUID, now: datetime) -> list[Month]:
    """Return the periods that run or ended lately."""
    months = await months_of(session, customer_id)
    return [month for month in months if month.period_end > now - WATCHED]


async def _cheap(
    session: AsyncSession,
    customer_id: UUID,
    watched: Sequence[Month],
    known: Mapping[datetime, UsageCheck],
    counted: Mapping[datetime, int],
) -> tuple[Look, Checked] | None:
    """Look at the last days only; `None` when a thorough look has to come first."""
    last = [known[month.period_start] for month in watched if month.period_start in known]
    if not last or not all(check.agrees for check in last):
        return None
    since = max(check.settled_before for check in last)
    settled = {
        check.period_start: Settled(
            check.settled_before, check.settled_tokens, check.settled_day_tokens
        )
        for check in last
        if check.settled_before == since
    }
    if any(m.period_start not in settled and m.days[0] < since for m in watched):
        return None
    first_day = min((month.days[0] for month in watched), default=since)
    seen = await look(session, customer_id, since=since, first_day=first_day)
    months = _fresh(seen, watched)
    return seen, _judged(customer_id, seen, months, settled, counted, is_thorough=False)


def _first_day(
    watched: Sequence[Month], known: Mapping[datetime, UsageCheck], now: datetime
) -> date:
    """Return where a thorough look begins; a period that was checked may have lost its row."""
    days = [month.days[0] for month in watched]
    lost = [start.date() for start in known if start > now - LOST]
    return min([*days, *(lost if not days else [])], default=(now - WATCHED).date())


def _fresh(seen: Look, watched: Sequence[Month]) -> list[Month]:
    """Return the watched periods as the look saw them, at the same moment as their events."""
    starts = {month.period_start for month in watched}
    return [month for month in seen.months if month.period_start in starts]


def _judged(
    customer_id: UUID,
    seen: Look,
    watched: Sequence[Month],
    settled: Mapping[datetime, Settled],
    counted: Mapping[datetime, int],
    *,
    is_thorough: bool,
) -> Checked:
    findings = invariants.judge(customer_id, seen, watched, settled=settled, counters=counted)
    sums = {
        month.period_start: replace(
            seen.sums(month, settled.get(month.period_start)),
            counter=counted.get(month.period_start),
        )
        for month in watched
    }
    return Checked(findings, sums, is_thorough)


async def _remember(
    session: AsyncSession,
    customer_id: UUID,
    seen: Look,
    checked: Checked,
    *,
    known: Mapping[datetime, UsageCheck],
    now: datetime,
) -> None:
    """Write the outcome down, with what the next cheap look need not add up again."""
    before = max(now.date() - (DAYS_LOOKED_AT - 1) * ONE_DAY, seen.since)
    for month in seen.months:
        if month.period_start not in checked.sums:
            continue
        last = known.get(month.period_start)
        base = None
        if not checked.is_thorough and last is not None:
            base = Settled(last.settled_before, last.settled_tokens, last.settled_day_tokens)
        settled = seen.settle(month, before, base)
        values = {
            "checked_at": now,
            "full_at": now if checked.is_thorough or last is None else last.full_at,
            "agrees": checked.is_green,
            "month_tokens": month.tokens_used,
            "settled_before": settled.before,
            "settled_tokens": settled.tokens,
            "settled_day_tokens": settled.day_tokens,
        }
        row = insert(UsageCheck).values(
            customer_id=customer_id, period_start=month.period_start, **values
        )
        await session.exec(
            row.on_conflict_do_update(index_elements=["customer_id", "period_start"], set_=values)
        )
