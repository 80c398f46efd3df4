"""Carries events to the webhook endpoints: signed, tried again until taken, or mischievously.

Deliveries wait in the store, so that they survive a restart. All times here are real ones, because
a receiver checks a signature's age with a real clock.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import time
from sqlite3 import Row

from simulators.stripe import events
from simulators.stripe.posting import Poster, PostError
from simulators.stripe.store import Json
from simulators.stripe.world import World

SWITCHES = "delivery_switches"
DEFAULT_SWITCHES: Json = {"delay_seconds": 0, "duplicate": False, "drop": False, "shuffle": False}
RETRY_SECONDS = (1, 2, 5, 15, 60, 300, 900, 3600)
MOST_ATTEMPTS = 80  # with an hour between the later ones that is Stripe's three days
SHUFFLE_SECONDS = 0.3  # how long events are gathered before they are mixed
SUCCESS = range(200, 300)
AT_ONCE = 16
LOOKED_AT = 4 * AT_ONCE  # of what waits; the others wait until these are gone
IDLE_SECONDS = 60.0


def sign(secret: str, payload: str, moment: int) -> str:
    """Return the Stripe-Signature header."""
    signed = hmac.new(secret.encode(), f"{moment}.{payload}".encode(), hashlib.sha256)
    return f"t={moment},v1={signed.hexdigest()}"


def switches(world: World) -> Json:
    return {**DEFAULT_SWITCHES, **world.store.setting(SWITCHES, {})}


class Courier:
    """The one task that delivers; `wake` tells it that something new is waiting."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._woken = asyncio.Event()
        self._carrying: dict[int, asyncio.Task[None]] = {}

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        poster = Poster()
        try:
            while True:
                self._woken.clear()
                pause = self._start_due(poster)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), pause)
        finally:
            for task in self._carrying.values():
                task.cancel()
            await asyncio.gather(*self._carrying.values(), return_exceptions=True)
            await poster.close()

    def _start_due(self, poster: Poster) -> float:
        """Start what may go now; return for how long there is nothing more to do."""
        chosen = switches(self._world)
        now = time.time()
        room = AT_ONCE - len(self._carrying)
        held = chosen["delay_seconds"] + (SHUFFLE_SECONDS if chosen["shuffle"] else 0)
        ready: list[Row] = []
        pause = IDLE_SECONDS
        for row in self._waiting():
            wait = row["due"] + (held if row["attempts"] == 0 else 0) - now
            if wait > 0:
                pause = min(pause, wait)
            else:
                ready.append(row)
        if chosen["shuffle"]:
            random.shuffle(ready)
        for row in ready[:room]:
            task = asyncio.create_task(self._carry(poster, row, chosen))
            self._carrying[row["id"]] = task
        return pause

    def _waiting(self) -> list[Row]:
        rows = self._world.store.sql.execute(
            "SELECT * FROM deliveries WHERE state = 'pending' ORDER BY due, id LIMIT ?",
            (LOOKED_AT,),
        ).fetchall()
        return [row for row in rows if row["id"] not in self._carrying]

    async def _carry(self, poster: Poster, row: Row, chosen: Json) -> None:
        try:
            endpoint = self._world.store.get(row["endpoint"], "webhook_endpoint")
            event = self._world.store.get(row["event"], "event")
            if endpoint is None or event is None or endpoint["status"] != "enabled":
                self._note(row, "failed", "the endpoint is gone or disabled")
            elif chosen["drop"]:
                self._note(row, "dropped", "dropped on request")
            else:
                event = events.with_pending(self._world, event)
                taken, outcome = await _post(poster, endpoint, event)
                if taken and chosen["duplicate"]:
                    taken, outcome = await _post(poster, endpoint, event)
                    outcome = f"{outcome} twice"
                self._done(row, outcome, taken=taken)
        finally:
            del self._carrying[row["id"]]
            self.wake()

    def _done(self, row: Row, outcome: str, *, taken: bool) -> None:
        if taken:
            self._note(row, "delivered", outcome)
            return
        if row["attempts"] >= MOST_ATTEMPTS:
            self._note(row, "failed", outcome)
            return
        pause = RETRY_SECONDS[min(row["attempts"], len(RETRY_SECONDS) - 1)]
        self._note(row, "pending", outcome, due=time.time() + pause)

    def _note(self, row: Row, state: str, outcome: str, due: float | None = None) -> None:
        self._world.store.sql.execute(
            "UPDATE deliveries SET state = ?, outcome = ?, due = ?, finished = ?,"
            " attempts = attempts + 1 WHERE id = ?",
            (state, outcome, row["due"] if due is None else due, time.time(), row["id"]),
        )


async def _post(poster: Poster, endpoint: Json, event: Json) -> tuple[bool, str]:
    """Send an event once; return whether it was taken, and the answer in words."""
    payload = json.dumps(event)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Stripe-Signature": sign(endpoint["_secret"], payload, int(time.time())),
    }
    try:
        status = await poster.post(endpoint["url"], headers, payload.encode())
    except PostError as error:
        return False, str(error)
    return status in SUCCESS, f"HTTP {status}"
