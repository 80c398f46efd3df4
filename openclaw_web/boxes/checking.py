"""Beside the watch: boxes that it has not seen for long are looked at, and its silence is told.

What the watch hears is noted in the database: whoever judges it may be another worker.
"""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import queries, sweeping
from openclaw_web.boxes.changes import BoxChange, Conclude, conclude_nothing
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.troubles import WATCH_SILENT
from openclaw_web.boxes.watching import Watcher
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import read_switch, write_switch
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespacesListed, PodsListed
from openclaw_web.jobs import service as jobs

NOTED_EVERY = timedelta(minutes=1)
SILENT_AFTER = timedelta(minutes=5)  # of real time; each minute something should be heard
NO_CAUSE = "The cluster answers, but no worker hears its watch."
BY = "watch"


async def look(
    cluster: Cluster, cluster_name: str, conclude: Conclude = conclude_nothing
) -> list[BoxChange]:
    """List everything anew for boxes that were not seen for long: one that is not ready misses one.

    While the watch is silent, unhealthy ones count as well: nobody else would see them recover.

    Raises:
        VendorError: the cluster does not answer; then no box is blamed.
    """
    async with session_scope() as session:
        unseen = set(await queries.any_customers_unseen(session, cluster_name))
        if await _silence(session, cluster_name) >= NOTED_EVERY * 2:
            ailing = BoxStatus.UNHEALTHY
            unseen |= set(await queries.any_customers_namespaces(session, cluster_name, ailing))
    if not unseen:
        return []
    fresh = Watcher(cluster_name, conclude, find=partial(sweeping.find_hidden, cluster))
    fresh.remember(NamespacesListed(views=tuple(await cluster.list_namespaces())))
    fresh.remember(PodsListed(views=tuple(await cluster.list_pods())))
    return await fresh.settle() + await fresh.evaluate(only=unseen)


async def note_watch(cluster_name: str, silent_because: str) -> None:
    """Write down once a minute that the watch hears something, and once why it does not."""
    async with session_scope() as session:
        known = await _noted(session, cluster_name)
        is_news = silent_because != known.get("why")
        if silent_because and is_news:
            await _note(session, cluster_name, {**known, "why": silent_because})
        elif not silent_because and (is_news or _age(known) >= NOTED_EVERY):
            fresh = {"heard_at": real_now().isoformat(), "why": ""}
            await _note(session, cluster_name, fresh)
            await jobs.resolve_alert(session, code=WATCH_SILENT, subject=cluster_name)


async def judge_watch(cluster_name: str, *, began_at: datetime, why: str = "") -> bool:
    """Keep an alert open while the watch is silent for too long; say whether it is.

    `began_at` is the real time since when this worker could know: what stood still before it was
    nobody watching. `why` is what a look of our own met.
    """
    async with session_scope() as session:
        known = await _noted(session, cluster_name)
        heard_at = _heard_at(known)
        since = max(heard_at, began_at) if heard_at else began_at
        if real_now() - since < SILENT_AFTER:
            return False
        cause = why or known.get("why") or NO_CAUSE
        sentence = f"Nothing was heard of the cluster since {since:%d %B, %H:%M} UTC: {cause}"
        detail = {"sentence": sentence, "cause": cause, "silent_since": since.isoformat()}
        await jobs.raise_alert(session, code=WATCH_SILENT, subject=cluster_name, detail=detail)
    return True


async def _silence(session: AsyncSession, cluster_name: str) -> timedelta:
    return _age(await _noted(session, cluster_name))


def _age(known: dict[str, Any]) -> timedelta:
    heard_at = _heard_at(known)
    return real_now() - heard_at if heard_at else timedelta.max


def _heard_at(known: dict[str, Any]) -> datetime | None:
    found = known.get("heard_at")
    return datetime.fromisoformat(found) if found else None


async def _noted(session: AsyncSession, cluster_name: str) -> dict[str, Any]:
    return await read_switch(session, _key(cluster_name)) or {}


async def _note(session: AsyncSession, cluster_name: str, value: dict[str, Any]) -> None:
    now = await business_now(session)
    await write_switch(session, _key(cluster_name), value, by=BY, at=now)


def _key(cluster_name: str) -> str:
    return f"watch_heard_{cluster_name}"
