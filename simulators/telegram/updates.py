"""Updates on their way to a bot: one long poll a bot, as Telegram allows."""

import asyncio
from dataclasses import dataclass
from typing import Any

from simulators.telegram.errors import ApiError
from simulators.telegram.store import Store

LONGEST_POLL_SECONDS = 50
MOST_UPDATES = 100
TERMINATED = ApiError(
    409,
    "Conflict: terminated by other getUpdates request; make sure that only one bot instance"
    " is running",
)


@dataclass(frozen=True, kw_only=True)
class Poll:
    offset: int
    limit: int
    timeout_seconds: int


class Updates:
    """Keeps updates until the bot confirms them and wakes the bot's long poll when one arrives."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[int, asyncio.Future[ApiError | None]] = {}
        self._is_closed = False

    def add(self, bot_id: int, payload: dict[str, Any]) -> dict[str, Any]:
        update_id = self._store.add_update(bot_id, payload)
        self._wake(bot_id, None)
        return {"update_id": update_id, **payload}

    async def poll(self, bot_id: int, poll: Poll) -> list[dict[str, Any]]:
        """Return waiting updates, or wait for the first one.

        Raises:
            ApiError: another poll, a webhook or a revoked token ended this one.
        """
        self.interrupt(bot_id, TERMINATED)
        if poll.offset:
            self._store.forget_updates(bot_id, before=poll.offset)
        ready = self._store.waiting_updates(bot_id, poll.limit)
        if ready or poll.timeout_seconds <= 0 or self._is_closed:
            return ready
        error = await self._wait(bot_id, min(poll.timeout_seconds, LONGEST_POLL_SECONDS))
        if error is not None:
            raise error
        return self._store.waiting_updates(bot_id, poll.limit)

    def interrupt(self, bot_id: int, error: ApiError) -> None:
        """End the bot's long poll, if there is one, with an error."""
        self._wake(bot_id, error)

    def close(self) -> None:
        """End every long poll with what there is: the simulator stops."""
        self._is_closed = True
        for bot_id in list(self._waiting):
            self._wake(bot_id, None)

    async def _wait(self, bot_id: int, seconds: float) -> ApiError | None:
        waiter: asyncio.Future[ApiError | None] = asyncio.get_running_loop().create_future()
        self._waiting[bot_id] = waiter
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            return None
        finally:
            if self._waiting.get(bot_id) is waiter:
                del self._waiting[bot_id]

    def _wake(self, bot_id: int, outcome: ApiError | None) -> None:
        waiter = self._waiting.pop(bot_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(outcome)
