"""Wherever a random walk through an account leads, the simulator answers, and money adds up."""

import pytest

from tests.contracts.stripe_walk import Walk, check

STEPS = 120


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_money_adds_up_wherever_a_random_walk_leads(tmp_path, seed):
    walk = Walk(tmp_path, seed)
    for _ in range(STEPS):
        walk.step()
    check(walk.store)
    assert 0 < walk.refusals < STEPS
    walk.close()
