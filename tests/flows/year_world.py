"""A year in a few minutes: our own workers in this process, Stripe's simulator, moved clocks.

Everything between Stripe and our tables is real: signed webhooks over HTTP, stored and applied, the
sync, the timers, the reversals, the meter. Only the cluster is not there: `operate` says of a box
what the operator would have made of it.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock

import httpx
import uvicorn
from fastapi import FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web import worker
from openclaw_web.billing import invariants, queries, revenue, webhooks
from openclaw_web.billing import service as billing
from openclaw_web.billing.invariants import Finding
from openclaw_web.boxes import health, service
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.changes import ChangeKind, change_of
from openclaw_web.boxes.desired import Desired, Why
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations import payment_books, payment_client, payments
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import JobType
from openclaw_web.local import due, quiet
from openclaw_web.local.hops import Due
from openclaw_web.metering import checking
from openclaw_web.workflows import provisioning, stripe_events, subscription
from tests.contracts.simulator_process import TOKEN, free_port

KEY = "sk_test_0123456789abcdef"
OPERATOR = "the year's operator"
SYNCS_AT_ONCE = 8
MOST_ROUNDS = 30
NEVER = timedelta(days=4_000)
SECONDS_TO_DELIVER = 30.0


class NotQuietError(AssertionError):
    """Something does not come to its end though nobody does anything any more."""


class World:
    """The clocks and the queues; `people` have plans of their own."""

    def __init__(self, stripe: httpx.AsyncClient, people: "People") -> None:
        self._stripe = stripe
        self._people = people
        self.hops = self.syncs = self.webhooks = 0

    async def now(self) -> datetime:
        async with session_scope() as session:
            return await business_now(session)

    async def next_due(self, after: datetime) -> Due | None:
        async with session_scope() as session:
            ours = await due.next_date(session, after)
        moments = [self._people.next_plan(after), ours.moment if ours else None]
        at_stripe = (await self.clock())["next_due_at"]
        if at_stripe is not None:
            moments.append(max(datetime.fromtimestamp(at_stripe, UTC), after))
        known = [one for one in moments if one is not None]
        return Due(moment=min(known), what=()) if known else None

    async def go_to(self, moment: datetime) -> None:
        self.hops += 1
        async with session_scope() as session:
            ahead = (moment - await business_now(session)).total_seconds()
            await advance_clock(session, max(0.0, ahead), by="the year")
        until = {"until": math.ceil(moment.timestamp())}
        answer = await self._stripe.post("/_control/clock/advance", json=until)
        assert answer.is_success, answer.text

    async def settle(self) -> tuple[Collection[str], Collection[str]]:
        left = await self._settle()
        if await self._people.act(await self.now()):
            left = await self._settle()
        return (), left.sentences()

    async def clock(self) -> dict[str, int]:
        return (await self._stripe.get("/_control/clock")).json()

    async def _settle(self) -> quiet.UnderWay:
        """Do what the worker's loops do, until nothing is left to do."""
        left = await self._work(await self._under_way())
        for _ in range(MOST_ROUNDS):
            await worker.turn_timers()
            await ask_for_deletions()
            asked = await self._under_way()
            left = await self._work(asked)
            if asked.is_quiet and not left.reversals:
                return left
        raise NotQuietError(left.sentences())

    async def _work(self, left: quiet.UnderWay) -> quiet.UnderWay:
        """Empty the queues, and return what rests in them nevertheless."""
        for _ in range(MOST_ROUNDS):
            if left.is_quiet:
                return left
            if left.deliveries:
                await self._wait_for_deliveries()
            if left.deliveries or left.events:
                while applied := await stripe_events.apply_webhook_events():
                    self.webhooks += applied
            await self._sync()
            await operate()
            left = await self._under_way()
        raise NotQuietError(left.sentences())

    async def _sync(self) -> None:
        while waiting := await subscription.due_syncs(limit=SYNCS_AT_ONCE):
            await asyncio.gather(*(subscription.sync(customer_id) for customer_id in waiting))
            self.syncs += len(waiting)

    async def _wait_for_deliveries(self) -> None:
        async with asyncio.timeout(SECONDS_TO_DELIVER):
            while (await self.clock())["deliveries_waiting"]:  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.005)

    async def _under_way(self) -> quiet.UnderWay:
        deliveries = (await self.clock())["deliveries_waiting"]
        async with session_scope() as session:
            return await quiet.look(session, deliveries=deliveries)


class People:
    """Those who have plans; a world without any is one in which only time passes."""

    def next_plan(self, after: datetime) -> datetime | None:  # noqa: ARG002 - nobody has one
        """Return when somebody does something next."""
        return None

    async def act(self, now: datetime) -> int:  # noqa: ARG002 - nobody does anything
        """Do what is planned until now, and return how much that was."""
        return 0


async def ask_for_deletions() -> None:
    """Ask for what the sweep asks for when a date has passed."""
    async with session_scope() as session:
        late = await session.exec(
            select(Box).where(
                col(Box.destroyed_at).is_(None),
                col(Box.delete_after) <= await business_now(session),
            )
        )
        for box in late.all():
            if (await boxes.desired_of(session, box))[0] is Desired.DESTROYED:
                await service.request_converge(
                    session, box, job_type=JobType.DESTROY, requested_by="reconciler"
                )


async def operate() -> None:
    """Be the operator: bring each box with a job where it belongs."""
    while await _do_a_job():
        continue


async def _do_a_job() -> bool:
    async with session_scope() as session:
        claimed = await leases.claim_job(session, owner=OPERATOR)
        if claimed is None or claimed.job.box_id is None:
            return False
        box = await boxes.get_any_box(session, claimed.job.box_id, lock=True)
        now = await business_now(session)
        desired, why = await boxes.desired_of(session, box)
        kind = None
        if box.status is not BoxStatus.DESTROYED:
            kind = await _bring(session, box, desired, why, now)
        if kind is not None:
            await provisioning.box_changed(session, change_of(box, kind))
        await leases.finish_job(session, claimed.fence)
    return True


async def _bring(
    session: AsyncSession, box: Box, desired: Desired, why: Why, now: datetime
) -> ChangeKind | None:
    """Move a box as `boxes/tasks.py` does, without a cluster."""
    if desired is Desired.ACTIVE:
        if box.status is BoxStatus.ACTIVE:
            return None
        is_first = box.activated_at is None
        on_the_way = BoxStatus.PROVISIONING if box.status is BoxStatus.PENDING else None
        on_the_way = BoxStatus.UPDATING if box.status is BoxStatus.SUSPENDED else on_the_way
        for status in (on_the_way, BoxStatus.ACTIVE):
            if status is not None:
                move(box, status, now=now)
        box.activated_at = box.activated_at or now
        kind = ChangeKind.LIVE if is_first else ChangeKind.REACTIVATED
    elif desired is Desired.SUSPENDED:
        has_moved = move(box, BoxStatus.SUSPENDED, now=now, reason=why.value)
        kind = ChangeKind.SUSPENDED if has_moved else None
    else:
        move(box, BoxStatus.DESTROYING, now=now, reason=why.value)
        move(box, BoxStatus.DESTROYED, now=now, reason=why.value)
        await health.wipe(session, box)
        kind = ChangeKind.DESTROYED
    session.add(box)
    await session.flush()
    return kind


async def findings(*, meters_of: Sequence = (), has_books: bool = False) -> list[str]:
    """Return what is wrong: money at each stop, meters and Stripe's books now and then."""
    async with session_scope() as session:
        now = await business_now(session)
        found: list[Finding] = await invariants.check(session, now)
        wrong = [
            f"{one.invariant} {one.customer_id} {one.subject}: {one.sentence}" for one in found
        ]
        for customer_id in meters_of:
            checked = await checking.check(session, customer_id, now, is_thorough=True)
            wrong += [f"{one.invariant} {one.subject}: {one.sentence}" for one in checked.findings]
    if has_books:
        theirs = await payment_books.paid_invoices()
        running = await payment_books.running_subscriptions()
        async with session_scope() as session:
            ours = await revenue.booked_here(session)
        books = invariants.judge_books(ours, theirs) + invariants.judge_running(running)
        wrong += [f"{one.invariant} {one.subject}: {one.sentence}" for one in books]
    return wrong


@asynccontextmanager
async def opened(stripe_url: str) -> AsyncGenerator[httpx.AsyncClient]:
    """Connect this process with the simulator, both ways; database and Redis are open."""
    async with AsyncExitStack() as stack:
        payment_client.open_payments(KEY, stripe_url)
        stack.push_async_callback(payment_client.close_payments)
        await billing.publish_catalogue()
        port = free_port()
        secret = await payments.ensure_webhook_endpoint(f"http://127.0.0.1:{port}/webhooks/stripe")
        chosen = replace(settings(), stripe_webhook_secret=secret, stripe_secret_key=KEY)
        for module in (webhooks, payments):
            stack.enter_context(mock.patch.object(module, "settings", return_value=chosen))
        # The daily comparison of everybody would hide an event that was not acted on.
        stack.enter_context(mock.patch.object(queries, "COMPARE_AFTER", NEVER))
        app = FastAPI()
        app.include_router(webhooks.router)
        server = uvicorn.Server(
            uvicorn.Config(app, port=port, log_config=None, lifespan="off", ws="none")
        )
        running = asyncio.create_task(server.serve())
        stack.push_async_callback(_stop, server, running)
        yield await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=stripe_url,
                headers={"x-simulator-token": TOKEN},
                trust_env=False,
                timeout=60,
            )
        )


async def _stop(server: uvicorn.Server, running: asyncio.Task[None]) -> None:
    server.should_exit = True
    await running


LEAP_JANUARY = datetime(2028, 1, 20, 9, tzinfo=UTC)
GRAIN = timedelta(minutes=30)  # less than the hour after which Stripe finalises a draft
