"""Bringing a snapshot out of the cluster: it becomes a backup like any other, then it is restored.

A volume can only be made from a snapshot, not replaced by it. So a keeper gets a second volume,
made from the snapshot, and sends it to the store; what is there is restored as ever. The second
volume belongs to the keeper's Job and goes with it, so that we need no right to delete volumes.
"""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta

from openclaw_web.boxes import manifests, quantities, queries
from openclaw_web.boxes.memory import addresses, backups, keeper_run, saving, snapshots
from openclaw_web.boxes.memory.addresses import Ticket
from openclaw_web.boxes.memory.backups import Reason
from openclaw_web.boxes.memory.keeper_job import LONGEST_SECONDS, Source
from openclaw_web.boxes.memory.keeper_run import GoneError, KeeperError, Patience
from openclaw_web.boxes.models import Box, BoxBackup
from openclaw_web.boxes.runs import Run
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings
from openclaw_web.jobs import leases

START_SECONDS = 1_200  # a provider may fetch a whole volume from its store first
SECONDS = START_SECONDS + LONGEST_SECONDS
QUOTA_NAME = "persistentvolumeclaims"


async def lift(run: Run, box: Box, backup: BoxBackup) -> None:
    """Carry a snapshot into the store; its copy takes its place, also as what is to come back.

    Raises:
        KeeperError: it is gone, which its row says then, or cannot be carried.
        VendorError: the cluster does not answer.
    """
    source = await _source(run, box, backup)
    await keeper_run.clear(run, box.k8s_namespace)
    await run.say("Reading the snapshot of its volume.")
    async with session_scope() as session:
        await leases.hold(session, run.fence)
        most = quantities.whole(source.size) + saving.SLACK_BYTES
        ticket = await backups.begin_save(session, box, Reason.COPY, most=most)
    ticket = _lasting(ticket, most)
    patience = Patience(seconds=SECONDS, is_wanted=keeper_run.always, start_seconds=START_SECONDS)
    try:
        async with _room_for_two(run, box):
            await keeper_run.carry(run, box, ticket, patience, source)
        copy = await keeper_run.row(ticket.backup_id)
        if copy.finished_at is None:
            raise KeeperError(copy.error or "The keeper ended before the snapshot was read.")
    except VendorError as error:
        await saving.give_up(ticket.backup_id, str(error))
        if error.can_retry and error.code != keeper_run.QUOTA:
            raise
        raise KeeperError(str(error)) from error
    await _take_its_place(run, box, backup, copy)


def _lasting(ticket: Ticket, most: int) -> Ticket:
    """Return the ticket with an address that is good for as long as its keeper may take."""
    life = timedelta(seconds=SECONDS) + addresses.SLACK
    token = addresses.make_token(ticket.backup_id, ticket.way, "", most, life)
    return replace(ticket, token=token)


async def _source(run: Run, box: Box, backup: BoxBackup) -> Source:
    name, namespace = snapshots.name_of(backup), box.k8s_namespace
    seen = await run.cluster.find_snapshot(namespace, name)
    seen = seen or await run.cluster.find_snapshot(namespace, name)  # one "not found" is no proof
    volume = await run.cluster.find_claim(namespace, manifests.NAME)
    if seen is None:
        await keeper_run.note_broken(backup.id, "The cluster does not have this snapshot any more.")
        raise GoneError("That snapshot is gone.")
    if not seen.is_ready:
        raise KeeperError(seen.error or "The snapshot is not ready.")
    if volume is None:  # before a deletion: what is gone is not made anew
        return Source(snapshot=name, size=seen.size, storage_class=settings().box_storage_class)
    larger = max(volume.requested, volume.capacity, seen.size, key=quantities.whole)
    return Source(snapshot=name, size=larger, storage_class=volume.storage_class)


@contextlib.asynccontextmanager
async def _room_for_two(run: Run, box: Box) -> AsyncGenerator[None]:
    """Let a second volume into the quota meanwhile; each start sets it back as well."""
    await _allow(run, box, "2")
    try:
        yield
    finally:
        with contextlib.suppress(VendorError):
            await _allow(run, box, "1")


async def _allow(run: Run, box: Box, count: str) -> None:
    await run.check()
    change = {"spec": {"hard": {QUOTA_NAME: count}}}
    await run.cluster.merge("ResourceQuota", box.k8s_namespace, manifests.NAME, change)


async def _take_its_place(run: Run, box: Box, backup: BoxBackup, copy: BoxBackup) -> None:
    """Let the copy be what the snapshot was; the snapshot is deleted from the cluster later."""
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        taken = await session.get_one(BoxBackup, copy.id, with_for_update=True)
        taken.reason, taken.created_at = Reason.SCHEDULED.value, backup.created_at
        left = await session.get_one(BoxBackup, backup.id, with_for_update=True)
        left.deleted_at = await business_now(session)
        backups.mark_instead(fresh, backup, copy)
        session.add_all([fresh, taken, left])
