"""Which calls are noted at their boxes: few of those that go well, and each that ends a failure."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from openclaw_web.gateway import answers
from openclaw_web.gateway.answers import Answers, News

BOX, NOON = uuid4(), datetime(2030, 1, 1, 12, tzinfo=UTC)


def good(seconds):
    return News(good={BOX: (1, NOON + timedelta(seconds=seconds))})


def failed(seconds):
    return News(failed={BOX: NOON + timedelta(seconds=seconds)})


@pytest.fixture
def written(monkeypatch):
    found = []

    async def write(due):
        found.append(due)
        await asyncio.sleep(0)
        return due.box_ids

    monkeypatch.setattr(answers, "_write", write)
    return found


async def note(noted, *news):
    for one in news:
        noted.note(one)
        await noted.settle()


async def test_of_calls_that_all_go_well_one_is_noted_every_few_seconds(written):
    await note(Answers(), good(0), good(1), good(2))
    assert written == [good(0)]


async def test_an_answer_after_a_failure_is_noted_at_once(written):
    await note(Answers(), good(0), failed(1), good(2), good(3))
    assert written == [good(0), failed(1), good(2)]


async def test_an_answer_is_noted_though_the_failure_before_it_is_still_being_written(written):
    noted = Answers()
    await note(noted, good(0))
    noted.note(failed(1))
    await asyncio.sleep(0)  # its writing has begun
    noted.note(good(2))
    await noted.settle()
    assert written == [good(0), failed(1), good(2)]


async def test_of_a_storm_of_failures_one_is_noted_every_few_seconds(written):
    await note(Answers(), failed(0), failed(1), failed(2))
    assert written == [failed(0)]
