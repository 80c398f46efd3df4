"""So many things at once and no more."""

import asyncio

import pytest

from openclaw_web.core.hands import Hands


async def test_hands_are_full_until_one_thing_is_done():
    hands, ended = Hands(2), asyncio.Event()

    async def work() -> None:
        await ended.wait()

    hands.take("a", work())
    assert not hands.are_full
    hands.take("b", work())
    assert hands.are_full
    assert "a" in hands
    ended.set()
    await hands.wait_for_one(timeout_seconds=1)
    assert not hands.are_full


async def test_what_is_laid_aside_takes_no_hand_up_to_its_most():
    hands = Hands(1, most_aside=1)
    hands.take("a", asyncio.sleep(60))
    with hands.aside():
        assert not hands.are_full
        hands.take("b", asyncio.sleep(60))
        with hands.aside():
            assert hands.are_full
    assert hands.are_full
    await hands.empty(timeout_seconds=0)


async def test_waiting_for_one_ends_with_its_time():
    hands = Hands(1)
    hands.take("a", asyncio.sleep(60))
    await hands.wait_for_one(timeout_seconds=0.01)
    assert hands.are_full
    await hands.empty(timeout_seconds=0)


async def test_what_does_not_end_in_time_is_cancelled():
    hands, seen = Hands(2), []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def quick() -> None:
        seen.append("done")

    hands.take("stubborn", stubborn())
    hands.take("quick", quick())
    await hands.empty(timeout_seconds=0.05)
    assert seen == ["done", "cancelled"]
    assert len(hands) == 0


@pytest.mark.parametrize("wait", [Hands.wait_for_one, Hands.empty])
async def test_empty_hands_wait_for_nothing(wait):
    await asyncio.wait_for(wait(Hands(1), timeout_seconds=60), 1)
