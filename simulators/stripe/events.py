"""Events: what happened, kept in the order in which it happened, and handed to the webhooks."""

import time
from typing import Any

from simulators.stripe import API_VERSION
from simulators.stripe.clock import DAY
from simulators.stripe.errors import missing
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, as_shown, new_id
from simulators.stripe.world import Operation, Params, World

KEPT_SECONDS = 30 * DAY  # Stripe's list of events reaches no further back
DELIVERY_SUCCESS = {True: {"delivered"}, False: {"pending", "failed", "dropped"}}


def record(world: World, kind: str, subject: Json, previous: Json | None = None) -> Json:
    """Remember that something happened, and queue it for every endpoint that listens to it."""
    data: Json = {"object": as_shown(subject)}
    if previous is not None:
        data["previous_attributes"] = previous
    event: Json = {
        "id": new_id("evt"),
        "object": "event",
        "account": None,
        "api_version": API_VERSION,
        "created": world.wall(),
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": world.request_id, "idempotency_key": world.idempotency_key},
        "type": kind,
    }
    listening = [one for one in world.store.every("webhook_endpoint") if listens(one, kind)]
    event["pending_webhooks"] = len(listening)
    world.store.put(event)
    for endpoint in reversed(listening):
        queue(world, event, endpoint["id"])
    return event


def changed(world: World, kind: str, before: Json, after: Json) -> Json:
    """Store an object that changed; the event says what it was, and no change is no event."""
    world.store.put(after)
    previous = _difference(as_shown(before), as_shown(after))
    if previous:
        record(world, kind, after, previous)
    return after


def created(world: World, kind: str, subject: Json) -> Json:
    world.store.put(subject)
    record(world, kind, subject)
    return subject


def queue(world: World, event: Json, endpoint: str) -> None:
    """Have an event delivered to an endpoint as soon as possible."""
    world.store.sql.execute(
        "INSERT INTO deliveries (event, endpoint, type, state, due) VALUES (?, ?, ?, 'pending', ?)",
        (event["id"], endpoint, event["type"], time.time()),
    )
    world.wake()


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    event = world.need("event", identifier)
    if not _is_kept(world, event):
        raise missing("event", identifier)
    return with_pending(world, event)


def _is_kept(world: World, event: Json) -> bool:
    return event["created"] >= world.wall() - KEPT_SECONDS


def with_pending(world: World, event: Json) -> Json:
    row = world.store.sql.execute(
        "SELECT count(DISTINCT endpoint) AS waiting FROM deliveries"
        " WHERE event = ? AND state IN ('pending', 'dropped')",
        (event["id"],),
    ).fetchone()
    return {**event, "pending_webhooks": row["waiting"]}


def list_events(world: World, params: Params) -> Json:
    kinds = set(params.get("types") or ()) | ({params["type"]} if "type" in params else set())

    def wanted(event: Json) -> bool:
        return (
            _is_kept(world, event)
            and (not kinds or any(matches(pattern, event["type"]) for pattern in kinds))
            and within(event["created"], params.get("created"))
            and _delivered_as(world, event, params.get("delivery_success"))
        )

    page = answer("/v1/events", params, world.store.every("event"), wanted)
    page["data"] = [with_pending(world, one) for one in page["data"]]
    return page


def matches(pattern: str, kind: str) -> bool:
    """Whether an event type fits an exact name or a pattern such as `invoice.*` or `*`."""
    return pattern in {kind, "*"} or (pattern.endswith(".*") and kind.startswith(pattern[:-1]))


def listens(endpoint: Json, kind: str) -> bool:
    return endpoint["status"] == "enabled" and any(
        matches(pattern, kind) for pattern in endpoint["enabled_events"]
    )


def _delivered_as(world: World, event: Json, success: bool | None) -> bool:
    if success is None:
        return True
    rows = world.store.sql.execute("SELECT state FROM deliveries WHERE event = ?", (event["id"],))
    states = {row["state"] for row in rows}
    return bool(states & DELIVERY_SUCCESS[False]) is not success


def _difference(before: Json, after: Json) -> Json:
    """Return the old values of what is different now; inside objects only what differs there."""
    previous: Json = {}
    for key in before.keys() | after.keys():
        old: Any = before.get(key)
        new: Any = after.get(key)
        if old == new:
            continue
        both_objects = isinstance(old, dict) and isinstance(new, dict)
        previous[key] = _difference(old, new) if both_objects else old
    return previous


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        run=list_events,
        supports=f"{LIST_PARAMS} type types created delivery_success",
    ),
    Operation(method="GET", path="/v1/events/{}", run=retrieve, supports="expand"),
)
