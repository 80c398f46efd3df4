"""How long to wait after failures."""

import pytest

from openclaw_web.core.pauses import back_off


@pytest.mark.parametrize(("failures", "whole"), [(1, 1), (2, 2), (4, 8), (6, 30), (7, 30)])
def test_a_pause_doubles_up_to_the_longest(failures, whole):
    assert whole / 2 <= back_off(failures, longest_seconds=30) <= whole


def test_an_outage_of_days_is_waited_out():
    assert 15 <= back_off(100_000, longest_seconds=30) <= 30
