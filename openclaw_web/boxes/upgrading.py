"""Which OpenClaw a box runs: its own, until somebody asks for another, which may be taken back.

A box keeps the image that it was set up with. Another one is a generation of its own: `boxes.image`
says what runs, and follows when a pod was ready with it.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import queries, reloading, rendering, revisions, service
from openclaw_web.boxes.lifecycle import RUNNING
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.sentences import trouble
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.core.settings import settings
from openclaw_web.jobs import merging
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType, OperatorJob

UPGRADE = "upgrade"
ALERT_TAKEN_BACK = "upgrade_rolled_back"
# What a registry calls an image: a name, and its tag or its digest.
IMAGE_NAME = re.compile(r"[a-z0-9][\w./:-]*(:[\w.-]{1,128}|@sha256:[0-9a-f]{64})")


async def request_upgrade(
    session: AsyncSession, box: Box, image: str, *, requested_by: str
) -> OperatorJob:
    """Ask for another image of OpenClaw: a generation of its own, taken back when it fails.

    Its memory is saved first, where backups are on: the new one may write it in its own way.

    Raises:
        ValidationError: that is no image, the box has it already, or the box is deleted.
    """
    if not IMAGE_NAME.fullmatch(image):
        raise ValidationError("Name the image with its tag or its digest.")
    box = await queries.get_any_box(session, box.id, lock=True)
    service.require_life(box)
    known = await queries.find_target_revision(session, box.id)
    chosen = known.spec if known else service.document(service.settings_of(box, None))
    if image == rendering.image_of(box, chosen):
        raise ValidationError(f"This assistant has {image} already, or waits for it.")
    await service.add_generation(session, box, {**chosen, reloading.IMAGE: image})
    return await service.request_converge(
        session,
        box,
        job_type=JobType.UPDATE,
        requested_by=requested_by,
        payload={merging.ACTIONS: [UPGRADE], reloading.IMAGE: image},
    )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far boxes are with an image that was asked for: how many wait for it, how many failed."""

    waiting: int
    taken_back: int


async def any_customers_to_upgrade(
    session: AsyncSession, cluster: str, image: str, *, status: BoxStatus, limit: int
) -> Sequence[UUID]:
    """Return boxes that neither have an image nor wait for it, the oldest first."""
    waits = sa.exists().where(
        col(BoxRevision.box_id) == col(Box.id),
        col(BoxRevision.outcome) == RevisionOutcome.PENDING.value,
        col(BoxRevision.spec)[reloading.IMAGE].astext == image,
    )
    found = await session.exec(
        select(Box.id)
        .where(
            Box.cluster == cluster,
            Box.status == status,
            Box.image != image,
            ~waits,
        )
        .order_by(col(Box.created_at), col(Box.id))
        .limit(limit)
    )
    return found.all()


async def any_customers_progress(
    session: AsyncSession, box_ids: Collection[UUID], image: str
) -> Progress:
    """Count what became of an image that these boxes were asked to take; one that sleeps may."""
    newest = (
        sa.select(col(BoxRevision.box_id), col(BoxRevision.outcome))
        .where(
            col(BoxRevision.box_id).in_(box_ids),
            col(BoxRevision.spec)[reloading.IMAGE].astext == image,
        )
        .ext(postgresql.distinct_on(col(BoxRevision.box_id)))
        .order_by(col(BoxRevision.box_id), col(BoxRevision.generation).desc())
        .subquery()
    )
    is_waiting = sa.and_(
        newest.c.outcome == RevisionOutcome.PENDING.value, col(Box.status).in_(RUNNING)
    )
    found = await session.exec(
        select(
            sa.func.count().filter(is_waiting),
            sa.func.count().filter(newest.c.outcome.in_(revisions.GIVEN_UP)),
        ).join_from(Box, newest, newest.c.box_id == col(Box.id))
    )
    waiting, taken_back = found.one()
    return Progress(waiting=waiting, taken_back=taken_back)


async def pin_images(cluster_name: str) -> int:
    """Give each box without an image of its own the one of the setting; returns how many.

    Boxes of earlier releases have none: without this a new BOX_IMAGE would be theirs at once.
    """
    async with session_scope() as session:
        unpinned = (
            sa.select(col(Box.id))
            .where(
                col(Box.image).is_(None),
                col(Box.activated_at).is_not(None),
                col(Box.cluster) == cluster_name,
                col(Box.status) != BoxStatus.DESTROYED,
            )
            .with_for_update(skip_locked=True)
        )
        result = await session.exec(
            sa.update(Box)
            .where(col(Box.id).in_(unpinned))
            .values(image=settings().box_image)
            .execution_options(synchronize_session=False)
        )
    return result.rowcount


async def note_running(session: AsyncSession, box: Box, image: str) -> None:
    """Write down that a pod of this box was ready with an image; a new one settles its alert."""
    if box.image != image:
        await jobs.resolve_alert(session, code=ALERT_TAKEN_BACK, subject=str(box.id))
    box.image = image
    session.add(box)


async def take_back(
    session: AsyncSession, box: Box, faulty: BoxRevision, good: BoxRevision, *, reason: str
) -> None:
    """Tell an admin that an image did not work, and have newer settings do without it, too."""
    image, former = (rendering.image_of(box, one.spec) for one in (faulty, good))
    if image == former:
        return
    await _do_without(session, faulty, image, former)
    await jobs.raise_alert(
        session,
        code=ALERT_TAKEN_BACK,
        subject=str(box.id),
        detail={
            "image": image,
            "runs": former,
            "sentence": f"{image} does not run here: {trouble(reason)}. {former} is back.",
        },
    )


async def asked_at(session: AsyncSession, box: Box) -> datetime | None:
    """Return since when another OpenClaw waits to be tried than the one that the memory is of."""
    target = await queries.find_target_revision(session, box.id)
    wanted = rendering.image_of(box, target.spec) if target else box.image
    if box.image in {None, wanted}:
        return None
    return await session.scalar(
        select(sa.func.min(BoxRevision.created_at)).where(
            BoxRevision.box_id == box.id,
            BoxRevision.outcome == RevisionOutcome.PENDING.value,
            col(BoxRevision.spec)[reloading.IMAGE].astext == wanted,
        )
    )


async def _do_without(session: AsyncSession, faulty: BoxRevision, image: str, former: str) -> None:
    """Give settings that were saved since the image that works: they are not what failed."""
    found = await session.exec(
        select(BoxRevision).where(
            BoxRevision.box_id == faulty.box_id,
            BoxRevision.generation > faulty.generation,
            col(BoxRevision.spec)[reloading.IMAGE].astext == image,
        )
    )
    for newer in found:
        newer.spec = {**newer.spec, reloading.IMAGE: former}
        newer.spec_hash = revisions.hash_of(newer.spec)
        session.add(newer)
    await session.flush()
