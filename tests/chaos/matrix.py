"""The matrix: every job type, every boundary of it, every disturbance; each cell is one box."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlmodel import col

from openclaw_web.boxes.models import Box
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import cluster as adapter
from tests.chaos.boundaries import Boundary, Passage
from tests.chaos.disturbances import (
    DISTURBANCES,
    FAULTS,
    LATE,
    TIMEOUT_SECONDS,
    Disturbance,
    Scene,
    failing,
    is_before_a_call,
)
from tests.chaos.hands import Hands, Twins, looking_for_twins
from tests.chaos.stories import STORIES
from tests.contracts.simulator_process import Simulator
from tests.flows.box_world import BoxWorld

AT_ONCE = 4
LONGEST_CELL_SECONDS = 300
NEW_NAMESPACE = " POST namespaces"
LOOKS = 4
# What each story passes in peace and where it ends: learnt once in a process of tests.
PEACE: dict[str, tuple[list[Boundary], dict[str, Any]]] = {}


@dataclass(frozen=True)
class Cell:
    story: str
    boundary: Boundary
    disturbance: str

    def __str__(self) -> str:
        return f"{self.story}: {self.disturbance} {self.boundary}"


class Matrix:
    """Runs cells against one cluster and one database, several at once."""

    def __init__(
        self,
        world: BoxWorld,
        simulator: Simulator,
        home: Path,
        *,
        memory: dict[str, bytes],
        twins: Twins,
    ) -> None:
        self._world, self._simulator, self._home = world, simulator, home
        self._memory, self._twins = memory, twins
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._ready: dict[str, list[Hands]] = defaultdict(list)  # boxes at the story's beginning
        self.boundaries: dict[str, list[Boundary]] = {}
        self.expected: dict[str, dict[str, Any]] = {}

    async def learn(self, stories: Collection[str]) -> None:
        """Run each story in peace: what it passes and where it ends is what all else is held to."""
        await asyncio.gather(*(self._learn(story) for story in stories if story not in PEACE))
        for story in stories:
            self.boundaries[story], self.expected[story] = PEACE[story]

    async def _learn(self, story: str) -> None:
        scene = await self.scene(story, Passage())
        await scene.begin()
        PEACE[story] = (scene.passage.passed, await _looked_up(scene.hands, story))

    def cells(self) -> list[Cell]:
        return [
            Cell(story, boundary, name)
            for story, passed in self.boundaries.items()
            for name, boundary in product([*DISTURBANCES, *FAULTS], passed)
            if self._fits(name)(boundary)
        ]

    async def run(self, cells: Collection[Cell]) -> list[str]:
        """Return what went wrong, cell by cell."""
        late = [cell for cell in cells if cell.disturbance == LATE]
        found = await self._try_all([cell for cell in cells if cell not in late])
        with mock.patch.object(adapter, "TIMEOUT_SECONDS", TIMEOUT_SECONDS):
            found += await self._try_all(late)
        return [*(one for one in found if one), *await self._never_met()]

    async def _try_all(self, cells: Collection[Cell]) -> list[str]:
        """Try them beside each other; what any namespace's making would meet comes by itself."""
        alone = [cell for cell in cells if cell.boundary.what.endswith(NEW_NAMESPACE)]
        found = await asyncio.gather(*(self._try(cell) for cell in cells if cell not in alone))
        return [*found, *[await self._try(cell) for cell in alone]]

    async def _never_met(self) -> list[str]:
        """Return the faults that no call ran into: a cell that met nothing proves nothing."""
        left = await asyncio.to_thread(self._simulator.http.get, "/_control/faults")
        return [f"A fault that no call met: {one}" for one in left.raise_for_status().json()]

    async def _try(self, cell: Cell) -> str:
        async with self._turns:
            try:
                async with asyncio.timeout(LONGEST_CELL_SECONDS):
                    return await self._run(cell)
            except Exception as error:  # noqa: BLE001 - one cell's end is not the matrix' end
                return f"{cell}: {type(error).__name__}: {error}"

    async def _run(self, cell: Cell) -> str:
        scene = await self.scene(cell.story, Passage(disturb_at=cell.boundary))
        try:
            await self._disturbance(cell.disturbance)(scene)
            outcome = await _looked_up(scene.hands, cell.story)
        finally:
            await scene.bury()
        expected, story = self.expected[cell.story], STORIES[cell.story]
        wrong = {
            name: f"{value} instead of {expected[name]}"
            for name, value in outcome.items()
            if value != expected[name] and value not in story.also.get(name, ())
        }
        if not scene.passage.was_disturbed:
            wrong["boundary"] = "never reached"
        if scene.hands.box.k8s_namespace in self._twins.seen:
            wrong["pods"] = "two of one box at once"
        if not wrong and outcome == expected and story.again is not None:
            await story.again(scene.hands, scene.hands.box)
            self._ready[cell.story].append(scene.hands)
        return f"{cell}: {wrong}" if wrong else ""

    def _disturbance(self, name: str) -> Disturbance:
        if name in DISTURBANCES:
            return DISTURBANCES[name][0]
        return failing(FAULTS[name], self._simulator)

    def _fits(self, name: str) -> Any:
        return DISTURBANCES[name][1] if name in DISTURBANCES else is_before_a_call

    async def scene(self, story: str, passage: Passage) -> Scene:
        """Take a box to where the story begins, and ask for the job."""
        ready = self._ready[story]
        hands = await (ready.pop() if ready else await self._prepared(story)).from_here()
        await STORIES[story].ask(hands, hands.box)
        return Scene(hands, passage)

    async def _prepared(self, story: str) -> Hands:
        """Make a box in a cluster's name of its own, and bring it there."""
        box = await self._world.new_box()
        box.cluster = f"cell-{box.id.hex[:8]}"
        async with session_scope() as session:
            await session.exec(
                sa.update(Box).where(col(Box.id) == box.id).values(cluster=box.cluster)
            )
        hands = Hands(self._world.cluster, self._home, box, [], self._memory)
        await STORIES[story].prepare(hands, box)
        return hands


async def _looked_up(hands: Hands, story: str) -> dict[str, Any]:
    """Look at the end; our own look may come too late on a busy machine, and is no part of it."""
    more = STORIES[story].more
    shown = await more(hands) if more else {}
    for _ in range(LOOKS):
        with contextlib.suppress(VendorError):
            return {**await hands.outcome(), **shown}
    return {**await hands.outcome(), **shown}


def table(cells: Iterable[Cell], boundaries: dict[str, list[Boundary]]) -> str:
    """Return the matrix as lines: how many cells of each disturbance each job type has."""
    counts = Counter((cell.story, cell.disturbance) for cell in cells)
    names = [*DISTURBANCES, *FAULTS]
    lines = [f"The matrix of chaos: {sum(counts.values())} cells."]
    for story, passed in boundaries.items():
        parts = ", ".join(f"{name}: {counts[story, name]}" for name in names)
        lines.append(f"{story} ({len(passed)} boundaries): {parts}")
        lines.extend(f"    {boundary}" for boundary in passed)
    return "\n".join(lines)


@contextlib.asynccontextmanager
async def matrix_of(
    world: BoxWorld, simulator: Simulator, home: Path, memory: dict[str, bytes]
) -> AsyncGenerator[Matrix]:
    async with looking_for_twins(world.cluster) as twins:
        yield Matrix(world, simulator, home, memory=memory, twins=twins)
