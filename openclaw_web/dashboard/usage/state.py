"""What the page of the meter shows: the chart, the newest requests, sums that can be checked."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now
from openclaw_web.dashboard.loading import Loaded
from openclaw_web.dashboard.state import UsageStrip
from openclaw_web.metering import checking, repairing
from openclaw_web.metering import queries as metering
from openclaw_web.metering.models import UsageCheck
from openclaw_web.metering.queries import CurrentUsage, DayUsage, EventView
from openclaw_web.metering.sums import Sums
from openclaw_web.ui import format as fmt
from openclaw_web.ui.showing import show

CHART_DAYS = 30
EVENTS_SHOWN = 25
WHOLE = 100


class UsageState(Loaded, UsageStrip):
    """The meter, as its customer can check it."""

    banner: str = ""
    banner_tone: str = ""
    days: list[dict[str, str | int]] = []
    events: list[dict[str, str]] = []
    has_events: bool = False
    sums: list[dict[str, str]] = []
    sums_agree: bool = True
    checked: str = ""
    checked_note: str = ""

    async def _show(self, session: AsyncSession, customer_id: UUID) -> None:
        now = await business_now(session)
        usage = await metering.current_usage(session, customer_id)
        self._show_period(usage, now)
        banner, tone = banner_of(usage)
        days = await metering.daily_usage(session, customer_id, days=CHART_DAYS)
        events = await metering.recent_events(session, customer_id, limit=EVENTS_SHOWN)
        show(
            self,
            banner=banner,
            banner_tone=tone,
            days=_chart(days, now),
            events=[_event_row(event) for event in events],
            has_events=bool(events),
        )
        await self._show_sums(session, customer_id, usage, now)

    async def _show_sums(
        self, session: AsyncSession, customer_id: UUID, usage: CurrentUsage | None, now: datetime
    ) -> None:
        """Show the same tokens counted in several ways; when they differ, a person is told."""
        found, last = None, None
        if usage is not None:
            found, last = await checking.live_sums(session, customer_id, usage.period_start, now)
        if found is None:
            show(self, sums=[])
            return
        lines = _sum_lines(found)
        show(
            self,
            sums=[{"name": name, "tokens": fmt.tokens(count)} for name, count in lines.items()],
            sums_agree=found.do_agree,
            checked=_checked(last, len(lines), now),
            checked_note=_checked_note(found, last, now),
        )
        if not found.do_agree:
            await repairing.doubt(session, customer_id, lines)


def banner_of(usage: CurrentUsage | None) -> tuple[str, str]:
    """Return what a customer should know before the tokens run out, and how urgent it is."""
    if usage is None:
        return "", ""
    resets = fmt.day(usage.period_end)
    if usage.is_provisional:
        return (
            "This period has just begun and its payment is on the way. Until it arrives, a "
            f"quarter of its tokens is there: {fmt.tokens(usage.limit)}."
        ), ""
    share = next((n for n in (100, 90, 75) if usage.used * WHOLE >= usage.limit * n), 0)
    if share == WHOLE:
        return (
            "All tokens of this period are used. Your assistant says so politely when somebody "
            f"writes to it, and answers again on {resets}."
        ), "error"
    if share:
        return (
            f"More than {share} % of this period's tokens are used; {fmt.tokens(usage.left)} are "
            f"left until {resets}. Nothing stops before they are gone."
        ), "warning"
    return "", ""


def _sum_lines(sums: Sums) -> dict[str, int]:
    lines = {
        "All requests of this period, added up": sums.ledger,
        "The period's counter": sums.month,
        "The days in the chart": sums.days,
    }
    if sums.counter is not None:
        lines["The counter that the limit is checked against"] = sums.counter
    return lines


def _checked(last: UsageCheck | None, count: int, now: datetime) -> str:
    """Return when the meter's own watch looked last; before its first look, this page does."""
    when = fmt.ago(last.checked_at, now) if last is not None else "just now"
    return f"Checked {when}: {count} sums agree."


def _checked_note(sums: Sums, last: UsageCheck | None, now: datetime) -> str:
    parts = ["The figures here were added up just now."]
    if last is not None:
        parts.append(f"Every single request was added up again {fmt.ago(last.full_at, now)}.")
    if sums.counter is not None and sums.counter < sums.month:
        parts.append("The last counter follows a moment later.")
    return " ".join(parts)


def _chart(days: list[DayUsage], now: datetime) -> list[dict[str, str | int]]:
    """Return one row for each of the last days, also for those without use."""
    first = now.date() - timedelta(days=CHART_DAYS - 1)
    rows = {first + timedelta(days=number): [0, 0] for number in range(CHART_DAYS)}
    for used in days:
        if used.day in rows:
            rows[used.day][0] += used.prompt_tokens
            rows[used.day][1] += used.completion_tokens
    return [
        {"day": day.strftime("%-d %b"), "prompt": prompt, "completion": completion}
        for day, (prompt, completion) in rows.items()
    ]


def _event_row(event: EventView) -> dict[str, str]:
    return {
        "id": str(event.id),
        "when": fmt.day_and_time(event.timestamp),
        "model": event.model,
        "prompt": fmt.tokens(event.prompt_tokens),
        "completion": fmt.tokens(event.completion_tokens),
        "total": fmt.tokens(event.total_tokens),
        "time": fmt.took(event.latency_ms) if event.latency_ms is not None else "",
        "note": "estimated" if event.estimated else "",
    }
