"""What an operator does to assistants from a shell: look at one, upgrade one or all, delete one."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import incidents, queries, rendering, upgrading
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError
from openclaw_web.core.settings import Settings
from openclaw_web.local.levers import customer_of, one_act, opened
from openclaw_web.workflows import operations
from openclaw_web.workflows.operations import By

LOOK_SECONDS = 2.0
# Two attempts of five minutes until an image is blamed, the way back, and a backup of 15 minutes.
PATIENCE_SECONDS = 2_400.0


async def show(chosen: Settings, email: str) -> str:
    """Return what a customer's assistant is and runs.

    Raises:
        NotFoundError: nobody has this address, or they have no assistant.
    """
    async with one_act(chosen) as session:
        box = await _box_of(session, email)
        target = await queries.find_target_revision(session, box.id)
        image = box.image or "no image yet"
        wanted = rendering.image_of(box, target.spec if target else {})
    waits = "" if wanted == image else f", then {wanted}"
    return f"{box.id}  {box.k8s_namespace}  {box.status.value}  {image}{waits}"


async def upgrade(chosen: Settings, email: str, image: str, *, reason: str) -> None:
    """Give a customer's assistant another image; it goes back by itself when it does not work.

    Raises:
        NotFoundError: nobody has this address, or they have no assistant.
        ValidationError: that is no image, it has it already, or no reason was given.
    """
    async with one_act(chosen) as session:
        box = await _box_of(session, email)
        await operations.upgrade_box(session, box.id, image, by=By(reason=reason))


async def destroy(chosen: Settings, email: str, *, reason: str) -> None:
    """Delete the assistant of a customer whose plan has ended, without waiting for its day.

    Raises:
        NotFoundError: nobody has this address, or they have no assistant.
        ValidationError: it is paid for or held, or no reason was given.
    """
    async with one_act(chosen) as session:
        box = await _box_of(session, email)
        await operations.destroy_box(session, box.id, by=By(reason=reason))


async def upgrade_all(
    chosen: Settings, image: str, *, reason: str, at_once: int
) -> AsyncGenerator[str]:
    """Upgrade the cluster's assistants, one first and then so many at once; tell each step.

    Those that sleep take it when they wake. Begun again, it goes on where it was.

    Raises:
        OpenClawError: one went back, takes too long, or many are in trouble: the rest stays.
        ValidationError: that is no image, or no reason was given.
    """
    by, count, size = By(reason=reason), 0, 1
    async with opened(chosen):
        while asked := await _ask(chosen.cluster_name, BoxStatus.ACTIVE, image, by, size):
            yield f"{len(asked)} on their way to {image}."
            await _wait(asked, image)
            count, size = count + len(asked), at_once
        yield f"{count} assistants are done."
        sleeping = 0
        while asked := await _ask(chosen.cluster_name, BoxStatus.SUSPENDED, image, by, at_once):
            sleeping += len(asked)
        yield f"{sleeping} that sleep take it when they wake."


async def _ask(cluster: str, status: BoxStatus, image: str, by: By, limit: int) -> Sequence[UUID]:
    async with session_scope() as session:
        if await incidents.is_incident(session, cluster):
            raise OpenClawError("Many assistants are in trouble at once; nothing is upgraded now.")
        found = await upgrading.any_customers_to_upgrade(
            session, cluster, image, status=status, limit=limit
        )
        for box_id in found:
            await operations.upgrade_box(session, box_id, image, by=by)
    return found


async def _wait(asked: Sequence[UUID], image: str) -> None:
    """Wait until each of these runs its image, went back, or sleeps."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        async with session_scope() as session:
            found = await upgrading.any_customers_progress(session, asked, image)
        if found.taken_back:
            raise OpenClawError(
                f"{found.taken_back} of {len(asked)} did not work with {image} and went back;"
                f" no more are upgraded. The alert {upgrading.ALERT_TAKEN_BACK} says why."
            )
        if not found.waiting:
            return
        if time.monotonic() > until:
            raise OpenClawError(
                f"{found.waiting} of {len(asked)} have not ended yet; no more are upgraded. Those"
                " that were asked for go on: look at their jobs on /admin."
            )
        await asyncio.sleep(LOOK_SECONDS)


async def _box_of(session: AsyncSession, email: str) -> Box:
    box = await queries.find_box_of_customer(session, await customer_of(session, email))
    if box is None or box.status is BoxStatus.DESTROYED:
        raise NotFoundError(f"{email} has no assistant.")
    return box
