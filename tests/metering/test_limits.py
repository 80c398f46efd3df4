"""Limits in process: what is held is given back, and rates fill up again."""

from uuid import uuid4

import pytest

from openclaw_web.metering import limits
from openclaw_web.metering.limits import RequestRate, Room, Underway


@pytest.mark.parametrize(
    ("used", "unwritten", "underway", "expected"),
    [
        (0, 0, 0, Room.ENOUGH),
        (999, 0, 0, Room.ENOUGH),
        (1000, 0, 0, Room.NONE),
        (900, 100, 0, Room.NONE),
        (900, 50, 50, Room.UNDER_WAY),
        (900, 50, 49, Room.ENOUGH),
    ],
)
def test_a_request_may_start_below_the_limit(used, unwritten, underway, expected):
    found = limits.room(used=used, unwritten=unwritten, underway=underway, limit=1000)
    assert found is expected


@pytest.mark.parametrize("has_left", [True, False])
def test_nothing_is_held_once_all_requests_have_ended(has_left):
    underway, customer = Underway(), uuid4()
    first, second = underway.start(customer, 10), underway.start(customer, 5)
    if has_left:
        underway.leave(first)
    assert (underway.tokens_of(customer), underway.requests_of(customer)) == (15, 2 - has_left)
    underway.end(first, has_left=has_left)
    underway.end(second, has_left=False)
    assert underway == Underway()


def test_a_burst_is_two_seconds_worth_and_fills_up_again():
    rate, customer = RequestRate(), uuid4()
    taken = [rate.wait_seconds(customer, 5, now=100.0) for _ in range(11)]
    assert taken[:10] == [0.0] * 10
    assert taken[10] == pytest.approx(0.2)
    assert rate.wait_seconds(customer, 5, now=100.25) == 0.0
    assert rate.wait_seconds(uuid4(), 5, now=100.25) == 0.0


@pytest.mark.parametrize(
    ("body", "most", "expected"),
    [(4000, 500, 1500), (0, 0, 1), (0, None, 1000), (10**9, 10**9, limits.LARGEST_RESERVATION)],
)
def test_what_a_request_may_use_is_a_bounded_guess(body, most, expected):
    assert limits.expected_tokens(body, most) == expected
