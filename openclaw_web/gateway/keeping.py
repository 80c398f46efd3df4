"""Keeping the directory fresh, so that no request waits for the database after its first."""

import asyncio
import contextlib
import logging

from openclaw_web.core.database import session_scope
from openclaw_web.gateway.credentials import DATABASE_ERRORS, Directory
from openclaw_web.integrations import redis
from openclaw_web.metering import service as metering

logger = logging.getLogger(__name__)

# A revoked token is refused everywhere in under a second even if its announcement was lost.
REFRESH_SECONDS = 0.5
PAUSE_SECONDS = 0.05  # a flood of announcements is one look, not one each
RECONNECT_SECONDS = 0.5


class Keeper:
    """Looks again twice a second, and at once when somebody announces a change."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._directory.is_kept = True
        self._tasks = [
            asyncio.create_task(self._refresh(), name="refresh tokens"),
            asyncio.create_task(self._listen(), name="listen for revoked tokens"),
        ]

    async def stop(self) -> None:
        """Write down the last uses, and look no more."""
        self._directory.is_kept = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._directory.close()
        with contextlib.suppress(*DATABASE_ERRORS):
            await self._note_uses(at_least=0.0)

    async def _refresh(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._news.wait()
            self._news.clear()
            try:
                await self._look()
            except Exception:
                # Part of the proxy's edge: whatever happens, looking goes on. What we cannot look
                # at is not believed any more: each request asks for itself.
                logger.exception("Tokens could not be looked at.")
                self._directory.doubt(None)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _look(self) -> None:
        try:
            await self._directory.refresh()
        except DATABASE_ERRORS:
            if not self._directory.is_cut_off:
                logger.warning("The database does not answer; who is known goes on for 15 minutes.")
            self._directory.is_cut_off = True
            return
        with contextlib.suppress(*DATABASE_ERRORS):  # the next minute's use is noted again
            await self._note_uses()

    async def _note_uses(self, **options: float) -> None:
        if uses := self._directory.take_uses(**options):
            async with session_scope() as session:
                await metering.note_uses(session, uses)

    async def _listen(self) -> None:
        """Doubt whom an announcement names, and everybody's look once Redis is back."""
        while True:
            try:
                async for customer_id in redis.access_changes():
                    if customer_id is not None:
                        self._directory.doubt(customer_id)
                    self._news.set()  # without a name: whatever was announced meanwhile was missed
            except (redis.RedisError, redis.RedisNotOpenError, OSError):
                logger.warning("Redis went away; revoked tokens are found by looking.")
            await asyncio.sleep(RECONNECT_SECONDS)
