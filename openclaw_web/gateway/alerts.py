"""A provider that is left alone is shown to people, until it answers again."""

import asyncio
import logging
from collections.abc import Iterable

from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core.database import session_scope
from openclaw_web.gateway.providers import Change
from openclaw_web.jobs import service as jobs

logger = logging.getLogger(__name__)

CODE = "model_provider_down"
STOP_SECONDS = 5.0


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
