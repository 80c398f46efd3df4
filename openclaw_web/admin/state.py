"""What an admin sees first: is the business well, and who needs a hand."""

import logging
from typing import ClassVar
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.state import STAFF, AuthState
from openclaw_web.admin import queries
from openclaw_web.admin.queries import CustomerRow
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs.models import Alert, OperatorJob
from openclaw_web.ui import format as fmt

logger = logging.getLogger(__name__)

CUSTOMERS_SHOWN = 50
JOBS_SHOWN = 20
FAILED_TO_LOAD = "The overview could not be loaded; the log of the web process says why."
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

    @rx.event
    async def load(self) -> None:
        try:
            async with session_scope() as session:
                await self._show(session)
            self.error = ""
        except Exception:
            logger.exception("The admin overview failed.")
            self.error = FAILED_TO_LOAD
        self.is_loaded = True

    @rx.event
    async def refresh(self, _date: str = "") -> None:
        await self.load()

    @rx.event
    async def look_for(self, text: str) -> None:
        """Show the customers whose address or box contains the text."""
        self.search = str(text)[:100]
        await self.load()

    async def _show(self, session: AsyncSession) -> None:
        now = await business_now(session)
        totals = await queries.any_customers_totals(session, now)
        self.figures = [
            {
                "name": "Customers",
                "value": str(totals.customers),
                "note": f"{totals.paying} paying",
            },
            {
                "name": "Boxes answering",
                "value": f"{totals.boxes_active} of {totals.boxes}",
                "note": f"{totals.boxes_unhealthy} unhealthy"
                if totals.boxes_unhealthy
                else "all well",
            },
            {
                "name": "Jobs waiting",
                "value": str(totals.jobs_queued),
                "note": f"{totals.jobs_failed} failed today"
                if totals.jobs_failed
                else "none failed today",
            },
            {
                "name": "Tokens today",
                "value": fmt.tokens_short(totals.tokens_today),
                "note": "all customers",
            },
        ]
        rows = await queries.any_customers_overview(
            session, now, search=self.search, limit=CUSTOMERS_SHOWN
        )
        self.customers = [_customer(row) for row in rows]
        emails = {row.customer_id: row.email for row in rows}
        newest = await jobs.any_customers_jobs(session, limit=JOBS_SHOWN)
        self.jobs = [_job(job, emails) for job in newest]
        self.alerts = [_alert(alert) for alert in await jobs.any_customers_open_alerts(session)]


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
        "reason": row.status_reason or "",
        "used": f"{fmt.tokens_short(row.tokens_used)} of {fmt.tokens_short(row.tokens_limit)}"
        if row.tokens_limit
        else "",
        "joined": fmt.day(row.created_at) if row.created_at else "",
    }


def _box_tone(status: str | None) -> str:
    tones = {"active": "good", "unhealthy": "bad", "suspended": "warning"}
    busy = {"pending", "provisioning", "updating", "destroying"}
    return "busy" if status in busy else tones.get(status or "", "quiet")


def _job(job: OperatorJob, emails: dict[UUID, str]) -> dict[str, str]:
    last = job.progress[-1]["text"] if job.progress else ""
    return {
        "id": str(job.id),
        "type": job.job_type.replace("_", " ").capitalize(),
        "status": job.status.value,
        "tone": JOB_TONES.get(job.status, "quiet"),
        "customer": emails.get(job.customer_id, "another customer"),
        "attempt": f"{job.attempt} of {job.max_attempts}",
        "note": job.error_log or last,
        "when": fmt.ago(job.created_at, real_now()) if job.created_at else "",
    }


def _alert(alert: Alert) -> dict[str, str]:
    return {
        "code": alert.code.replace("_", " ").capitalize(),
        "subject": alert.subject,
        "detail": str(alert.detail.get("sentence", "")),
        "since": fmt.ago(alert.first_seen_at, real_now()) if alert.first_seen_at else "",
    }
