"""Whom to tell that an assistant does not answer: not at once, not twice, and not for nothing."""

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import incidents, queries
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now

TELL_AFTER = timedelta(minutes=2)  # of business time, since the third missed check
AT_ONCE = 200


async def is_to_be_told(session: AsyncSession, box: Box) -> bool:
    """Say whether a locked box has been unhealthy long enough for its customer to hear of it."""
    if box.status is not BoxStatus.UNHEALTHY or box.activated_at is None:
        return False  # one that never answered has a mail of its own
    if queries.OUTAGE_TOLD in box.health or box.status_changed_at is None:
        return False
    if box.status_changed_at > await business_now(session) - TELL_AFTER:
        return False
    if (await queries.desired_of(session, box))[0] is not Desired.ACTIVE:
        return False
    return not await incidents.is_incident(session, box.cluster)


def outage_of(box: Box) -> str:
    """Return what names the outage that a box is in: it differs for the next one."""
    return box.status_changed_at.isoformat() if box.status_changed_at else ""


def note_told(session: AsyncSession, box: Box) -> None:
    box.health = {**box.health, queries.OUTAGE_TOLD: outage_of(box)}
    session.add(box)


def forget_told(session: AsyncSession, box: Box) -> str:
    """Return which outage its customer was told of, once; nothing when there was none."""
    told = str(box.health.get(queries.OUTAGE_TOLD, ""))
    if told:
        box.health = {key: value for key, value in box.health.items() if key != queries.OUTAGE_TOLD}
        session.add(box)
    return told
