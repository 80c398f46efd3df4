"""The memory of one assistant for another one of the same customer: a copy under a key of its own.

What is copied is the volume as a backup holds it. The bot, its token, the settings and the proxy's
token are no part of it; the new box keeps its own.
"""

from openclaw_web.boxes import queries
from openclaw_web.boxes.memory import backups, carrying, keeper_run
from openclaw_web.boxes.memory.backups import Reason
from openclaw_web.boxes.memory.keeper_run import GoneError, KeeperError
from openclaw_web.boxes.models import Box, BoxBackup
from openclaw_web.boxes.runs import Run
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.jobs import leases


async def copy_over(run: Run, box: Box, source: BoxBackup) -> None:
    """Make another box's backup one of this box, and note that one as what comes back.

    Raises:
        GoneError: it is not to be had: over, damaged, or somebody else's.
        KeeperError: it could not be copied now.
    """
    await run.say("Copying the memory of the other assistant.")
    async with session_scope() as session:
        await leases.hold(session, run.fence)
        is_theirs = await backups.is_of_same_customer(session, box, source)
        is_usable = backups.is_usable(source, await business_now(session))
        if not is_theirs or not is_usable or backups.is_snapshot(source):
            raise GoneError("That backup is gone.")
        most = source.size_bytes or 0
        ticket = await backups.begin_save(session, box, Reason.COPY, most=most)
    try:
        with run.aside():
            await carrying.copy(source, ticket.backup_id)
    except OpenClawError as error:
        await carrying.note_trouble(source, error)
        is_broken = (await keeper_run.row(source.id)).error is not None
        raise (GoneError if is_broken else KeeperError)(str(error)) from error
    await run.check()
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        copy = await session.get_one(BoxBackup, ticket.backup_id, with_for_update=True)
        copy.reason, copy.created_at = Reason.CLONE.value, source.created_at
        backups.mark_instead(fresh, source, copy)
        session.add_all([fresh, copy])
