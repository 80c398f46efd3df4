"""The requests of a period as a CSV file, for whoever is signed in."""

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import MAXYEAR, UTC, datetime

from fastapi import APIRouter, Request, status
from fastapi.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from openclaw_web.accounts import cookies
from openclaw_web.accounts import queries as accounts
from openclaw_web.accounts.queries import Principal
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.metering import queries as metering
from openclaw_web.metering.queries import EventView

router = APIRouter()

LOGIN_PAGE = "/login?next=%2Fusage"
PAGE_EVENTS = 1_000
LAST_MONTH = 12
NO_STORE = {"Cache-Control": "no-store"}
COLUMNS = (
    "time", "request_id", "model", "prompt_tokens", "cached_tokens", "completion_tokens",
    "reasoning_tokens", "total_tokens", "status", "milliseconds", "streamed", "estimated",
    "outcome",
)  # fmt: skip
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@router.get("/usage/export.csv")
async def export(request: Request, month: str = "") -> Response:
    """Send the requests of the running period, or of a calendar month (UTC) such as 2026-11.

    Whose they are is the session's business alone. Nothing is held while a slow reader reads: each
    thousand is looked up by its own place in the index.
    """
    principal = await _principal(request)
    if principal is None:
        return RedirectResponse(LOGIN_PAGE, status.HTTP_303_SEE_OTHER, headers=NO_STORE)
    span = _month(month) if month else await _period(principal)
    if span is None:
        return PlainTextResponse(
            "There is nothing to export. Name a month like 2026-11.",
            status.HTTP_404_NOT_FOUND,
            headers=NO_STORE,
        )
    name = f"openclaw-usage-{span[0].date().isoformat()}.csv"
    return StreamingResponse(
        _lines(principal, *span, of_period=not month),
        media_type="text/csv; charset=utf-8",
        headers={**NO_STORE, "Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _principal(request: Request) -> Principal | None:
    token = cookies.session_token(request.headers.get("cookie", ""))
    if token is None:
        return None
    async with session_scope() as session:
        return await accounts.find_principal(session, token)


async def _period(principal: Principal) -> tuple[datetime, datetime] | None:
    async with session_scope() as session:
        now = await business_now(session)
        period = await metering.newest_period(session, principal.customer_id, now)
    return (period.period_start, period.period_end) if period is not None else None


def _month(text: str) -> tuple[datetime, datetime] | None:
    found = _MONTH.fullmatch(text)
    if found is None:
        return None
    year, month = int(found[1]), int(found[2])
    if not 1 <= month <= LAST_MONTH or not 1 <= year < MAXYEAR:
        return None
    following = (year + month // LAST_MONTH, month % LAST_MONTH + 1)
    return datetime(year, month, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC)


async def _lines(
    principal: Principal, start: datetime, end: datetime, *, of_period: bool
) -> AsyncIterator[str]:
    yield _csv([COLUMNS])
    last = None
    while True:
        async with session_scope() as session:
            page = await metering.events_between(
                session,
                principal.customer_id,
                start,
                end,
                limit=PAGE_EVENTS,
                after=last,
                of_period=of_period,
            )
        if not page:
            return
        yield _csv([_row(event) for event in page])
        last = page[-1]


def _csv(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _row(event: EventView) -> tuple[object, ...]:
    return (
        event.timestamp.astimezone(UTC).isoformat(timespec="milliseconds"),
        _plain(event.request_id or ""),
        _plain(event.model),
        event.prompt_tokens,
        event.cached_tokens,
        event.completion_tokens,
        event.reasoning_tokens,
        event.total_tokens,
        event.status_code or "",
        "" if event.latency_ms is None else event.latency_ms,
        "yes" if event.streamed else "no",
        "yes" if event.estimated else "no",
        _plain(event.outcome),
    )


def _plain(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
