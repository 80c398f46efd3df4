"""So many things at once and no more: what a process works at in the background."""

import asyncio
from collections.abc import Coroutine, Generator, Hashable
from contextlib import contextmanager
from typing import Any


class Hands:
    """Works at `most` things at once; each has a name, and is not begun twice.

    Up to `most_aside` of them may be laid aside while they wait: those take no hand.
    """

    def __init__(self, most: int, *, most_aside: int = 0) -> None:
        self._most = most
        self._most_aside = most_aside
        self._aside = 0
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._tasks

    @property
    def are_full(self) -> bool:
        return len(self._tasks) - min(self._aside, self._most_aside) >= self._most

    @contextmanager
    def aside(self) -> Generator[None]:
        """Free a hand while something of ours waits for long."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1

    def take(self, name: Hashable, work: Coroutine[Any, Any, None]) -> None:
        """Begin something; it sees to its own errors."""
        task = self._tasks[name] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(name))

    async def wait_for_one(self, *, timeout_seconds: float) -> None:
        """Wait until one thing is done, or the time is over."""
        if self._tasks:
            await asyncio.wait(
                self._tasks.values(),
                return_when=asyncio.FIRST_COMPLETED,
                timeout=timeout_seconds,
            )

    async def empty(self, *, timeout_seconds: float) -> None:
        """Let everything end for a while, then cancel what is left."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout_seconds)
        left = list(self._tasks.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
