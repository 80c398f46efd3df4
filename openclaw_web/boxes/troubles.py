"""What on our side keeps assistants from answering, or us from seeing whether they do."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now
from openclaw_web.core.switches import PlatformSetting, read_switch
from openclaw_web.jobs import queries as jobs

WATCH_SILENT = jobs.WATCH_SILENT  # its subject is the cluster
PROVIDER_DOWN = "model_provider_down"  # a provider, or "<provider>, key <number>"; by each proxy
ANSWERED = "model_answered_at"  # the switch: when each provider answered last
# A request that a provider failed goes on to the next one, and was asked before the alert.
ASKED_BEFORE = timedelta(minutes=1)


async def is_unseen(session: AsyncSession, box: Box) -> bool:
    """Say whether we cannot see how a box is: its cluster is silent, and so is its agent."""
    alert = await jobs.find_open_alert(session, code=WATCH_SILENT, subject=box.cluster)
    if alert is None or alert.first_seen_at is None:
        return False
    return box.agent_ok_at is None or box.agent_ok_at < alert.first_seen_at


async def is_model_down(session: AsyncSession) -> bool:
    """Say whether no model provider answers: each that was asked is left alone.

    One that still answers while another one rests has answered since then.
    """
    alerts = await jobs.any_customers_alerts_of(session, PROVIDER_DOWN)
    if not alerts:
        return False
    down_since = max(alert.first_seen_at for alert in alerts if alert.first_seen_at)
    resting = {alert.subject.partition(", ")[0] for alert in alerts}
    answered = await read_switch(session, ANSWERED) or {}
    return not _has_answered(answered.items(), resting, down_since)


def _has_answered(
    answered: Iterable[tuple[str, str]], resting: set[str], down_since: datetime
) -> bool:
    for provider, at in answered:
        since = down_since if provider in resting else down_since - ASKED_BEFORE
        if datetime.fromisoformat(at) > since:
            return True
    return False


async def note_answers(session: AsyncSession, by: Mapping[str, datetime]) -> None:
    """Note when providers answered last: the time is when they were asked, in business time."""
    row = insert(PlatformSetting).values(
        key=ANSWERED,
        value={provider: at.isoformat() for provider, at in by.items()},
        updated_by="proxy",
        updated_at=await business_now(session),
    )
    await session.exec(
        row.on_conflict_do_update(
            index_elements=["key"],
            set_={
                "value": col(PlatformSetting.value).concat(row.excluded.value),
                "updated_at": row.excluded.updated_at,
            },
        )
    )
