"""What time does by itself: sessions expire, periods turn, drafts are finalised, cards retried."""

import asyncio
from collections.abc import Callable

from simulators.stripe import checkout, lifecycle
from simulators.stripe.store import Json
from simulators.stripe.world import World

TICK_SECONDS = 1.0
TURNING = frozenset({"active", "trialing", "past_due", "unpaid"})


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


def _subscription_due(subscription: Json) -> int | None:
    if subscription["status"] == "incomplete":
        return subscription["created"] + lifecycle.INCOMPLETE_SECONDS
    if subscription["status"] not in TURNING:
        return None
    turn = lifecycle.items_of(subscription)[0]["current_period_end"]
    pending = subscription["pending_update"]
    return min(turn, pending["expires_at"]) if pending else turn


def _subscription_step(world: World, subscription: Json) -> None:
    pending = subscription["pending_update"]
    is_waiting_over = pending is not None and pending["expires_at"] <= world.now()
    if subscription["status"] == "incomplete" or is_waiting_over:
        lifecycle.expire(world, subscription)
    else:
        lifecycle.turn(world, subscription)


RULES: dict[str, Callable[[Json], int | None]] = {
    "checkout.session": _session_due,
    "invoice": _invoice_due,
    "subscription": _subscription_due,
}
STEPS: dict[str, Callable[[World, Json], object]] = {
    "checkout.session": checkout.expire,
    "invoice": lifecycle.advance_invoice,
    "subscription": _subscription_step,
}


def next_due_at(world: World) -> int | None:
    due = world.store.next_due()
    return due[0] if due else None


def step(world: World, until: int) -> bool:
    """Do the earliest thing that is due by a moment, at its own time; False if there is none."""
    due = world.store.next_due()
    if due is None or due[0] > until:
        return False
    moment, subject = due
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
        await _catch_up(world, world.now())
        await asyncio.sleep(TICK_SECONDS)


async def _catch_up(world: World, until: int) -> int:
    steps = 0
    while step(world, until):
        steps += 1
        await asyncio.sleep(0)  # let requests be answered in between
    return steps
