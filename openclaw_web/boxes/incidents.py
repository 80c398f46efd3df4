"""Many boxes fail at once: the cause is not theirs, so no mails, no repairs, and one alert."""

from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import queries
from openclaw_web.core.clock import business_now
from openclaw_web.core.switches import read_switch, write_switch
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import repairing
from openclaw_web.jobs import service as job_service

WINDOW = timedelta(minutes=5)
SHARE = 0.1
MINIMUM = 5  # of two boxes, one is no share to speak of
ONE_AT_A_TIME = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
ENDED_FOR = timedelta(hours=1)
ALERT = repairing.HELD_BY
BANNER = (
    "Many assistants do not answer at the moment, and the cause is not yours. We are working on"
    " it; nothing is lost, and they come back by themselves."
)


async def is_incident(session: AsyncSession, cluster: str, *, more: int = 0) -> bool:
    """Say whether so many boxes fail at once that the cause is not theirs, and alert once.

    `more` are boxes that would be declared unhealthy now: whoever counts them here declares them so
    in the same transaction, so that nobody who asks later knows less. An incident begins when more
    than a tenth fell within five minutes, lasts while more than a tenth of all are those that fell
    in it, and ends by itself; what is still unhealthy then is repaired and told as any other.
    Whoever asks holds the others up until the commit: boxes that fall at the same moment must see
    each other.
    """
    await session.flush()
    connection = await session.connection()
    await connection.execute(ONE_AT_A_TIME, {"name": f"incident:{cluster}"})
    alert = await jobs.find_open_alert(session, code=ALERT, subject=cluster)
    began_at = alert.first_seen_at if alert else None
    now = await business_now(session)
    since = (began_at or now) - WINDOW
    fallen, running = await queries.any_customers_turned_unhealthy(session, cluster, since=since)
    failing = fallen + more
    is_ended = await _is_ended(session, cluster, now)
    if is_ended or failing < MINIMUM or failing <= running * SHARE:
        if alert is not None:
            await job_service.resolve_alert(session, code=ALERT, subject=cluster)
        return False
    detail = {"failing": failing, "running": running}
    await job_service.raise_alert(session, code=ALERT, subject=cluster, detail=detail)
    return True


async def end(session: AsyncSession, cluster: str, *, by: str) -> datetime:
    """Call an incident over for a person who knows better; for an hour none begins anew."""
    now = await business_now(session)
    until = now + ENDED_FOR
    await write_switch(session, _ended_key(cluster), until.isoformat(), by=by, at=now)
    await job_service.resolve_alert(session, code=ALERT, subject=cluster)
    return until


async def _is_ended(session: AsyncSession, cluster: str, now: datetime) -> bool:
    until = await read_switch(session, _ended_key(cluster))
    return until is not None and now < datetime.fromisoformat(until)


def _ended_key(cluster: str) -> str:
    return f"incident_ended_until_{cluster}"


async def banner(session: AsyncSession, customer_id: UUID) -> str:
    """Return what this customer's pages say while their box's cluster has an incident, else ''."""
    box = await queries.find_box_of_customer(session, customer_id)
    if box is None or box.destroyed_at is not None:
        return ""
    alert = await jobs.find_open_alert(session, code=ALERT, subject=box.cluster)
    return BANNER if alert is not None else ""
