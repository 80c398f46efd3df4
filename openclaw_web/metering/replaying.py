"""Writing what dead processes left in the spool of this machine; safe to run twice at once.

A folder's lock decides who replays it, and the ledger knows which events it has. Every proxy does
this when it starts; the worker goes on looking, for a proxy that died and is not started again. In
a cluster each proxy has a volume of its own, which only its own next start sees, and nobody else
can tell a person how it is.
"""

import asyncio
import logging
import shutil
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.database import session_scope
from openclaw_web.jobs import queries as jobs_queries
from openclaw_web.jobs import service as jobs
from openclaw_web.metering import invariants, ledger, spool
from openclaw_web.metering.ledger import Event

logger = logging.getLogger(__name__)

BATCH_EVENTS = 1_000
LEAST_ROOM_BYTES = 64 * 1024 * 1024  # about 130,000 events
MOST_ALERTS = 1_000
TORN = "spool_torn"
WAITS = "spool_waits"
FULL = "spool_disk_full"
STUCK = "spool_stuck"


Write = Callable[[Sequence[Event]], Awaitable[None]]


@dataclass
class Replayed:
    """What became of the segments that nobody owned any more."""

    customers: set[UUID] = field(default_factory=set)
    stuck: list[Path] = field(default_factory=list)  # cannot be read or deleted now: tried again


async def _write(events: Sequence[Event]) -> None:
    async with session_scope() as session:
        await ledger.write(session, events)


async def replay(root: Path, write: Write = _write) -> Replayed:
    """Write every segment that nobody owns any more; one that the disk spoils stops no other.

    Raises:
        SQLAlchemyError, OSError: the database does not answer; the segments stay.
    """
    done = Replayed()
    with spool.leftovers(root) as segments:
        for segment in segments:
            try:
                events = await asyncio.to_thread(spool.read, segment)
            except OSError:
                logger.exception("%s cannot be read now; it is tried again.", segment)
                done.stuck.append(segment)
                continue
            for start in range(0, len(events), BATCH_EVENTS):
                await write(events[start : start + BATCH_EVENTS])
            done.customers |= {event.customer_id for event in events}
            if await _is_finished(segment):
                logger.info("%d events of an earlier process were written.", len(events))
            else:
                done.stuck.append(segment)
    return done


async def _is_finished(segment: Path) -> bool:
    """Delete a segment that is written; on a full disk its torn lines cannot be kept aside yet."""
    try:
        await asyncio.to_thread(spool.finish, segment)
    except OSError:
        logger.exception("%s is written, but cannot be put away now; it stays.", segment)
        return False
    return True


async def tell_stuck(session: AsyncSession, root: Path, stuck: Sequence[Path]) -> None:
    """Open or close the alerts about segments of this machine that the disk spoils."""
    wanted = {
        f"{_here(root)}{segment.relative_to(root)}": "A segment of the spool cannot be read, or "
        "its torn lines cannot be kept aside. It is tried again; look at the disk."
        for segment in stuck
    }
    await _set_alerts(session, STUCK, wanted, _here(root))


def _here(root: Path) -> str:
    """Name the folder and its machine: in a cluster it has the same path everywhere."""
    return f"{socket.gethostname()}:{root}/"


async def watch(session: AsyncSession, root: Path) -> None:
    """Open or close the alerts about this machine's spool: torn lines, delay, a full disk."""
    here = _here(root)
    torn = {
        f"{here}{path.relative_to(root)}": "A line of the spool could not be read; it is kept in "
        "this file. Delete it once you have looked at it."
        for path in spool.torn_files(root)
    }
    late = invariants.judge_spool(root)
    await _set_alerts(session, TORN, torn, here)
    await _set_alerts(session, WAITS, {here: late[0].sentence} if late else {}, here)
    await _set_alerts(session, FULL, _room(root, here), here)


def _room(root: Path, here: str) -> dict[str, str]:
    if not root.is_dir() or shutil.disk_usage(root).free >= LEAST_ROOM_BYTES:
        return {}
    return {
        here: "The disk of the spool is nearly full. Without room, usage that the database "
        "has not taken yet is in memory only, and is lost with its process."
    }


async def _set_alerts(session: AsyncSession, code: str, wanted: dict[str, str], here: str) -> None:
    """Let the open alerts of this code and machine be the wanted ones."""
    for subject, sentence in wanted.items():
        await jobs.raise_alert(session, code=code, subject=subject, detail={"sentence": sentence})
    for alert in await jobs_queries.any_customers_open_alerts(session, limit=MOST_ALERTS):
        is_ours = alert.code == code and alert.subject.startswith(here)
        if is_ours and alert.subject not in wanted:
            await jobs.resolve_alert(session, code=code, subject=alert.subject)
