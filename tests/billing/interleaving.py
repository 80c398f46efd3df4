"""Two workers that sync one customer, stopped at every await, so that a test chooses who goes on.

The database is a real one, so is `workflows.subscription`; Stripe is `stripe_model`. A worker that
waits for a row that the other has locked counts as stopped, too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.billing import entitlement, leases, queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import (
    Adjustment,
    BillingSync,
    Checkout,
    CheckoutStatus,
    Hold,
    Subscription,
    SubscriptionStatus,
    Tier,
)
from openclaw_web.boxes.models import Box
from openclaw_web.core.database import engine, session_scope
from openclaw_web.core.switches import PlatformSetting
from openclaw_web.integrations import payment_reversals, payments
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription
from openclaw_web.integrations.payment_reversals import StripeCharge
from openclaw_web.jobs import inbox
from openclaw_web.jobs.inbox import Received
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.workflows import stripe_events
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import finish_the_chat
from tests.billing.stripe_model import StripeModel

WORKER: ContextVar[str] = ContextVar("WORKER", default="")
ON_PURPOSE = ("hold", "release", "give_tokens", "give_grace")
MOST_LOOKS = 5_000
MOST_TURNS = 20


Sync = Callable[[UUID], Awaitable[None]]


@dataclass
class World:
    """One customer: what is true at Stripe, what we have, and the workers between the two."""

    customer_id: UUID
    stripe: StripeModel
    sync: Sync
    is_open: bool = False
    gates: dict[tuple[str, str], asyncio.Future[None]] = field(default_factory=dict)
    workers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    undelivered: list[str] = field(default_factory=list)
    has_lost_one: bool = False
    broken: list[IntegrityError] = field(default_factory=list)

    async def do(self, happening: str) -> None:
        """Let something happen, at Stripe or by an admin; nobody of ours hears of it yet."""
        if happening in ON_PURPOSE:
            await getattr(self, happening)()
            await self.ask()
            return
        before = len(self.stripe.events)
        self.stripe.do(happening)
        self.undelivered += self.stripe.events[before:]

    async def hold(self) -> None:
        async with session_scope() as session:
            if not await queries.open_holds(session, self.customer_id):
                held = Hold(customer_id=self.customer_id, kind="abuse", reason="A test.")
                session.add(held)

    async def release(self) -> None:
        async with session_scope() as session:
            for held in await queries.open_holds(session, self.customer_id):
                held.released_at = self.stripe.now
                session.add(held)

    async def give_tokens(self) -> None:
        await self._give("tokens", 1_000_000)

    async def give_grace(self) -> None:
        await self._give("grace", 3)

    async def _give(self, kind: str, amount: int) -> None:
        async with session_scope() as session:
            given = Adjustment(
                customer_id=self.customer_id,
                kind=kind,
                amount=amount,
                reason="A test.",
                created_by="test",
            )
            session.add(given)

    async def ask(self) -> None:
        async with session_scope() as session:
            await billing.request_sync(session, self.customer_id)

    async def deliver(self, at: int, *, twice: bool = False) -> None:
        """Have one of the undelivered events stored, and applied, as the webhook's inbox does."""
        if not self.undelivered:
            return
        event_type = self.undelivered.pop(at % len(self.undelivered))
        if twice:
            self.undelivered.append(event_type)
        async with session_scope() as session:
            await inbox.keep(
                session,
                [
                    Received(
                        provider="stripe",
                        event_id=f"evt_{uuid4().hex}",
                        event_type=event_type,
                        payload={"data": {"object": {"customer": self.stripe.customer}}},
                    )
                ],
            )
        await stripe_events.apply_webhook_events()

    async def deliver_and_keep(self, at: int) -> None:
        """Have an event delivered that will come once more."""
        await self.deliver(at, twice=True)

    async def lose(self, at: int) -> None:
        if self.undelivered:
            self.undelivered.pop(at % len(self.undelivered))
            self.has_lost_one = True

    async def expire_lease(self, _at: int = 0) -> None:
        """Let the lease run out under whoever has it; nobody who is stopped has locked its row."""
        async with session_scope() as session:
            await session.exec(
                sa.update(BillingSync)
                .where(col(BillingSync.customer_id) == self.customer_id)
                .values(lease_until=leases.REAL_NOW - leases.LEASE)
            )

    async def start_one(self, _at: int = 0) -> None:
        await self._start("one")

    async def start_two(self, _at: int = 0) -> None:
        await self._start("two")

    async def _start(self, name: str) -> None:
        if name in self.workers:
            return

        async def work() -> None:
            WORKER.set(name)
            await self._sync()

        self.workers[name] = asyncio.create_task(work())
        await self.come_to_rest()

    async def _sync(self) -> None:
        """Sync as the worker does: one that breaks is tried again."""
        try:
            await self.sync(self.customer_id)
        except IntegrityError as error:
            self.broken.append(error)

    async def go_on(self, at: int) -> None:
        """Let one of those who are stopped go on to the next stop."""
        if self.gates:
            keys = sorted(self.gates)
            self.gates.pop(keys[at % len(keys)]).set_result(None)
            await self.come_to_rest()

    async def gate(self, name: str) -> None:
        worker = WORKER.get()
        if worker and not self.is_open:
            stopped = self.gates[worker, name] = asyncio.get_running_loop().create_future()
            await stopped

    async def come_to_rest(self) -> None:
        """Wait until each worker is done, stopped, or waits for a row of the other."""
        for _ in range(MOST_LOOKS):
            await asyncio.sleep(0)
            for name in [name for name, task in self.workers.items() if task.done()]:
                self.workers.pop(name).result()
            stopped = {worker for worker, _ in self.gates}
            at_work = set(self.workers) - stopped
            if not at_work or (stopped and await _count_blocked() == len(at_work)):
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"Still at work: {self.workers}, stopped: {self.gates}")

    async def settle(self) -> None:
        """Deliver everything, let everybody finish, and serve who waits: timers and all."""
        self.is_open = True
        while self.gates:
            self.gates.popitem()[1].set_result(None)
        await asyncio.gather(*self.workers.values())
        self.workers.clear()
        while self.undelivered:
            await self.deliver(0)
        if self.has_lost_one:
            await self.ask()  # the daily comparison
        await workflow.request_overdue_syncs()
        await self.serve()

    async def serve(self) -> None:
        """Do what workers do with customers who wait."""
        for _ in range(MOST_TURNS):
            async with session_scope() as session:
                row = await queries.find_sync(session, self.customer_id)
                if row is None or row.requested_seq <= row.synced_seq:
                    return
                row.lease_until = None
                session.add(row)
            await self._sync()
        raise AssertionError("Somebody waits for ever.")


async def _count_blocked() -> int:
    async with engine().connect() as connection:
        waiting = sa.text("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
        return (await connection.execute(waiting)).scalar_one()


class Stage:
    """Where worlds are played, one after the other: our awaits lead to the one that is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world: World | None = None
        self.finish = leases.finish
        self.take = leases.take
        monkeypatch.setattr(leases, "take", self._take)
        monkeypatch.setattr(leases, "finish", self._finish)
        monkeypatch.setattr(workflow, "business_now", self._now)
        monkeypatch.setattr(payments, "subscriptions_of", self._subscriptions_of)
        monkeypatch.setattr(payments, "invoices_of", self._invoices_of)
        monkeypatch.setattr(payments, "is_customer_deleted", self._is_customer_deleted)
        monkeypatch.setattr(payment_reversals, "charges_of", self._charges_of)

    @property
    def on(self) -> World:
        assert self.world is not None
        return self.world

    async def enter(self, *, sync: Sync) -> World:
        """Bring on somebody whose chat is paid in a moment, with a Stripe of their own."""
        await _forget_the_last()
        customer, chat = await finish_the_chat()
        stripe = StripeModel(customer=f"cus_{uuid4().hex[:8]}")
        async with session_scope() as session:
            checkout = Checkout(
                customer_id=customer.id,
                onboarding_session_id=chat.id,
                tier=Tier.PRO,
                idempotency_key=uuid4().hex,
                status=CheckoutStatus.COMPLETE,
                expires_at=stripe.now,
                paid_at=stripe.now,
                delivered_at=stripe.now,
            )
            session.add(checkout)
            owner = await session.get_one(Customer, customer.id)
            owner.stripe_customer_id = stripe.customer
            session.add(owner)
        stripe.checkout_id = str(checkout.id)
        self.world = World(customer_id=customer.id, stripe=stripe, sync=sync)
        return self.world

    async def _take(self, session: AsyncSession, customer_id: UUID, *, owner: str) -> int | None:
        await self.on.gate("take")
        return await self.take(session, customer_id, owner=owner)

    async def _finish(self, session: AsyncSession, customer_id: UUID, **fields: Any) -> bool:
        await self.on.gate("finish")  # everything is written and nothing committed
        return await self.finish(session, customer_id, **fields)

    async def _subscriptions_of(self, _customer: str) -> tuple[StripeSubscription, ...]:
        await self.on.gate("ask for subscriptions")
        found = tuple(self.on.stripe.subscriptions)
        await self.on.gate("got subscriptions")
        return found

    async def _invoices_of(self, _customer: str) -> tuple[StripeInvoice, ...]:
        await self.on.gate("ask for invoices")
        found = tuple(reversed(self.on.stripe.invoices))
        await self.on.gate("got invoices")
        return found

    async def _is_customer_deleted(self, _customer: str) -> bool:
        return self.on.stripe.is_deleted

    async def _charges_of(self, _customer: str) -> tuple[StripeCharge, ...]:
        return ()

    async def _now(self, _session: AsyncSession) -> datetime:
        return self.on.stripe.now


async def _forget_the_last() -> None:
    """Take those who were played before out of what the timers and the queue look at."""
    async with session_scope() as session:
        for statement in (
            sa.update(Subscription).values(status=SubscriptionStatus.CANCELLED),
            sa.update(BillingSync).values(synced_seq=BillingSync.requested_seq),
            sa.delete(PlatformSetting),  # the brakes
        ):
            await session.exec(statement)


async def outcome(world: World) -> dict[str, Any]:
    """Return what a customer has, as far as it must not depend on when we looked.

    An end that we only saw as an end leaves nothing, or a row that ended: both are nothing.
    """
    async with session_scope() as session:
        row = await queries.find_subscription(session, world.customer_id)
        boxes = await session.exec(select(Box).where(Box.customer_id == world.customer_id))
        found = await session.exec(
            select(UsageMonthly)
            .where(UsageMonthly.customer_id == world.customer_id)
            .order_by(col(UsageMonthly.period_start))
        )
        box, periods = boxes.one_or_none(), found.all()
    assert all(early.period_end <= late.period_start for early, late in pairwise(periods))
    if row is None or row.status is SubscriptionStatus.CANCELLED:
        return {"status": "none"}
    said = {name: getattr(row, name) for name in COLUMNS}
    if row.status not in entitlement.SERVED:
        return said
    assert box is not None
    (current,) = [one for one in periods if one.period_start == row.current_period_start]
    return said | {
        "box": (box.delete_after, box.subscription_id == row.id),
        "period": (current.period_end, current.tokens_limit, current.is_provisional),
    }


COLUMNS = (
    "stripe_status", "status", "tier", "tokens_limit", "current_period_start",
    "current_period_end", "cancel_at_period_end", "past_due_since", "grace_until", "pending_tier",
)  # fmt: skip
