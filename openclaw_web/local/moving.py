"""Moving the clocks of a stack that runs: the worker does the work, we wait until it is done."""

import asyncio
import math
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations import loopback, redis
from openclaw_web.jobs import service as jobs
from openclaw_web.local import due, quiet
from openclaw_web.local.dev_services import DevServices
from openclaw_web.local.hops import Due, counted

CLOCK_PATH = "/_control/clock"
PATIENCE_SECONDS = 180.0  # for one hop, and only while something goes on:
STALLED_SECONDS = 15.0
STALLED_JOB_SECONDS = 45.0  # a box that starts takes up to 40 on a busy machine
STUCK_SECONDS = 2.0  # what was given up at the stop before
ANSWER_SECONDS = 40.0  # a worker that lives turns its timers by itself within 30
LOOK_SECONDS = 0.05
MOST_TURNS = 5  # the timers carry out what a sync of the turn before decided
QUIET_LOOKS = 2  # what a sync did at Stripe may come back as an event

_DONE = sa.text("""
SELECT 'audit' AS kind, action AS name, count(*) AS count FROM audit_logs
WHERE seq > :audits GROUP BY action
UNION ALL SELECT 'mail', kind, count(*) FROM email_outbox GROUP BY kind
""")
_AUDITS = sa.text("SELECT coalesce(max(seq), 0) FROM audit_logs")
_BOXES_DUE = sa.text("""
SELECT EXISTS (SELECT FROM boxes AS box
               WHERE status NOT IN ('destroying', 'destroyed') AND delete_after <= :now
               AND NOT EXISTS (SELECT FROM holds AS hold WHERE hold.customer_id = box.customer_id
                               AND hold.released_at IS NULL))
""")


class Running:
    """A stack with its worker; database and Redis are open in this process."""

    def __init__(self, found: DevServices, *, by: str) -> None:
        self._stripe = found.addresses["stripe"] + CLOCK_PATH
        self._token = found.token
        self._by = by
        self._newest = 0
        self._audits = 0
        self._mails: dict[str, int] = {}
        self._stuck: quiet.UnderWay | None = None  # what was given up, and waits on

    async def begin(self) -> None:
        """Remember what has happened so far."""
        await self._what_happened()

    async def now(self) -> datetime:
        async with session_scope() as session:
            return await business_now(session)

    async def next_due(self, after: datetime) -> Due | None:
        async with session_scope() as session:
            ours = await due.next_date(session, after)
        moment = (await self._look_at_stripe())["next_due_at"]
        if moment is None:
            return ours
        at_stripe = max(datetime.fromtimestamp(moment, UTC), after)
        if ours is None or at_stripe < ours.moment:
            return Due(moment=at_stripe, what=())
        return ours

    async def go_to(self, moment: datetime) -> None:
        """Move our clock, then Stripe's: what it tells us, we hear in its own time."""
        async with session_scope() as session:
            ahead = (moment - await business_now(session)).total_seconds()
            if ahead > 0:
                await advance_clock(session, ahead, by=self._by)
        until = {"until": math.ceil(moment.timestamp())}
        await loopback.control(f"{self._stripe}/advance", self._token, until)

    async def settle(self) -> tuple[Collection[str], Collection[str]]:
        """Wait for what Stripe told us, have the timers turned, and wait for what they asked for.

        The timers come second: a customer whom an event told us about needs no second look.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        silent: set[str] = set()
        under_way = await self._wait_until_quiet(deadline)
        for _ in range(MOST_TURNS):
            silent |= {bell for bell in await self._bells() if not await _turned(bell)}
            under_way = await self._wait_until_quiet(deadline)
            if silent or not (under_way.reversals or await self._has_boxes_due()):
                break  # a box goes at the second sweep: at the first one Stripe is asked
        left = [f"No worker turned the {bell} when asked; is one running?" for bell in silent]
        return await self._what_happened(), [*left, *under_way.sentences()]

    async def _bells(self) -> list[str]:
        is_due = await self._has_boxes_due()
        return [jobs.TIMER_BELL, jobs.SWEEP_BELL] if is_due else [jobs.TIMER_BELL]

    async def _has_boxes_due(self) -> bool:
        async with session_scope() as session:
            now = await business_now(session)
            return bool(await (await session.connection()).scalar(_BOXES_DUE, {"now": now}))

    async def _wait_until_quiet(self, deadline: float) -> quiet.UnderWay:
        """Wait until nothing is under way, but not for what stands still, and for that once."""
        looks, before, changed_at = 0, None, time.monotonic()
        while True:
            deliveries = (await self._look_at_stripe())["deliveries_waiting"]
            async with session_scope() as session:
                seen = await quiet.look(session, deliveries=deliveries)
            now = time.monotonic()
            if seen != before:
                before, changed_at = seen, now
            looks = looks + 1 if seen.is_quiet else 0
            if looks >= QUIET_LOOKS:
                return seen
            if now > min(deadline, changed_at + self._patience(seen)):
                self._stuck = seen
                return seen
            await asyncio.sleep(0 if seen.is_quiet else LOOK_SECONDS)

    def _patience(self, seen: quiet.UnderWay) -> float:
        if seen == self._stuck:
            return STUCK_SECONDS
        return STALLED_JOB_SECONDS if seen.jobs else STALLED_SECONDS

    async def _look_at_stripe(self, since: int = 0) -> Mapping[str, Any]:
        return await loopback.look(f"{self._stripe}?since={since}", self._token)

    async def _what_happened(self) -> list[str]:
        """Return what Stripe, the audit trail and the outbox say since the last call."""
        stripe = await self._look_at_stripe(self._newest)
        self._newest = stripe["newest"]
        async with session_scope() as session:
            connection = await session.connection()
            rows = (await connection.execute(_DONE, {"audits": self._audits})).all()
            self._audits = await connection.scalar(_AUDITS) or 0
        acts = {name: count for kind, name, count in rows if kind == "audit"}
        mails = {name: count for kind, name, count in rows if kind == "mail"}
        sent = {
            name: count - self._mails.get(name, 0)
            for name, count in mails.items()
            if count > self._mails.get(name, 0)
        }
        self._mails = mails
        said = {"Stripe": stripe["events"], "here": acts, "mails": sent}
        return [f"{where}: {counted(what)}" for where, what in said.items() if what]


async def _turned(bell: str) -> bool:
    """Ask a worker to turn its timers now, and wait for its answer."""
    note = uuid4().hex
    await redis.ring(bell, note)
    deadline = time.monotonic() + ANSWER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if await redis.wait_for_bell(jobs.answer_of(bell), timeout_seconds=left) == note:
            return True
    return False
