"""Test clocks: a customer's own time, which only `advance` moves.

What belongs to such a customer carries the clock's id, lives on the clock's own timeline, and
happens at the clock's moment. The global clock, real time plus an offset, passes it by.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from simulators.stripe import events, lifecycle
from simulators.stripe.anchors import period_end
from simulators.stripe.clock import DAY
from simulators.stripe.errors import invalid, missing
from simulators.stripe.paging import LIST_PARAMS, answer
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World

KIND = "test_helpers.test_clock"
LIFE_SECONDS = 30 * DAY  # Stripe deletes a clock then
MOST_CLOCKS = 100
INTERVALS_AT_ONCE = 2
LONGEST_IDLE_SECONDS = 2 * 366 * DAY  # a clock without subscriptions: two years
READY, ADVANCING = "ready", "advancing"
REFERENCES = ("customer", "subscription", "invoice", "charge", "payment_intent", "payment_method")


def create(world: World, params: Params) -> Json:
    if sum(1 for one in world.store.every(KIND) if not one.get("deleted")) >= MOST_CLOCKS:
        raise invalid(f"You can have at most {MOST_CLOCKS} test clocks.")
    clock: Json = {
        "id": new_id("clock"),
        "object": KIND,
        "created": world.wall(),
        "deletes_after": world.wall() + LIFE_SECONDS,
        "frozen_time": params["frozen_time"],
        "livemode": False,
        "name": params.get("name"),
        "status": READY,
        "status_details": {},
    }
    return events.created(world, "test_helpers.test_clock.created", clock)


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return _need(world, identifier)


def list_clocks(world: World, params: Params) -> Json:
    shelf = world.store.every(KIND)
    return answer("/v1/test_helpers/test_clocks", params, shelf, lambda one: not one.get("deleted"))


def advance(world: World, params: Params, identifier: str) -> Json:
    """Say where the clock shall go; `schedule` takes it there, event by event."""
    clock = _need(world, identifier)
    target = params["frozen_time"]
    if clock["status"] == ADVANCING:
        raise invalid("Test clock advancement underway - cannot perform modifications.")
    if target <= clock["frozen_time"]:
        raise invalid(
            "The `frozen_time` must be after the test clock's current frozen time.", "frozen_time"
        )
    if target > _furthest(world, clock):
        raise invalid(
            "The `frozen_time` cannot be more than two intervals in the future from the shortest"
            " subscription in this test clock, or two years without any.",
            "frozen_time",
        )
    going = {
        **clock,
        "status": ADVANCING,
        "status_details": {"advancing": {"target_frozen_time": target}},
    }
    world.store.put(going)
    events.record(world, "test_helpers.test_clock.advancing", going)
    world.hurry()
    return going


def arrive(world: World, clock: Json) -> None:
    """Say that the clock is where it was told to go, and all is done that was due until then."""
    target = clock["status_details"]["advancing"]["target_frozen_time"]
    there = {**clock, "frozen_time": target, "status": READY, "status_details": {}}
    world.store.put(there)
    events.record(world, "test_helpers.test_clock.ready", there)


def delete(world: World, _params: Params, identifier: str) -> Json:
    """Forget a clock, and with it everybody who lives on it."""
    clock = _need(world, identifier)
    with world.clock.frozen_at(clock["frozen_time"]):
        for customer in list(customers_on(world, identifier)):
            forget(world, customer)
    gone = {"id": identifier, "object": KIND, "deleted": True}
    world.store.put(gone)
    events.record(world, "test_helpers.test_clock.deleted", clock)
    return gone


def forget(world: World, customer: Json) -> None:
    for subscription in list(lifecycle.of_customer(world, customer["id"])):
        lifecycle.end(world, subscription)
    world.store.put({"id": customer["id"], "object": "customer", "deleted": True})
    events.record(world, "customer.deleted", customer)


def customers_on(world: World, clock: str) -> Iterator[Json]:
    for customer in world.store.every("customer"):
        if customer.get("test_clock") == clock:
            yield customer


def attached(world: World, params: Params) -> Json | None:
    """Return the clock that a new customer shall live on."""
    if "test_clock" not in params:
        return None
    clock = world.refer(KIND, params["test_clock"], "test_clock")
    refuse_while_advancing(clock)
    return clock


def of_request(world: World, params: Params, identifiers: Iterable[str]) -> Json | None:
    """Return the test clock of whoever a request is about; None when that is nobody's."""
    if next(iter(world.store.every(KIND)), None) is None:
        return None
    named: list[Any] = [*identifiers, *(params.get(name) for name in REFERENCES)]
    for identifier in named:
        found = world.store.get(identifier) if isinstance(identifier, str) else None
        clock = of(world, found) if found else None
        if clock:
            return clock
    return None


def of(world: World, subject: Json) -> Json | None:
    """Return the test clock that an object belongs to, by itself or through its customer."""
    if subject["object"] == KIND:
        return None
    identifier = subject.get("test_clock")
    owner = subject.get("customer")
    if identifier is None and isinstance(owner, str):
        identifier = (world.store.get(owner, "customer") or {}).get("test_clock")
    clock = world.store.get(identifier, KIND) if identifier else None
    return None if clock is None or clock.get("deleted") else clock


@contextmanager
def time_of(world: World, clock: Json | None) -> Generator[None]:
    """Let what happens inside happen at a test clock's moment; without one nothing changes."""
    with world.clock.frozen_at(clock["frozen_time"] if clock else None):
        yield


def refuse_while_advancing(clock: Json | None) -> None:
    if clock and clock["status"] == ADVANCING:
        raise invalid("Test clock advancement underway - cannot perform modifications.")


def _need(world: World, identifier: str) -> Json:
    clock = world.need(KIND, identifier)
    if clock.get("deleted"):
        raise missing("test clock", identifier)
    return clock


def _furthest(world: World, clock: Json) -> int:
    """Return the latest moment that the clock may be moved to at once."""
    moments = [clock["frozen_time"] + LONGEST_IDLE_SECONDS]
    for customer in customers_on(world, clock["id"]):
        for subscription in world.store.every("subscription", customer["id"]):
            if subscription["ended_at"] is not None:
                continue
            item = subscription["items"]["data"][0]
            recurring = item["price"]["recurring"]
            moments.append(
                period_end(
                    clock["frozen_time"],
                    clock["frozen_time"],
                    recurring["interval"],
                    INTERVALS_AT_ONCE * recurring["interval_count"],
                )
            )
    return min(moments)


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/test_helpers/test_clocks",
        run=create,
        supports="frozen_time name expand",
    ),
    Operation(
        method="GET",
        path="/v1/test_helpers/test_clocks",
        run=list_clocks,
        supports=LIST_PARAMS,
    ),
    Operation(
        method="GET", path="/v1/test_helpers/test_clocks/{}", run=retrieve, supports="expand"
    ),
    Operation(
        method="POST",
        path="/v1/test_helpers/test_clocks/{}/advance",
        run=advance,
        supports="frozen_time expand",
    ),
    Operation(method="DELETE", path="/v1/test_helpers/test_clocks/{}", run=delete),
)
