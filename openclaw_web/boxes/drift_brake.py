"""When more boxes differ from what was applied than accidents explain, a person looks first."""

import logging
from datetime import datetime, timedelta
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now
from openclaw_web.core.switches import read_switch, write_switch
from openclaw_web.jobs import service as job_service

logger = logging.getLogger(__name__)

ALERT_MANY = "many_boxes_drifted"
ALERT_TOKENS = "many_tokens_drifted"
SHARE = 0.1
MINIMUM = 5
ALLOWED_FOR = timedelta(hours=12)


async def is_too_much(
    session: AsyncSession, cluster_name: str, count: int, of: int, *, code: str = ALERT_MANY
) -> bool:
    """Say whether so many boxes differ at once that a person has to look first."""
    now = await business_now(session)
    until = await read_switch(session, allowed_key(cluster_name))
    is_allowed = until is not None and now < datetime.fromisoformat(until)
    if is_allowed or count < MINIMUM or count <= of * SHARE:
        await job_service.resolve_alert(session, code=code, subject=cluster_name)
        return False
    detail: dict[str, Any] = {"count": count, "of": of}
    await job_service.raise_alert(session, code=code, subject=cluster_name, detail=detail)
    logger.warning("%d of %d boxes differ from what was applied; nothing is done.", count, of)
    return True


async def allow(session: AsyncSession, cluster_name: str, *, by: str) -> datetime:
    """Let drift of many boxes be mended for half a day; returns until when."""
    now = await business_now(session)
    until = now + ALLOWED_FOR
    await write_switch(session, allowed_key(cluster_name), until.isoformat(), by=by, at=now)
    return until


def allowed_key(cluster_name: str) -> str:
    """Return the name of the setting that holds until when drift of many boxes may be mended."""
    return f"drift_allowed_until_{cluster_name}"
