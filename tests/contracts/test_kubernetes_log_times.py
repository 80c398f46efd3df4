"""When each part of a log was written, though the log itself carries no times."""

from datetime import UTC, datetime

import pytest

from simulators.kubernetes.log_times import LogTimes


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def at(seconds):
    return datetime.fromtimestamp(seconds, UTC)


@pytest.fixture
def world(tmp_path):
    clock = Clock()
    times, log = LogTimes(clock), tmp_path / "agent.0.log"
    times.follow(log)
    return times, log, clock


def write(world, text, seconds):
    times, log, clock = world
    clock.now += seconds
    with log.open("a") as file:
        file.write(text)
    times.look(log)


def test_each_part_keeps_the_time_at_which_it_was_seen(world):
    times, log, _ = world
    write(world, "first\n", 0)
    write(world, "second\n", 10)
    assert times.written_at(log, 6) == at(1_000_000)
    assert times.written_at(log, 7) == at(1_000_010)


def test_what_came_since_a_moment_is_found(world):
    times, log, _ = world
    write(world, "first\n", 0)
    write(world, "second\n", 10)
    assert times.offset_at(log, at(1_000_005)) == 6
    assert times.offset_at(log, at(999_999)) == 0
    assert times.offset_at(log, at(1_000_011)) == 13


def test_the_times_outlive_the_cluster(world):
    times, log, clock = world
    write(world, "first\n", 0)
    times.leave(log)
    clock.now += 1000
    assert LogTimes(clock).written_at(log, 6) == at(1_000_000)


def test_a_shortened_log_keeps_the_times_of_its_rest(world):
    times, log, _ = world
    write(world, "first\n", 0)
    write(world, "second\n", 10)
    log.write_text("second\n")
    times.shortened(log, 6)
    assert times.written_at(log, 7) == at(1_000_010)
