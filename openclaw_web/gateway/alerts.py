"""What a proxy shows to people: a provider that is left alone, and how its own spool is."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core.database import session_scope
from openclaw_web.gateway.providers import Change
from openclaw_web.jobs import service as jobs
from openclaw_web.metering import replaying

logger = logging.getLogger(__name__)

CODE = "model_provider_down"
STOP_SECONDS = 5.0
SPOOL_SECONDS = 30.0


class Alerts:
    """Writes alerts beside the requests, one after the other; a lost one is only logged."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Change] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None

    def start_anew(self, subjects: Iterable[str]) -> None:
        """End what an earlier process left open: this one has yet to see that it is still so."""
        for subject in subjects:
            self.note(Change(subject, is_open=False, reason=""))

    def note(self, change: Change) -> None:
        self._waiting.put_nowait(change)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="provider alerts")

    async def stop(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=STOP_SECONDS)
            self._writer.cancel()

    async def _write(self) -> None:
        while not self._waiting.empty():
            change = self._waiting.get_nowait()
            try:
                await _write(change)
            except (SQLAlchemyError, OSError):
                logger.exception("An alert about %s could not be written.", change.subject)


async def _write(change: Change) -> None:
    async with session_scope() as session:
        if change.is_open:
            sentence = f"Requests pass it by, because of this: {change.reason}."
            await jobs.raise_alert(
                session, code=CODE, subject=change.subject, detail={"sentence": sentence}
            )
        else:
            await jobs.resolve_alert(session, code=CODE, subject=change.subject)


class SpoolWatch:
    """Tells of torn lines, of events that wait and of a full disk.

    In a cluster nobody else sees this proxy's volume; on one machine the worker finds the same.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look(), name="spool alerts")

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking}, timeout=STOP_SECONDS)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(SPOOL_SECONDS)
            try:
                async with session_scope() as session:
                    await replaying.watch(session, self._root)
            except Exception:
                # Part of the proxy's edge: whatever happens, looking goes on.
                logger.exception("How the spool is could not be told.")
