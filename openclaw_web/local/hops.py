"""Hopping through time: from one due event to the next, and everything done in between.

Jumping over a month at once would show the world a month late to everybody: a failed payment and
the end of its grace would be seen together. So time stops wherever something is due.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

FURTHEST = timedelta(days=400)  # a next event is looked for that far ahead


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One stop: when, why there, what happened, and what could not be brought to its end."""

    moment: datetime
    due: tuple[str, ...] = ()
    happened: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        why = f" ({', '.join(self.due)})" if self.due else ""
        what = "; ".join(self.happened) or "nothing happened"
        left = f"\n    ! {'; '.join(self.left)}" if self.left else ""
        return f"{self.moment:%Y-%m-%d %H:%M:%S}  {what}{why}{left}"


@dataclass(frozen=True, kw_only=True)
class Due:
    """The next moment at which something happens by itself, and what that is."""

    moment: datetime
    what: tuple[str, ...]


class World(Protocol):
    """Whatever has clocks that can be moved, and queues that can be emptied."""

    async def now(self) -> datetime: ...

    async def next_due(self, after: datetime) -> Due | None:
        """Return what is due next, later than a moment."""

    async def go_to(self, moment: datetime) -> None:
        """Move every clock there."""

    async def settle(self) -> tuple[Collection[str], Collection[str]]:
        """Empty the queues; return what happened, and what could not be brought to its end."""


async def hops(
    world: World, span: timedelta | None, *, grain: timedelta = timedelta(0)
) -> AsyncIterator[Hop]:
    """Move time by a span, or without one to the next event; yields each stop once it is over.

    What is due within a grain of the next event happens at the same stop, after it. The last stop
    is the end of the span itself. Real time goes on meanwhile, so that the clocks stand a moment
    later than that when everything is done.
    """
    started = await world.now()
    target = started + (FURTHEST if span is None else span)
    at = started
    while at < target:
        due = await world.next_due(at)
        if due is None or due.moment > target:
            if span is None:
                return
            due = Due(moment=target, what=())
        at = min(due.moment + grain, target)
        await world.go_to(at)
        happened, left = await world.settle()
        yield Hop(moment=at, due=due.what, happened=tuple(happened), left=tuple(left))
        if span is None:
            return


def counted(names: dict[str, int]) -> str:
    """Return what happened how often, as a person reads it."""
    return ", ".join(
        name if count == 1 else f"{name} x{count}" for name, count in sorted(names.items())
    )
