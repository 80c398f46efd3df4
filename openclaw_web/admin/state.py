"""What an admin sees first: is the business well, and who needs a hand."""

import logging
from datetime import datetime
from typing import ClassVar
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.state import STAFF, AuthState
from openclaw_web.admin import queries
from openclaw_web.admin.queries import CustomerRow, Totals
from openclaw_web.billing.margins import Margin, margins
from openclaw_web.billing.tiers import Plan
from openclaw_web.boxes.memory.backups import ALERT_FINAL
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs.models import Alert, JobStatus, OperatorJob
from openclaw_web.ui import format as fmt
from openclaw_web.ui.showing import show
from openclaw_web.workflows import alerting

logger = logging.getLogger(__name__)

CUSTOMERS_SHOWN = 50
JOBS_SHOWN = 20
FAILED_TO_LOAD = "The overview could not be loaded; the log of the web process says why."
NOTE_CHARACTERS = 160
RUNNING = {BoxStatus.ACTIVE, BoxStatus.UNHEALTHY}
JOB_TONES = {"queued": "quiet", "running": "busy", "complete": "good", "failed": "bad"}


class AdminState(AuthState):
    """The overview of the whole business; for staff only."""

    requires: ClassVar[str] = STAFF

    is_loaded: bool = False
    error: str = ""
    search: str = ""
    figures: list[dict[str, str]] = []
    customers: list[dict[str, str]] = []
    jobs: list[dict[str, str]] = []
    alerts: list[dict[str, str]] = []
    margins: list[dict[str, str]] = []

    @rx.event
    async def load(self) -> None:
        """Show everything anew; also what the page calls every few seconds."""
        principal = await self.principal()
        if principal is None or not principal.is_staff:
            return
        try:
            async with session_scope() as session:
                await self._show(session)
            show(self, error="", is_loaded=True)
        except Exception:
            logger.exception("The admin overview failed.")
            show(self, error=FAILED_TO_LOAD, is_loaded=True)

    @rx.event
    async def refresh(self, _date: str = "") -> None:
        await self.load()

    @rx.event
    async def look_for(self, text: str) -> None:
        """Show the customers whose address or box contains the text."""
        if isinstance(text, str):
            self.search = text[:100].replace("\x00", "").encode("utf-8", "ignore").decode()
        await self.load()

    async def _show(self, session: AsyncSession) -> None:
        now = await business_now(session)
        totals = await queries.any_customers_totals(session, now)
        rows = await queries.any_customers_overview(
            session, now, search=self.search.strip(), limit=CUSTOMERS_SHOWN
        )
        newest = await jobs.any_customers_jobs(session, limit=JOBS_SHOWN)
        emails = await queries.any_customers_emails(session, {job.customer_id for job in newest})
        alerts = await jobs.any_customers_open_alerts(session)
        show(
            self,
            figures=_figures(totals),
            customers=[_customer(row) for row in rows],
            jobs=[_job(job, emails, now) for job in newest],
            alerts=[_alert(alert, now) for alert in alerts],
            margins=[_margin(plan, *found) for plan, found in margins().items()],
        )


def _figures(totals: Totals) -> list[dict[str, str]]:
    """Return the numbers at the top, each with a word on whether it is good."""
    unhealthy, failed = totals.boxes_unhealthy, totals.jobs_failed
    figures = (
        ("Customers", str(totals.customers), f"{totals.paying} paying"),
        (
            "Boxes answering",
            f"{totals.boxes_active} of {totals.boxes}",
            f"{unhealthy} unhealthy" if unhealthy else "all well",
        ),
        (
            "Jobs waiting",
            str(totals.jobs_queued),
            f"{failed} failed in a day" if failed else "none failed in a day",
        ),
        ("Tokens today", fmt.tokens_short(totals.tokens_today), "all customers"),
    )
    return [{"name": name, "value": value, "note": note} for name, value, note in figures]


def _margin(plan: Plan, cached: Margin, half: Margin, uncached: Margin) -> dict[str, str]:
    """Return one tier's margins; one that loses money is marked."""
    return {
        "name": plan.name,
        "price": fmt.money(plan.price_cents, plan.currency),
        "cached": f"{cached.percent} %",
        "half": f"{half.percent} %",
        "uncached": f"{uncached.percent} %",
        "cached_tone": _margin_tone(cached),
        "half_tone": _margin_tone(half),
        "uncached_tone": _margin_tone(uncached),
    }


def _margin_tone(found: Margin) -> str:
    return "number bad-text" if found.profit_cents < 0 else "number"


def _customer(row: CustomerRow) -> dict[str, str]:
    return {
        "id": str(row.customer_id),
        "email": row.email,
        "tier": row.tier.capitalize() if row.tier else "none",
        "subscription": row.subscription_status.replace("_", " ")
        if row.subscription_status
        else "no subscription",
        "box": row.box_status.replace("_", " ") if row.box_status else "no box",
        "box_tone": _box_tone(row.box_status),
        "namespace": row.namespace or "",
        "box_id": str(row.box_id or ""),
        "may": " ".join(_acts_on_box(row.box_status)),
        "reason": row.status_reason or "",
        "used": f"{fmt.tokens_short(row.tokens_used)} of {fmt.tokens_short(row.tokens_limit)}"
        if row.tokens_limit
        else "",
        "joined": fmt.day(row.created_at) if row.created_at else "",
    }


def _acts_on_box(status: str | None) -> tuple[str, ...]:
    """Return what an admin can do to a box: one that is away or going has no pod to restart."""
    if status in (None, BoxStatus.DESTROYING, BoxStatus.DESTROYED):
        return ()
    return (
        ("check", "converge", "restart", "rotate") if status in RUNNING else ("check", "converge")
    )


def _box_tone(status: str | None) -> str:
    tones = {"active": "good", "unhealthy": "bad", "suspended": "warning"}
    busy = {"pending", "provisioning", "updating", "destroying"}
    return "busy" if status in busy else tones.get(status or "", "quiet")


def _job(job: OperatorJob, emails: dict[UUID, str], now: datetime) -> dict[str, str]:
    last = job.progress[-1]["text"] if job.progress else ""
    return {
        "id": str(job.id),
        "type": job.job_type.replace("_", " ").capitalize(),
        "status": job.status.value,
        "tone": JOB_TONES.get(job.status, "quiet"),
        "customer": emails.get(job.customer_id, "unknown"),
        "attempt": f"{job.attempt} of {job.max_attempts}",
        "note": (job.error_log or last)[:NOTE_CHARACTERS],
        "when": fmt.ago(job.created_at, now) if job.created_at else "",
        "may": " ".join(_acts(job)),
    }


def _acts(job: OperatorJob) -> tuple[str, ...]:
    """Return what an admin can do to a job."""
    if job.status is JobStatus.FAILED:
        return () if job.error_code in queries.UNWANTED else ("retry",)
    return {JobStatus.QUEUED: ("cancel",), JobStatus.RUNNING: ("cancel", "release")}.get(
        job.status, ()
    )


def _alert(alert: Alert, now: datetime) -> dict[str, str]:
    said = (
        str(alert.detail[key]) for key in ("sentence", "error", "reason") if key in alert.detail
    )
    return {
        "id": str(alert.id),
        "code": alert.code.replace("_", " ").capitalize(),
        "subject": alert.subject,
        "detail": next(said, ""),
        "answer": alerting.answer_to(alert),
        "may": "give_up" if alert.code == ALERT_FINAL else "",
        "since": fmt.ago(alert.first_seen_at, now) if alert.first_seen_at else "",
    }
