"""That settings are applied is proved by the box itself: each of its model calls says which it has.

OpenClaw keeps its old configuration silently when it cannot use a new one, so nothing else tells.
"""

import contextlib
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import queries, revisions, service
from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit
from openclaw_web.integrations import redis
from openclaw_web.jobs.service import JobConflictError

SEEN_EVERY = timedelta(seconds=10)  # an agent that talks all the time is not written down each time
# A mounted Secret reaches a pod after 90 s at most; OpenClaw takes it up about 1.5 s later.
TAKEN_WITHIN = timedelta(minutes=2)
LIVE = "live"  # in `health`: the generation that was written into the running pod, and when
RELOADER = "reload"
OK_AT, FAILED_AT = queries.MODEL_OK_AT, queries.MODEL_FAILED_AT
_NOTE_FAILURE = sa.text(f"""
UPDATE boxes SET health = health || jsonb_build_object('{FAILED_AT}', CAST(:at AS text))
WHERE id = :box_id AND status NOT IN ('destroying', 'destroyed')
  AND CAST(coalesce(health ->> '{OK_AT}', '-infinity') AS timestamptz) < :asked_at
  AND CAST(coalesce(health ->> '{FAILED_AT}', '-infinity') AS timestamptz) < :asked_at
RETURNING customer_id
""")  # noqa: S608 - names of ours


async def record_model_call(
    session: AsyncSession,
    box_id: UUID,
    *,
    generation: int | None = None,
    asked_at: datetime | None = None,
) -> None:
    """Note that an agent asked its model and got an answer: the best proof of life.

    `generation` is what the agent's configuration says of itself: seen here, it is applied. An
    older one or none, asked with long after a newer one was written, means that it was not taken:
    then the box is restarted. `asked_at` is business time; without it the call counts as asked now.
    """
    now = await business_now(session)
    seen = await _note_call(session, box_id, generation, now=now, asked_at=asked_at or now)
    if seen is None:
        return
    after_commit(session, partial(redis.announce_change, seen.customer_id))
    said = generation or 0
    if said > seen.applied_generation:
        await _note_proof(session, box_id, said, now=now)
    elif is_overdue(seen.health, said, asked_at=asked_at or now):
        await _restart(session, box_id, said, asked_at=asked_at or now)


async def record_model_failure(session: AsyncSession, box_id: UUID, *, asked_at: datetime) -> None:
    """Note that an agent asked its model in vain; nothing once a later question was answered.

    `asked_at` is business time. The next answer takes the note away.
    """
    given = {"box_id": box_id, "asked_at": asked_at, "at": asked_at.isoformat()}
    found = await (await session.connection()).execute(_NOTE_FAILURE, given)
    customer_id = found.scalar_one_or_none()
    if customer_id is not None:
        after_commit(session, partial(redis.announce_change, customer_id))


def note_written(box: Box, generation: int, *, now: datetime) -> None:
    """Remember since when the running pod's files have these settings; the second call keeps it."""
    known = box.health.get(LIVE) or {}
    if known.get("generation") != generation:
        box.health = {**box.health, LIVE: {"generation": generation, "at": now.isoformat()}}


def forget_written(box: Box) -> None:
    box.health = {key: value for key, value in box.health.items() if key != LIVE}


def written_at(box: Box, generation: int) -> datetime | None:
    """Return when these settings were written into the running pod, if they wait for a proof."""
    known = box.health.get(LIVE) or {}
    return datetime.fromisoformat(known["at"]) if known.get("generation") == generation else None


def is_overdue(health: dict[str, Any], generation: int, *, asked_at: datetime) -> bool:
    """Say whether a call with this generation shows that a newer one was not taken up."""
    written = health.get(LIVE)
    if not written or generation >= written["generation"]:
        return False
    return asked_at > datetime.fromisoformat(written["at"]) + TAKEN_WITHIN


async def _note_call(
    session: AsyncSession,
    box_id: UUID,
    generation: int | None,
    *,
    now: datetime,
    asked_at: datetime,
) -> sa.Row[Any] | None:
    """Write the call down unless that was done just now; return what the box's row says then."""
    named = sa.func.least(generation or 0, col(Box.generation))
    health = col(Box.health)
    ok_at, failed_at = (_moment(health[key].astext) for key in (OK_AT, FAILED_AT))
    kept = sa.case(
        (failed_at > asked_at, health), else_=health.op("-", return_type=JSONB())(FAILED_AT)
    )
    result = await session.exec(
        sa.update(Box)
        .where(
            col(Box.id) == box_id,
            sa.or_(
                col(Box.first_answer_at).is_(None),
                col(Box.agent_ok_at).is_(None),
                col(Box.agent_ok_at) < now - SEEN_EVERY,
                sa.func.coalesce(ok_at < asked_at - SEEN_EVERY, sa.true()),
                col(Box.observed_generation) < named,
                failed_at <= asked_at,
            ),
        )
        .values(
            agent_ok_at=now,
            first_answer_at=sa.func.coalesce(Box.first_answer_at, now),
            observed_generation=sa.func.greatest(col(Box.observed_generation), named),
            health=kept.concat(sa.func.jsonb_build_object(OK_AT, asked_at.isoformat())),
        )
        .returning(col(Box.customer_id), col(Box.applied_generation), col(Box.health))
        .execution_options(synchronize_session=False)
    )
    return result.first()


def _moment(text: Any) -> sa.ColumnElement[datetime]:
    return sa.cast(text, sa.DateTime(timezone=True))


async def _note_proof(
    session: AsyncSession, box_id: UUID, generation: int, *, now: datetime
) -> None:
    if not await revisions.note_applied(session, box_id, generation, now=now):
        return
    box = await queries.get_any_box(session, box_id, lock=True)
    box.applied_generation = max(box.applied_generation, generation)
    if written_at(box, generation) is not None:
        forget_written(box)
    session.add(box)
    await session.flush()


async def _restart(
    session: AsyncSession, box_id: UUID, generation: int, *, asked_at: datetime
) -> None:
    """Ask once for a new pod: it reads the new settings, or does not start and they go back."""
    box = await queries.get_any_box(session, box_id, lock=True)
    if not is_overdue(box.health, generation, asked_at=asked_at):
        return
    forget_written(box)
    # Its row has the restart's mark: a box whose queue is too busy now is found by the sweep.
    with contextlib.suppress(JobConflictError):
        await service.request_restart(session, box, requested_by=RELOADER)
