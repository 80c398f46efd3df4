"""What is done to a job at a boundary, and how the box comes to rest after it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy.exc import OperationalError

from openclaw_web.core.database import engine
from openclaw_web.integrations import redis
from tests.chaos.boundaries import AFTER, BEFORE, PASSAGE, READ, Boundary, Passage
from tests.chaos.hands import Hands
from tests.contracts.simulator_process import Simulator

LONGEST_SECONDS = 240
LATE = "an answer after its time-out"
# How the cluster's API may fail, in the simulator's words; `slow` and `cut` do the work and answer
# late or never.
FAULTS: dict[str, dict[str, Any]] = {
    "409": {"code": 409},
    "403 quota": {"code": 403, "cause": "quota"},
    "404": {"code": 404},
    "410": {"code": 410},
    "422": {"code": 422},
    "429 with Retry-After": {"code": 429, "retry_after": 2},
    "500": {"code": 500},
    "503": {"code": 503},
    "no answer after the work": {"drop": True, "when": "after"},
    LATE: {"delay_seconds": 5.0, "when": "after"},
    "slow": {"delay_seconds": 0.7},
}
TIMEOUT_SECONDS = 3.0  # of the adapter, where answers come late; elsewhere it is its own
VERBS = {"GET": "get", "PATCH": "patch", "POST": "create", "DELETE": "delete", "PUT": "update"}


@dataclass
class Scene:
    """One run with one disturbance: how it began, where it is, and what is left behind."""

    hands: Hands
    passage: Passage
    left: list[asyncio.Task[Any]] = field(default_factory=list)
    resumed: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> asyncio.Task[None]:
        """Work in a context of its own: whoever comes later passes no boundary."""
        token = PASSAGE.set(self.passage)
        try:
            return asyncio.create_task(self.hands.work_all())
        finally:
            PASSAGE.reset(token)

    async def stand_still(self, _passage: Passage) -> None:
        self.stopped.set()
        await self.resumed.wait()

    async def work_until_stopped(self) -> asyncio.Task[None]:
        task, stop = self.begin(), asyncio.create_task(self.stopped.wait())
        await asyncio.wait(
            {task, stop}, return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST_SECONDS
        )
        stop.cancel()
        return task

    async def bury(self) -> None:
        for task in self.left:
            task.cancel()
        await asyncio.gather(*self.left, return_exceptions=True)


Disturbance = Callable[[Scene], Awaitable[None]]


async def kill(scene: Scene) -> None:
    """SIGKILL: the worker never moves again, its transaction ends with its connection."""
    scene.passage.disturb = scene.stand_still
    scene.left.append(await scene.work_until_stopped())
    await _end_transaction_of(scene)
    await scene.hands.settle()


async def stop(scene: Scene) -> None:
    """SIGSTOP beyond the lease: another worker does it all, then the first one goes on."""
    scene.passage.disturb = scene.stand_still
    sleeper = await scene.work_until_stopped()
    await _end_transaction_of(scene)  # PostgreSQL does, when a transaction idles for too long
    await scene.hands.settle()
    scene.resumed.set()
    await asyncio.wait_for(asyncio.gather(sleeper, return_exceptions=True), LONGEST_SECONDS)
    await scene.hands.settle()


async def flush(scene: Scene) -> None:
    async def flush_all(_passage: Passage) -> None:
        await redis.client().flushall()

    await _go_through(scene, flush_all)


async def cut_database(scene: Scene) -> None:
    """PostgreSQL restarts: every connection of this run ends where it is."""

    async def cut(_passage: Passage) -> None:
        await _end_transaction_of(scene)

    await _go_through(scene, cut)


async def lose_answer(scene: Scene) -> None:
    """PostgreSQL restarts just after a commit: it holds, but its writer hears of an error."""

    async def lose(_passage: Passage) -> None:
        raise OperationalError("COMMIT", None, psycopg.OperationalError("the connection is lost"))

    await _go_through(scene, lose)


def failing(fault: dict[str, Any], simulator: Simulator) -> Disturbance:
    """The cluster fails at exactly the call that the boundary stands before."""

    async def disturb(scene: Scene) -> None:
        async def add(passage: Passage) -> None:
            wanted = {**_call_of(passage, scene.hands.box.k8s_namespace), **fault}
            answer = await asyncio.to_thread(simulator.http.post, "/_control/faults", json=wanted)
            answer.raise_for_status()

        await _go_through(scene, add)

    return disturb


def _call_of(passage: Passage, namespace: str) -> dict[str, str]:
    """Name the call that comes next, in the simulator's words."""
    method, path = passage.calls[-1]
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) <= 2:  # the namespace itself: its kind and its name
        found = {"verb": VERBS[method], "resource": "namespaces"}
        # What is made has its name in its body only; nobody else makes one meanwhile (`_try_all`).
        return found if method == "POST" else {**found, "name": namespace}
    kind, named, part = (*parts[2:], "", "")[:3]
    verb = "list" if method == READ and not named else VERBS[method]
    resource = f"{kind}/{part}" if part else kind
    return {"verb": verb, "resource": resource, "namespace": namespace}


async def _go_through(scene: Scene, disturb: Callable[[Passage], Awaitable[None]]) -> None:
    scene.passage.disturb = disturb
    # A claim that fails is the loop's to log and to repeat, as settling does.
    await asyncio.gather(scene.begin(), return_exceptions=True)
    await scene.hands.settle()


async def _end_transaction_of(scene: Scene) -> None:
    """End the connection of the transaction that the run is in, or was in last."""
    backend, scene.passage.backend = scene.passage.backend, 0
    if backend:
        url = engine().url.set(drivername="postgresql").render_as_string(hide_password=False)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("SELECT pg_terminate_backend(%s, 2000)", [backend])


def is_any(_boundary: Boundary) -> bool:
    return True


def lands_late(boundary: Boundary) -> bool:
    """Before a write: what a sleeper does first when it wakes up."""
    return boundary.when == BEFORE and not boundary.is_read


def is_over(boundary: Boundary) -> bool:
    return boundary.when == AFTER


def is_in_transaction(boundary: Boundary) -> bool:
    return boundary.when == BEFORE and not (boundary.is_call or boundary.is_statement)


def is_committed(boundary: Boundary) -> bool:
    return boundary.when == AFTER and not boundary.is_call


def is_before_a_call(boundary: Boundary) -> bool:
    return boundary.when == BEFORE and boundary.is_call


DISTURBANCES: dict[str, tuple[Disturbance, Callable[[Boundary], bool]]] = {
    "kill -9": (kill, is_over),
    "SIGSTOP beyond the lease": (stop, lands_late),
    "FLUSHALL": (flush, is_any),
    "PostgreSQL gone": (cut_database, is_in_transaction),
    "PostgreSQL gone after a commit": (lose_answer, is_committed),
}
