"""Writing what dead processes left in the spool of this machine; safe to run twice at once.

A folder's lock decides who replays it, and the ledger knows which events it has. Every proxy does
this when it starts; the worker goes on looking, for a proxy that died and is not started again. In
a cluster each proxy has a volume of its own, which only its own next start sees.
"""

import asyncio
import logging
import shutil
from pathlib import Path
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.database import session_scope
from openclaw_web.jobs import queries as jobs_queries
from openclaw_web.jobs import service as jobs
from openclaw_web.metering import invariants, ledger, spool

logger = logging.getLogger(__name__)

BATCH_EVENTS = 1_000
LEAST_ROOM_BYTES = 64 * 1024 * 1024  # about 130,000 events
MOST_ALERTS = 1_000
TORN = "spool_torn"
WAITS = "spool_waits"
FULL = "spool_disk_full"


async def replay(root: Path) -> set[UUID]:
    """Write every segment that nobody owns any more, and return whose events they held.

    Raises:
        SQLAlchemyError, OSError: the database does not answer; the segments stay.
    """
    customers: set[UUID] = set()
    with spool.leftovers(root) as segments:
        for segment in segments:
            events = await asyncio.to_thread(spool.read, segment)
            for start in range(0, len(events), BATCH_EVENTS):
                async with session_scope() as session:
                    await ledger.write(session, events[start : start + BATCH_EVENTS])
            segment.unlink()
            customers |= {event.customer_id for event in events}
            logger.info("%d events of a dead process were written.", len(events))
    return customers


async def watch(session: AsyncSession, root: Path) -> None:
    """Open or close the alerts about this machine's spool: torn lines, delay, a full disk."""
    torn = {str(path): "A line of the spool could not be read; it is kept in this file. Delete it "
            "once you have looked at it." for path in spool.torn_files(root)}  # fmt: skip
    waits = {one.subject: one.sentence for one in invariants.judge_spool(root)}
    await _set_alerts(session, TORN, torn, root)
    await _set_alerts(session, WAITS, waits, root)
    await _set_alerts(session, FULL, _room(root), root)


def _room(root: Path) -> dict[str, str]:
    if not root.is_dir() or shutil.disk_usage(root).free >= LEAST_ROOM_BYTES:
        return {}
    return {
        str(root): "The disk of the spool is nearly full. Without room, usage that the database "
        "has not taken yet is in memory only, and is lost with its process."
    }


async def _set_alerts(session: AsyncSession, code: str, wanted: dict[str, str], root: Path) -> None:
    """Let the open alerts of this code and folder be the wanted ones."""
    for subject, sentence in wanted.items():
        await jobs.raise_alert(session, code=code, subject=subject, detail={"sentence": sentence})
    for alert in await jobs_queries.any_customers_open_alerts(session, limit=MOST_ALERTS):
        is_ours = alert.code == code and alert.subject.startswith(str(root))
        if is_ours and alert.subject not in wanted:
            await jobs.resolve_alert(session, code=code, subject=alert.subject)
