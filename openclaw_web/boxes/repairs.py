"""What follows from drift: one job for each box, a line in the audit, and a brake for the many."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.boxes import drift, drift_brake, incidents, queries, service
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import service as job_service
from openclaw_web.jobs.models import JobType

REPAIRER = "drift"
STAYS = "stays"  # `drift_stays`: a job ended, and the same was found again
STAYS_FOR = timedelta(hours=3)  # so long it is left to a person
TRIED_LATELY = timedelta(days=1)
VOLUME_ALERT = "volume_deleting"
BEGINNING = datetime.min.replace(tzinfo=UTC)
AT_ONCE = 100  # jobs that one look asks for: the rest is found again by the next
MOST_ALERTS = 1_000
JOBS = {Desired.ACTIVE: JobType.UPDATE, Desired.SUSPENDED: JobType.SUSPEND}
PLACES = {Desired.ACTIVE: BoxStatus.ACTIVE, Desired.SUSPENDED: BoxStatus.SUSPENDED}


async def mend_drift(cluster: Cluster, cluster_name: str) -> int:
    """Look for drift once and ask for what mends it; returns for how many boxes.

    More than a tenth of all at once is a change of ours, or somebody's accident: then nothing is
    done until an admin allows it, for a new pod each is felt by every customer.
    """
    async with session_scope() as session:
        began_at = await business_now(session)
    found = await drift.find_drift(cluster, cluster_name)
    async with session_scope() as session:
        ending = {box_id: [drift.ENDING_VOLUME] for box_id in found.ending_volumes}
        await _keep_alerts(session, VOLUME_ALERT, ending)
        if await drift_brake.is_too_much(session, cluster_name, len(found.found), found.checked):
            return 0
    return await request_repairs(found.found, began_at=began_at, requested_by=REPAIRER)


async def request_repairs(
    found: Mapping[UUID, list[str]],
    *,
    began_at: datetime,
    requested_by: str,
    actions: Sequence[str] = (),
) -> int:
    """Ask for a job for each of these boxes that is still as it was when the look began.

    What was not tried for longest comes first, and what a job did not mend is left to a person.
    """
    async with session_scope() as session:
        due = await _due(session, found, requested_by)
    count = 0
    for box_id in due[:AT_ONCE]:
        what = found[box_id]
        async with session_scope() as session:
            box = await queries.get_any_box(session, box_id, lock=True)
            if await is_unchanged(session, box, since=began_at):
                payload = {"found": what, "actions": list(actions)}
                count += await _request(session, box, payload, requested_by)
    return count


async def _due(
    session: AsyncSession, found: Mapping[UUID, list[str]], requested_by: str
) -> list[UUID]:
    now = await business_now(session)
    last = await jobs.any_customers_last_jobs(
        session, list(found), requested_by, since=now - TRIED_LATELY
    )
    since = now - STAYS_FOR
    stays = {
        box_id: found[box_id]
        for box_id, job in last.items()
        if job.completed_at is not None
        and job.completed_at > since
        and job.payload.get("found") == found[box_id]
    }
    await _keep_alerts(session, f"{requested_by}_{STAYS}", stays)
    due = [box_id for box_id in found if box_id not in stays]
    tried = {box_id: job.created_at or BEGINNING for box_id, job in last.items()}
    return sorted(due, key=lambda one: tried.get(one, BEGINNING))


async def _keep_alerts(
    session: AsyncSession, code: str, found: Mapping[UUID, Sequence[str]]
) -> None:
    """Have one alert open for each of these boxes, and none for others."""
    for box_id, what in found.items():
        await job_service.raise_alert(
            session, code=code, subject=str(box_id), detail={"found": list(what)}
        )
    for alert in await jobs.any_customers_alerts_of(session, code, limit=MOST_ALERTS):
        if UUID(alert.subject) not in found:
            await job_service.resolve_alert(session, code=code, subject=alert.subject)


async def is_unchanged(session: AsyncSession, box: Box, *, since: datetime) -> bool:
    """Say whether nobody worked on this box since then, so that what was seen still holds."""
    if await jobs.find_live_job_of_box(session, box.customer_id, box.id) is not None:
        return False
    if await jobs.any_job_ended_since(session, box.id, since):
        return False
    return not await incidents.is_incident(session, box.cluster)


async def _request(
    session: AsyncSession, box: Box, payload: dict[str, Any], requested_by: str
) -> bool:
    desired, _ = await queries.desired_of(session, box)
    if desired not in JOBS or box.status is not PLACES[desired]:
        return False
    await service.request_converge(
        session,
        box,
        job_type=JOBS[desired],
        requested_by=requested_by,
        payload=payload,
    )
    await accounts.audit(
        session,
        action="box.drift",
        actor_type="system",
        actor_id=requested_by,
        user_id=box.customer_id,
        resource_type="box",
        resource_id=str(box.id),
        diff={"found": payload["found"]},
    )
    return True
