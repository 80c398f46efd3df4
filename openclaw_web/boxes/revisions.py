"""The generations of a box's settings: which is newest, which works, what became of each."""

import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import queries, reloading
from openclaw_web.boxes.models import BoxRevision, RevisionOutcome

TRYING = "trying"  # in a box's `health`: the generation that a job is applying
GIVEN_UP = frozenset({RevisionOutcome.FAILED.value, RevisionOutcome.ROLLED_BACK.value})


async def find_newest(session: AsyncSession, box_id: UUID) -> BoxRevision | None:
    """Return what was asked for last, whatever became of it."""
    found = await session.exec(
        select(BoxRevision)
        .where(BoxRevision.box_id == box_id)
        .order_by(col(BoxRevision.generation).desc())
        .limit(1)
    )
    return found.first()


async def find_newest_wish(session: AsyncSession, box_id: UUID) -> BoxRevision | None:
    """Return what its customer asked for last: an image of ours that was taken back is none."""
    newest = await find_newest(session, box_id)
    if newest is None or newest.outcome not in GIVEN_UP:
        return newest
    target = await queries.find_target_revision(session, box_id)
    return target if target is not None and differ_in_image_only(newest, target) else newest


def differ_in_image_only(one: BoxRevision, other: BoxRevision) -> bool:
    """Say whether two generations are the same settings with another image."""
    first, second = ({**each.spec, reloading.IMAGE: ""} for each in (one, other))
    return first == second and one.spec.get(reloading.IMAGE) != other.spec.get(reloading.IMAGE)


async def is_rolled_back(session: AsyncSession, box_id: UUID) -> bool:
    """Say whether what was asked for last did not work, so that something older runs."""
    newest = await find_newest_wish(session, box_id)
    return newest is not None and newest.outcome in GIVEN_UP


async def count_since(session: AsyncSession, box_id: UUID, since: datetime) -> int:
    found = await session.exec(
        select(sa.func.count()).where(
            BoxRevision.box_id == box_id, col(BoxRevision.created_at) > since
        )
    )
    return found.one()


async def note_applied(
    session: AsyncSession, box_id: UUID, generation: int, *, now: datetime
) -> bool:
    """Write down that a pod runs these settings, once; those that failed stay failed."""
    result = await session.exec(
        sa.update(BoxRevision)
        .where(
            col(BoxRevision.box_id) == box_id,
            col(BoxRevision.generation) == generation,
            col(BoxRevision.outcome) == RevisionOutcome.PENDING.value,
        )
        .values(outcome=RevisionOutcome.APPLIED.value, applied_at=now)
        .execution_options(synchronize_session=False)
    )
    return result.rowcount > 0


async def find_fallback(session: AsyncSession, faulty: BoxRevision) -> BoxRevision | None:
    """Return the settings that worked before these, if anybody may still talk to it then."""
    good = await queries.find_applied_revision(session, faulty.box_id, before=faulty.generation)
    if good is None:
        return None
    newest = await find_newest(session, faulty.box_id) or faulty
    return good if set(_people(good)) & set(_people(newest)) or not _people(good) else None


async def give_up(session: AsyncSession, faulty: BoxRevision, *, reason: str) -> None:
    """Mark settings as failed, and with them those before them that were never seen to work.

    Those that worked are applied again, but let nobody in who was taken off the list since.
    """
    good = await queries.find_applied_revision(session, faulty.box_id, before=faulty.generation)
    if good is not None:
        _shut_out(good, await find_newest(session, faulty.box_id) or faulty)
        session.add(good)
    await session.exec(
        sa.update(BoxRevision)
        .where(
            col(BoxRevision.box_id) == faulty.box_id,
            col(BoxRevision.generation) < faulty.generation,
            col(BoxRevision.generation) > (good.generation if good else 0),
            col(BoxRevision.outcome) == RevisionOutcome.PENDING.value,
        )
        .values(outcome=RevisionOutcome.ROLLED_BACK.value, reason=reason)
        .execution_options(synchronize_session=False)
    )
    faulty.outcome = RevisionOutcome.FAILED.value
    faulty.reason = reason
    session.add(faulty)
    await session.flush()


def hash_of(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _shut_out(good: BoxRevision, newest: BoxRevision) -> None:
    """Take off its list whoever the newest wish does not name; what else it says failed."""
    wanted = set(_people(newest))
    people = [one for one in _people(good) if one in wanted]
    if people and len(people) < len(_people(good)):
        removed = {reloading.PEOPLE: people, reloading.REMOVED_AT: newest.generation}
        good.spec = {**good.spec, **removed}
        good.spec_hash = hash_of(good.spec)


def _people(revision: BoxRevision) -> list[int]:
    return list(revision.spec.get(reloading.PEOPLE, ()))


async def any_customers_targets(
    session: AsyncSession, box_ids: Collection[UUID]
) -> dict[UUID, BoxRevision]:
    """Return for each box the newest settings that were not found to fail."""
    found = await session.exec(
        select(BoxRevision)
        .where(col(BoxRevision.box_id).in_(box_ids), col(BoxRevision.outcome).in_(queries.USABLE))
        .ext(postgresql.distinct_on(col(BoxRevision.box_id)))
        .order_by(col(BoxRevision.box_id), col(BoxRevision.generation).desc())
    )
    return {revision.box_id: revision for revision in found}
