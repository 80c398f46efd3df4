"""Which boxes had an answer of their model, or none: noted beside the counting, not waited for."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.boxes import proving, troubles
from openclaw_web.boxes import queries as boxes
from openclaw_web.core.database import session_scope
from openclaw_web.gateway.statuses import ABOUT_THE_REQUEST
from openclaw_web.metering.ledger import Event

logger = logging.getLogger(__name__)

MOST_NOTED = 20_000
NOTED_SECONDS = 5.0  # a box that answers all the time is noted this often
NOTE_SECONDS = 10.0
WAIT_FOR_LOCKS = sa.text("SET LOCAL lock_timeout = '2s'")
TRIES = 5  # a box that somebody works at is tried again; its next call is as good
TRY_SECONDS = 0.5
STOP_SECONDS = 2.0
# Outcomes of events: see exchange.py.
ANSWERED = "complete"
IN_VAIN = frozenset({"failed", "cut"})
# The generation that a call named, 0 for none, and when it was asked.
Said = tuple[int, datetime]


@dataclass
class News:
    """What calls say: of each box the newest answer and the newest failure, by when it was asked.

    `by` is when each provider answered last, whoever asked.
    """

    good: dict[UUID, Said] = field(default_factory=dict)
    failed: dict[UUID, datetime] = field(default_factory=dict)
    by: dict[str, datetime] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.good or self.failed or self.by)

    @property
    def box_ids(self) -> set[UUID]:
        return {*self.good, *self.failed}

    def add(self, other: "News") -> None:
        for box_id, said in other.good.items():
            self.good[box_id] = max(self.good.get(box_id, said), said)
        for box_id, at in other.failed.items():
            self.failed[box_id] = max(self.failed.get(box_id, at), at)
        for provider, at in other.by.items():
            self.by[provider] = max(self.by.get(provider, at), at)

    def without(self, box_ids: Collection[UUID]) -> "News":
        """Return what is left when these boxes, and all providers, are done with."""
        return News(
            good={key: said for key, said in self.good.items() if key not in box_ids},
            failed={key: at for key, at in self.failed.items() if key not in box_ids},
        )


def news_of(events: Sequence[Event]) -> News:
    """Return what a batch says; what any provider would refuse says nothing of a provider."""
    news = News()
    for event in events:
        at, box_id = event.timestamp, event.box_id
        if event.outcome == ANSWERED:
            if event.upstream:
                news.by[event.upstream] = max(news.by.get(event.upstream, at), at)
            if event.is_agent:
                said = (event.generation or 0, at)
                news.good[box_id] = max(news.good.get(box_id, said), said)
        elif _is_in_vain(event):
            news.failed[box_id] = max(news.failed.get(box_id, at), at)
    return news


def _is_in_vain(event: Event) -> bool:
    is_refusal = event.status_code in ABOUT_THE_REQUEST
    return event.is_agent and event.outcome in IN_VAIN and not is_refusal


class Answers:
    """One task at a time notes the newest calls of each box; nobody waits for it."""

    def __init__(self) -> None:
        self._waiting = News()
        self._noted: dict[UUID, tuple[int, float]] = {}
        # Failures, and providers; a box stays until a later answer of it is noted.
        self._others_noted: dict[UUID | str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, news: News) -> None:
        """Note calls soon, a good one at once when its generation is new."""
        fresh = self._fresh(news)
        self._waiting.add(fresh)
        self._others_noted |= dict.fromkeys([*fresh.failed, *fresh.by], time.monotonic())
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="answers")

    async def settle(self) -> None:
        """Wait until what is known now is noted."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def stop(self) -> None:
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _fresh(self, news: News) -> News:
        """Leave out what was noted just now; a good call after a failure is always news."""
        before = time.monotonic() - NOTED_SECONDS
        good = {}
        for box_id, said in news.good.items():
            generation, at = self._noted.get(box_id, (-1, 0.0))
            if generation != said[0] or at < before or box_id in self._others_noted:
                good[box_id] = said
        others = self._others_noted
        return News(
            good=good,
            failed={key: at for key, at in news.failed.items() if others.get(key, 0.0) < before},
            by={key: at for key, at in news.by.items() if others.get(key, 0.0) < before},
        )

    async def _run(self) -> None:
        tries = 0
        while self._waiting and tries < TRIES:
            due, self._waiting = self._waiting, News()
            try:
                async with asyncio.timeout(NOTE_SECONDS):
                    noted = await _write(due)
            except (SQLAlchemyError, OSError):  # a TimeoutError is one
                logger.exception("Model calls could not be noted at their boxes.")
                return
            self._remember(due, noted)
            left = due.without(noted)
            self._waiting.add(left)
            tries = tries + 1 if left else 0
            if left:
                await asyncio.sleep(TRY_SECONDS)
        self._waiting = News()

    def _remember(self, due: News, noted: set[UUID]) -> None:
        if len(self._noted) + len(self._others_noted) > MOST_NOTED:
            self._noted.clear()
            self._others_noted.clear()
        now = time.monotonic()
        self._noted |= {key: (said[0], now) for key, said in due.good.items() if key in noted}
        for box_id in (noted & due.good.keys()) - due.failed.keys() - self._waiting.failed.keys():
            self._others_noted.pop(box_id, None)


async def _write(due: News) -> set[UUID]:
    """Note these calls but for boxes that somebody works at; return those that were noted."""
    async with session_scope() as session:
        await (await session.connection()).execute(WAIT_FOR_LOCKS)
        free = sorted(await boxes.lock_free(session, due.box_ids)) if due.box_ids else []
        for box_id in free:
            if (said := due.good.get(box_id)) is not None:
                await proving.record_model_call(
                    session, box_id, generation=said[0] or None, asked_at=said[1]
                )
            if (failed_at := due.failed.get(box_id)) is not None:
                await proving.record_model_failure(session, box_id, asked_at=failed_at)
        if due.by:
            await troubles.note_answers(session, due.by)
    return set(free)
