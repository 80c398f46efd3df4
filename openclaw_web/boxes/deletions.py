"""Before a kept box is deleted: Stripe was asked since it fell due, and not too many go at once.

What we know may be old, after a restore of the database: a box that is due in it may belong to
somebody who has long come back and pays.
"""

import logging
from datetime import timedelta

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.billing import queries as billing
from openclaw_web.billing import service as billing_service
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.jobs import queries as jobs
from openclaw_web.jobs import service as job_service
from openclaw_web.jobs.models import JobType

logger = logging.getLogger(__name__)

ALERT_MANY = "many_boxes_deleted"
WINDOW = timedelta(hours=1)
SHARE = 0.1
MINIMUM = 20  # in one hour; of a few boxes, a tenth is no share to speak of


async def may_begin(session: AsyncSession, box: Box, *, asker: str) -> bool:
    """Say whether a box that is due may go; what lacks for it is asked for.

    An account that its customer deleted needs no word from Stripe, and a deletion that has begun
    is finished.
    """
    if box.status is BoxStatus.DESTROYING:
        return True
    customer = await session.get(Customer, box.customer_id)
    is_wanted = customer is None or customer.deleted_at is not None
    if await _is_too_much(session, box.cluster, asker=asker):
        return False
    return is_wanted or await _is_confirmed(session, box)


async def _is_confirmed(session: AsyncSession, box: Box) -> bool:
    """Say whether Stripe was asked since the box fell due; a sync that is wanted comes first."""
    sync = await billing.find_sync(session, box.customer_id)
    due = box.delete_after or await business_now(session)
    if sync is not None and sync.synced_at is not None and sync.synced_at >= due:
        return True
    if sync is None or sync.requested_seq <= sync.synced_seq:
        await billing_service.request_sync(session, box.customer_id)
    return False


async def _is_too_much(session: AsyncSession, cluster: str, *, asker: str) -> bool:
    """Stop when more boxes go within an hour than chance explains; who closes the alert lets on."""
    if await jobs.find_open_alert(session, code=ALERT_MANY, subject=cluster) is not None:
        return True
    since = await business_now(session) - WINDOW
    released_at = await jobs.alert_resolved_at(session, code=ALERT_MANY, subject=cluster)
    begun = await jobs.any_customers_count_asked(
        session, JobType.DESTROY, by=asker, since=max(since, released_at or since)
    )
    kept = await session.exec(
        select(sa.func.count()).where(
            Box.cluster == cluster, col(Box.status) != BoxStatus.DESTROYED
        )
    )
    limit = max(MINIMUM, round(kept.one() * SHARE))
    if begun < limit:
        return False
    await job_service.raise_alert(
        session,
        code=ALERT_MANY,
        subject=cluster,
        detail={
            "begun": begun,
            "limit": limit,
            "sentence": "Too many assistants would be deleted within an hour; none is any more "
            "until this alert is closed.",
        },
    )
    logger.warning("%d boxes were to be deleted within an hour; no more are.", begun)
    return True
