"""When a provider is left alone, and when it is asked again."""

import pytest

from openclaw_web.gateway.breaker import Breaker, Rules, State


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock, Rules(failures=3, pause_seconds=5, longest_pause_seconds=15))


def fail(breaker, times=3):
    return [breaker.failed() for _ in range(times)]


def test_it_opens_after_some_failures_in_a_row_and_says_so_once(breaker):
    assert breaker.begin()
    assert fail(breaker, 5) == [False, False, True, False, False]
    assert (breaker.state, breaker.allows(), breaker.begin()) == (State.OPEN, False, False)


def test_a_success_in_between_starts_the_count_anew(breaker):
    fail(breaker, 2)
    assert not breaker.succeeded(), "it was never open"
    assert fail(breaker, 2) == [False, False]
    assert breaker.state is State.CLOSED


def test_after_a_pause_one_request_finds_out(breaker, clock):
    fail(breaker)
    clock.now = 5
    assert breaker.allows(), "asking about it takes nothing"
    assert [breaker.begin() for _ in range(3)] == [True, False, False]
    assert breaker.state is State.HALF_OPEN
    assert breaker.succeeded()
    assert (breaker.state, breaker.begin(), breaker.begin()) == (State.CLOSED, True, True)


def test_each_failed_attempt_doubles_the_pause_up_to_the_longest(breaker, clock):
    fail(breaker)
    for pause in (5, 10, 15, 15):
        clock.now += pause - 0.1
        assert not breaker.begin()
        clock.now += 0.1
        assert breaker.begin()
        assert not breaker.failed(), "it was open already"
        assert breaker.state is State.OPEN
    breaker.succeeded()
    fail(breaker)
    clock.now += 5
    assert breaker.begin(), "the pauses start anew"


def test_an_attempt_whose_end_nobody_told_blocks_nothing(breaker, clock):
    fail(breaker)
    clock.now = 5
    assert breaker.begin()
    clock.now = 10
    assert breaker.begin()


def test_failures_of_requests_that_began_before_do_not_lengthen_the_pause(breaker, clock):
    fail(breaker)
    clock.now = 4
    fail(breaker)
    clock.now = 5
    assert breaker.begin()
