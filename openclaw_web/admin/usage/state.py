"""What an admin sees of the meter, and may do about an event that the ledger refused."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.queries import Principal
from openclaw_web.accounts.state import STAFF, AuthState
from openclaw_web.admin import queries
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.metering import overview, rejects
from openclaw_web.metering.overview import MeterFigures, MeterRow
from openclaw_web.metering.rejects import RejectView
from openclaw_web.ui import format as fmt
from openclaw_web.ui.showing import show

logger = logging.getLogger(__name__)

ROWS_SHOWN = 50
REASON_CHARACTERS = 160
LONGEST_REASON = 500
FAILED_TO_LOAD = "The meters could not be loaded; the log of the web process says why."
ADMINS_ONLY = "Only an admin may do this."
UNKNOWN = "There is no such refused event."

Act = Callable[[AsyncSession, UUID, Principal], Awaitable[rx.event.EventSpec]]


class AdminUsageState(AuthState):
    """The meters of everybody; for staff to see, and for admins to act."""

    requires: ClassVar[str] = STAFF

    is_loaded: bool = False
    error: str = ""
    may_act: bool = False
    figures: list[dict[str, str]] = []
    meters: list[dict[str, str]] = []
    rejects: list[dict[str, str]] = []
    chosen: str = ""
    reason: str = ""

    @rx.event
    async def load(self) -> None:
        """Show everything anew; also what the page calls every few seconds."""
        principal = await self.principal()
        if principal is None or not principal.is_staff:
            return
        try:
            async with session_scope() as session:
                await self._show(session)
            show(self, error="", is_loaded=True, may_act=principal.is_admin)
        except Exception:
            logger.exception("The admin's page of the meters failed.")
            show(self, error=FAILED_TO_LOAD, is_loaded=True)

    @rx.event
    async def refresh(self, _date: str = "") -> None:
        await self.load()

    @rx.event
    async def choose(self, reject_id: str) -> None:
        """Ask why this event is to be set aside; an empty id asks no more."""
        show(self, chosen=reject_id if isinstance(reject_id, str) else "", reason="")

    @rx.event
    async def set_reason(self, text: str) -> None:
        if isinstance(text, str):
            cleaned = text[:LONGEST_REASON].replace("\x00", "")
            show(self, reason=cleaned.encode("utf-8", "ignore").decode())

    @rx.event
    async def retry(self, reject_id: str) -> rx.event.EventSpec | None:
        """Write a refused event once more."""

        async def act(session: AsyncSession, found: UUID, by: Principal) -> rx.event.EventSpec:
            outcome = await rejects.retry(
                session, found, actor_type="admin", actor_id=str(by.customer_id)
            )
            if outcome is None:
                return rx.toast.warning("The ledger refused it again; the reason is in the table.")
            return rx.toast.success("The event is in the ledger now.")

        return await self._act(reject_id, act)

    @rx.event
    async def set_aside(self) -> rx.event.EventSpec | None:
        """Give the chosen event up, for the reason that was typed."""

        async def act(session: AsyncSession, found: UUID, by: Principal) -> rx.event.EventSpec:
            await rejects.set_aside(
                session,
                found,
                reason=self.reason,
                actor_type="admin",
                actor_id=str(by.customer_id),
            )
            show(self, chosen="", reason="")
            return rx.toast.success("The event is set aside. It is kept, and not counted.")

        return await self._act(self.chosen, act)

    async def _act(self, reject_id: Any, act: Act) -> rx.event.EventSpec | None:
        """Do something to a refused event, if an admin asks, and show what became of it."""
        principal = await self.principal()
        if principal is None or not principal.is_admin:
            return rx.toast.error(ADMINS_ONLY)
        found = _uuid(reject_id)
        if found is None:
            return rx.toast.error(UNKNOWN)
        try:
            async with session_scope() as session:
                said = await act(session, found, principal)
        except OpenClawError as error:
            said = rx.toast.error(str(error))
        await self.load()
        return said

    async def _show(self, session: AsyncSession) -> None:
        now = await business_now(session)
        figures = await overview.any_customers_meter_figures(session, now)
        meters = await overview.any_customers_meters_to_look_at(session, now, limit=ROWS_SHOWN)
        refused = await rejects.any_customers_open_rejects(session, limit=ROWS_SHOWN)
        waiting = await rejects.any_customers_open_count(session)
        owners = {row.customer_id for row in meters} | {
            owner for row in refused if (owner := _uuid(row.customer_id)) is not None
        }
        emails = await queries.any_customers_emails(session, owners)
        show(
            self,
            figures=_figures(figures, waiting, now),
            meters=[_meter(row, emails, now) for row in meters],
            rejects=[_reject(row, emails, now) for row in refused],
        )


def verdict(found: MeterFigures) -> str:
    """Say no more than was looked at: a meter that nobody has checked does not agree yet."""
    if found.differing:
        return "a person has to look"
    return "all agree" if found.checked >= found.running else "of those checked so far"


def _figures(found: MeterFigures, waiting: int, now: datetime) -> list[dict[str, str]]:
    oldest = fmt.ago(found.oldest_check, now) if found.oldest_check else "not yet"
    figures = (
        ("Meters checked", f"{found.checked} of {found.running}", f"longest ago: {oldest}"),
        ("Meters that differ", str(found.differing), verdict(found)),
        ("Set right", str(found.repaired), "in the last 30 days"),
        ("Refused events", str(waiting), "not counted yet" if waiting else "none waits"),
    )
    return [{"name": name, "value": value, "note": note} for name, value, note in figures]


def _meter(row: MeterRow, emails: dict[UUID, str], now: datetime) -> dict[str, str]:
    repaired = f", {fmt.ago(row.repaired_at, now)}" if row.repaired_at else ""
    return {
        "id": f"{row.customer_id} {row.period_start}",
        "customer": emails.get(row.customer_id, "unknown"),
        "period": fmt.day(row.period_start),
        "tokens": fmt.tokens(row.month_tokens),
        "verdict": "agrees" if row.agrees else "differs",
        "tone": "good" if row.agrees else "bad",
        "repairs": f"{row.repairs}{repaired}" if row.repairs else "never",
        "checked": fmt.ago(row.checked_at, now),
    }


def _reject(row: RejectView, emails: dict[UUID, str], now: datetime) -> dict[str, str]:
    owner = _uuid(row.customer_id)
    times = "once" if row.attempt == 1 else f"{row.attempt} times"
    tries = f"tried again {times}, {fmt.ago(row.tried_at, now)}" if row.tried_at else ""
    return {
        "id": str(row.id),
        "customer": emails.get(owner, "unknown") if owner else "unknown",
        "model": row.model[:60],
        "tokens": fmt.tokens(row.tokens),
        "reason": row.reason.splitlines()[0][:REASON_CHARACTERS] if row.reason else "",
        "age": fmt.ago(row.created_at, now),
        "tries": tries,
        "request_id": row.request_id[:60],
    }


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text)
    except (AttributeError, TypeError, ValueError):
        return None
