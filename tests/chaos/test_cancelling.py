"""A cancelled job stops before its next write to the cluster, wherever it is."""

import random

import pytest

from openclaw_web.core.database import session_scope
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobStatus
from tests.chaos.boundaries import Boundary, Passage
from tests.chaos.disturbances import Scene
from tests.chaos.hands import Hands
from tests.chaos.matrix import Matrix

WRITES = ("PATCH", "POST", "DELETE")
CHOSEN = 2


async def cancelled_at(matrix: Matrix, story: str, boundary: Boundary) -> tuple[Hands, list[str]]:
    """Cancel a job at a boundary; return what it has written since."""
    scene: Scene = await matrix.scene(story, Passage(disturb_at=boundary))
    calls_then = 0

    async def cancel(passage: Passage) -> None:
        nonlocal calls_then
        calls_then = len(passage.calls)
        job = (await scene.hands.jobs())[-1]
        async with session_scope() as session:
            await jobs.cancel_job(session, job.id, requested_by="test")

    scene.passage.disturb = cancel
    await scene.begin()
    since = scene.passage.calls[calls_then:]
    return scene.hands, [method for method, _ in since if method in WRITES]


@pytest.mark.slow
async def test_a_cancelled_job_writes_nothing_any_more(matrix):
    await matrix.learn(["restart"])
    passed = matrix.boundaries["restart"]
    first = next(at for at, one in enumerate(passed) if one.is_call)
    last = next(at for at, one in enumerate(passed) if "PATCH deployments" in one.what)
    chance = random.Random(1)  # noqa: S311 - a choice, no secret
    reads = [one for one in passed[first:last] if one.is_call and one.when == "after"]
    for boundary in chance.sample(reads, CHOSEN):
        hands, written = await cancelled_at(matrix, "restart", boundary)
        job = (await hands.jobs())[-1]
        assert (job.status, job.error_code) == (JobStatus.FAILED, "cancelled"), str(boundary)
        assert written == [], str(boundary)
        assert not await hands.work()
