"""What time does by itself: sessions expire, periods turn, drafts are finalised, cards retried."""

import asyncio
from collections.abc import Callable

from simulators.stripe import checkout, clocks, disputes, events, lifecycle, shapes
from simulators.stripe.store import GLOBAL, Json
from simulators.stripe.world import World

TICK_SECONDS = 1.0
TURNING = frozenset({"active", "trialing", "past_due", "unpaid"})

Step = Callable[[World, Json], object]


def due_at(stored: Json) -> int | None:
    """Return the moment at which an object changes by itself."""
    rule = RULES.get(stored["object"])
    return rule(stored) if rule and not stored.get("deleted") else None


def _session_due(session: Json) -> int | None:
    return session["expires_at"] if session["status"] == "open" else None


def _invoice_due(invoice: Json) -> int | None:
    waits_for = {"draft": "automatically_finalizes_at", "open": "next_payment_attempt"}
    field = waits_for.get(invoice["status"])
    return invoice[field] if field else None


def _dispute_due(dispute: Json) -> int | None:
    return dispute["evidence_details"]["due_by"] if dispute["status"] == "needs_response" else None


def _subscription_due(subscription: Json) -> int | None:
    return min((moment for moment, _ in _agenda(subscription)), default=None)


def _agenda(subscription: Json) -> list[tuple[int, Step]]:
    """Return what will happen to a subscription, and when; what ends it comes first."""
    if subscription["status"] == "incomplete":
        return [(subscription["created"] + lifecycle.INCOMPLETE_SECONDS, lifecycle.expire)]
    if subscription["status"] not in TURNING:
        return []
    agenda: list[tuple[int, Step]] = []
    pending, pause = subscription["pending_update"], subscription["pause_collection"]
    if subscription["cancel_at"] is not None:
        agenda.append((subscription["cancel_at"], lifecycle.end))
    if pending:
        agenda.append((pending["expires_at"], lifecycle.expire))
    if pause and pause["resumes_at"]:
        agenda.append((pause["resumes_at"], _collect_again))
    if subscription["status"] == "trialing" and not subscription.get("_is_warned"):
        warning = subscription["trial_end"] - lifecycle.TRIAL_WARNING_SECONDS
        agenda.append((warning, lifecycle.warn_of_trial_end))
    agenda.append((shapes.period_of(subscription)[1], lifecycle.turn))
    return agenda


def _subscription_step(world: World, subscription: Json) -> None:
    _, happen = min(_agenda(subscription), key=lambda entry: entry[0])
    happen(world, subscription)


def _collect_again(world: World, subscription: Json) -> None:
    after = {**subscription, "pause_collection": None}
    events.changed(world, lifecycle.UPDATED, subscription, after)


RULES: dict[str, Callable[[Json], int | None]] = {
    "checkout.session": _session_due,
    "invoice": _invoice_due,
    "subscription": _subscription_due,
    "dispute": _dispute_due,
}
STEPS: dict[str, Step] = {
    "checkout.session": checkout.expire,
    "invoice": lifecycle.advance_invoice,
    "subscription": _subscription_step,
    "dispute": disputes.overdue,
}


def next_due_at(world: World) -> int | None:
    due = world.store.next_due()
    return due[0] if due else None


def step(world: World, until: int, clock: str = GLOBAL) -> bool:
    """Do the earliest thing that is due by a moment, at its own time; False if there is none."""
    due = world.store.next_due(clock)
    if due is None or due[0] > until:
        return False
    moment, subject = due
    if clock != GLOBAL:
        with world.store.transaction(), world.clock.frozen_at(moment):
            STEPS[subject["object"]](world, subject)
        return True
    with world.store.transaction(), world.clock.held_at(moment):
        world.clock.move_to(moment)
        STEPS[subject["object"]](world, subject)
    return True


async def advance(world: World, target: int) -> int:
    """Move the clock to a moment, through everything that happens on the way; return how much."""
    steps = await _catch_up(world, target)
    world.clock.move_to(target)
    return steps


async def keep_time(world: World) -> None:
    """Let time pass by itself, for as long as the simulator runs."""
    while True:
        await _catch_up(world, world.wall())
        await asyncio.sleep(TICK_SECONDS)


async def _catch_up(world: World, until: int, clock: str = GLOBAL) -> int:
    steps = 0
    while step(world, until, clock):
        steps += 1
        await asyncio.sleep(0)  # let requests be answered in between
    return steps


class Traveller:
    """The task that takes test clocks to where they were told to go, one after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._called = asyncio.Event()

    def hurry(self) -> None:
        self._called.set()

    async def run(self) -> None:
        while True:
            self._called.clear()
            for clock in list(self._world.store.every(clocks.KIND, parent=clocks.ADVANCING)):
                await self._take(clock)
            await self._called.wait()

    async def _take(self, clock: Json) -> None:
        target = clock["status_details"]["advancing"]["target_frozen_time"]
        await _catch_up(self._world, target, clock["id"])
        with self._world.store.transaction():
            current = self._world.store.get(clock["id"], clocks.KIND)
            if current and not current.get("deleted"):
                clocks.arrive(self._world, current)
