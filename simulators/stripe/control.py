"""Buttons that Stripe does not have: the clock, the webhooks' manners, faults, disputes."""

import json
from collections import Counter
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from simulators.stripe import (
    courier,
    disputes,
    events,
    faults,
    lifecycle,
    methods,
    refunds,
    schedule,
)
from simulators.stripe.errors import StripeError
from simulators.stripe.store import Json
from simulators.stripe.world import World

LONGEST_ADVANCE_SECONDS = 3660 * 24 * 3600  # ten years
LONGEST_DELAY_SECONDS = 3600
CHOICES = ("cancel", "unpaid", "past_due")
SHOWN_DELIVERIES = 100


class Refused(Exception):  # noqa: N818 - a button was pressed wrongly, nothing broke
    """What was asked for makes no sense; the text says why."""


def clock_state(world: World, since: int = 0) -> Json:
    """Tell the time, what comes next by itself, what waits to be delivered, and what happened.

    `events` counts by type what came after the event with the number `since`.
    """
    waiting = world.store.sql.execute("SELECT count(*) FROM deliveries WHERE state = 'pending'")
    (newest,) = world.store.sql.execute("SELECT coalesce(max(seq), 0) FROM objects").fetchone()
    rows = world.store.sql.execute(
        "SELECT body FROM objects WHERE object = 'event' AND seq > ? AND seq <= ?",
        (since or newest, newest),
    )
    return {
        "now": world.wall(),
        "offset_seconds": world.clock.offset_seconds,
        "next_due_at": schedule.next_due_at(world),
        "deliveries_waiting": waiting.fetchone()[0],
        "newest": newest,
        "events": dict(Counter(json.loads(row["body"])["type"] for row in rows)),
    }


async def advance(world: World, seconds: Any) -> Json:
    """Move the clock by a step, and tell what happened on the way."""
    _check_whole("seconds", seconds)
    if not 0 <= seconds <= LONGEST_ADVANCE_SECONDS:
        raise Refused(f"seconds must be between 0 and {LONGEST_ADVANCE_SECONDS}")
    ahead = world.clock.offset_seconds + seconds
    steps = await schedule.advance(world, world.wall() + seconds)
    world.clock.be_ahead(ahead)  # the whole step, however long its events took
    return {**clock_state(world), "steps": steps}


async def advance_until(world: World, moment: Any) -> Json:
    """Move the clock to a moment; one that has passed already changes nothing."""
    _check_whole("until", moment)
    if moment - world.wall() > LONGEST_ADVANCE_SECONDS:
        raise Refused(f"until must be at most {LONGEST_ADVANCE_SECONDS} seconds ahead")
    steps = await schedule.advance(world, moment)
    return {**clock_state(world), "steps": steps}


def _check_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{name} must be a whole number")


def set_switches(world: World, given: Json) -> Json:
    """Change how webhooks are delivered; what is not mentioned stays."""
    for name, value in given.items():
        if name not in courier.DEFAULT_SWITCHES:
            raise Refused(f"unknown switch {name}; there are {sorted(courier.DEFAULT_SWITCHES)}")
        if name == "delay_seconds":
            is_right = isinstance(value, int | float) and 0 <= value <= LONGEST_DELAY_SECONDS
        else:
            is_right = isinstance(value, bool)
        if not is_right:
            raise Refused(f"{name} cannot be {value!r}")
    chosen = {**courier.switches(world), **given}
    world.store.set_setting(courier.SWITCHES, chosen)
    world.wake()
    return chosen


def settings(world: World) -> Json:
    """Return the account's choices, which at Stripe are made on its dashboard."""
    return {
        lifecycle.AFTER_LAST_RETRY: world.store.setting(lifecycle.AFTER_LAST_RETRY, CHOICES[0]),
        methods.CARD_UPDATER: world.store.setting(methods.CARD_UPDATER, default=False),
    }


def set_settings(world: World, given: Json) -> Json:
    """Change the account's choices; what is not mentioned stays."""
    for name, value in given.items():
        if name == lifecycle.AFTER_LAST_RETRY:
            if value not in CHOICES:
                raise Refused(f"{name} is one of {', '.join(CHOICES)}")
        elif name != methods.CARD_UPDATER or not isinstance(value, bool):
            raise Refused(f"there is no setting {name} with such a value")
    for name, value in given.items():
        world.store.set_setting(name, value)
    return settings(world)


def arm(world: World, given: Json) -> Json:
    try:
        faults.arm(world, given)
    except (faults.FaultError, TypeError) as error:
        raise Refused(str(error)) from error
    return fault_state(world)


def fault_state(world: World) -> Json:
    shown = ("id", "kind", "times", "method", "path", "seconds")
    waiting = [{name: getattr(one, name) for name in shown} for one in faults.armed(world)]
    return {"faults": waiting, "kinds": faults.KINDS}


def act(world: World, what: str, identifier: str) -> Json:
    """Do what a cardholder or a bank does: dispute or warn, decide that, reject a refund."""
    kind = ACTIONS[what]
    subject = world.store.get(identifier, kind)
    if subject is None:
        raise Refused(f"there is no {kind} {identifier}")
    try:
        with world.store.transaction():
            if what == "dispute":
                return disputes.open_dispute(world, subject)
            if what == "warning":
                return disputes.warn(world, subject)
            if what == "bounce":
                return refunds.bounce(world, subject)
            return disputes.close(world, subject, what)
    except StripeError as error:
        raise Refused(error.message) from error


def redeliver(world: World, identifier: str) -> Json:
    """Send an event once more to every enabled endpoint that listens to it."""
    event = world.store.get(identifier, "event")
    if event is None:
        raise Refused(f"there is no event {identifier}")
    reached = [
        endpoint["id"]
        for endpoint in world.store.every("webhook_endpoint")
        if events.listens(endpoint, event["type"])
    ]
    for endpoint in reached:
        events.queue(world, event, endpoint)
    return {"event": identifier, "endpoints": reached}


def deliveries(world: World, limit: int = SHOWN_DELIVERIES) -> list[Json]:
    rows = world.store.sql.execute("SELECT * FROM deliveries ORDER BY id DESC LIMIT ?", (limit,))
    return [dict(row) for row in rows]


# What each of a bank's buttons is pressed on.
ACTIONS = {
    "dispute": "charge",
    "warning": "charge",
    "bounce": "refund",
    disputes.WON: disputes.KIND,
    disputes.LOST: disputes.KIND,
}


class Buttons:
    """The JSON endpoints; the guard in front asks for the token."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        both = ["GET", "POST"]
        again = "/_control/events/{identifier}/redeliver"
        act_on = "/_control/{what}/{identifier}"
        return [
            Route("/_control/clock", self._clock),
            Route("/_control/clock/advance", self._advance, methods=["POST"]),
            Route("/_control/delivery", self._delivery, methods=both),
            Route("/_control/settings", self._settings, methods=both),
            Route("/_control/faults", self._faults, methods=[*both, "DELETE"]),
            Route("/_control/deliveries", self._deliveries),
            Route(again, self._redeliver, methods=["POST"]),
            Route(act_on, self._act, methods=["POST"]),
        ]

    async def _clock(self, request: Request) -> JSONResponse:
        since = request.query_params.get("since", "0")
        if not since.isdigit():
            raise Refused("since must be a whole number")
        return JSONResponse(clock_state(self._world, int(since)))

    async def _advance(self, request: Request) -> JSONResponse:
        body = await _body(request)
        if "until" in body:
            return JSONResponse(await advance_until(self._world, body["until"]))
        return JSONResponse(await advance(self._world, body.get("seconds")))

    async def _delivery(self, request: Request) -> JSONResponse:
        if request.method == "POST":
            set_switches(self._world, await _body(request))
        return JSONResponse(courier.switches(self._world))

    async def _settings(self, request: Request) -> JSONResponse:
        if request.method == "POST":
            set_settings(self._world, await _body(request))
        return JSONResponse(settings(self._world))

    async def _faults(self, request: Request) -> JSONResponse:
        if request.method == "POST":
            arm(self._world, await _body(request))
        elif request.method == "DELETE":
            faults.disarm(self._world)
        return JSONResponse(fault_state(self._world))

    async def _deliveries(self, _request: Request) -> JSONResponse:
        return JSONResponse({"deliveries": deliveries(self._world)})

    async def _redeliver(self, request: Request) -> JSONResponse:
        return JSONResponse(redeliver(self._world, request.path_params["identifier"]))

    async def _act(self, request: Request) -> JSONResponse:
        what = request.path_params["what"]
        if what not in ACTIONS:
            raise Refused(f"there is no button {what}; there are {', '.join(ACTIONS)}")
        return JSONResponse(act(self._world, what, request.path_params["identifier"]))


async def refused(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=400)


async def _body(request: Request) -> Json:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise Refused("the body must be JSON") from None
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    return body
