"""A job may be disturbed anywhere: its box ends where it would have ended, and never runs twice.

`make test` runs a sample, another one with CHAOS_SEED; `make test-all` runs every cell. With `-s`
the matrix is printed.
"""

import os
import random
import time

import pytest

from tests.chaos import summary
from tests.chaos.disturbances import DISTURBANCES, FAULTS
from tests.chaos.keepers import FRESH
from tests.chaos.matrix import table
from tests.chaos.stories import FORMER, STORIES

SEED = int(os.environ.get("CHAOS_SEED", "20261121"))
STORIES_OF_SAMPLE = 2
CELLS_OF_SAMPLE = 4  # a second of work each: `make test` has to stay quick
WITH_BACKUP = {
    "suspend": "suspend",
    "backup": "manual",
    "destroy": "final",
    "upgrade": "before_upgrade",
}
LEAST_CELLS = 1_000  # fewer would mean that boundaries are not seen any more


pytestmark = pytest.mark.usefixtures("_collected_like_a_worker")


async def test_a_sample_of_all_disturbances_changes_no_end(matrix):
    chance = random.Random(SEED)  # noqa: S311 - a choice, no secret
    await matrix.learn(chance.sample(list(STORIES), STORIES_OF_SAMPLE))
    wrong = await matrix.run(chance.sample(matrix.cells(), CELLS_OF_SAMPLE))
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
async def test_the_matrix_is_as_large_as_what_really_happens(matrix):
    await matrix.learn(STORIES)
    cells = matrix.cells()
    print(table(cells, matrix.boundaries))  # noqa: T201 - the matrix is to be read, with -s
    assert {cell.story for cell in cells} == set(STORIES)
    assert len(cells) > LEAST_CELLS
    ends = {story: matrix.expected[story]["backup"] for story in WITH_BACKUP}
    assert ends == WITH_BACKUP
    assert matrix.expected["restore"]["memory"] == FRESH
    assert matrix.expected["clone"]["memory"] == FORMER
    assert matrix.expected["rotate"]["old tokens that live"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("disturbance", [*DISTURBANCES, *FAULTS])
@pytest.mark.parametrize("story", STORIES)
async def test_no_disturbance_changes_the_end(matrix, record_property, story, disturbance):
    began = time.monotonic()
    await matrix.learn([story])
    cells = [cell for cell in matrix.cells() if cell.disturbance == disturbance]
    wrong = await matrix.run(cells)
    row = {
        "story": story,
        "disturbance": disturbance,
        "cells": len(cells),
        "wrong": len(wrong),
        "seconds": round(time.monotonic() - began),
    }
    record_property(summary.PROPERTY, row)
    print(*summary.lines([row])[:1], *wrong, sep="\n")  # noqa: T201 - to be read, with -s
    assert not wrong, "\n".join(wrong)
    assert cells
