"""What on our side keeps assistants from answering shows on their customers' pages."""

from datetime import timedelta

import pytest

from openclaw_web.boxes import proving, queries, sentences, troubles
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.dashboard.state import headline
from openclaw_web.jobs import service as jobs
from tests.factories import make_box, make_period, make_subscription, now

pytestmark = pytest.mark.usefixtures("redis")
READY = {"pod": {"phase": "Running", "is_ready": True}}


async def a_box(session, **fields):
    """Make a box that is ready and had an answer of its model an hour ago."""
    hour_ago = now() - timedelta(hours=1)
    fields.setdefault("health", {**READY, queries.MODEL_OK_AT: hour_ago.isoformat()})
    return await make_box(
        session, activated_at=hour_ago, first_answer_at=hour_ago, agent_ok_at=hour_ago, **fields
    )


async def seen(session, box):
    """Return the page's word and its tone, the state of the model's link, and both sentences."""
    await session.refresh(box)
    view = await queries.box_status_view(session, box.customer_id)
    assert view is not None
    return (*headline(view), view.links[-1].is_ok, view.links[-1].sentence, view.sentence)


async def fails(session, box, *, ago=timedelta()):
    await proving.record_model_failure(session, box.id, asked_at=now() - ago)


async def test_a_question_without_an_answer_turns_the_page_red_until_the_next_answer(session):
    box = await a_box(session)
    assert (await seen(session, box))[:3] == ("Answering", "good", True)
    await fails(session, box, ago=timedelta(seconds=2))
    word, tone, is_ok, link, sentence = await seen(session, box)
    assert (word, tone, is_ok) == ("Not answering", "bad", False)
    assert "on our side" in link
    assert sentence.startswith("Running, but its newest question to the model got no answer.")
    view = await queries.box_status_view(session, box.customer_id)
    assert view is not None
    assert view.since is None, "it has not been so for as long as the box is active"
    await proving.record_model_call(session, box.id, asked_at=now())
    assert (await seen(session, box))[:3] == ("Answering", "good", True)
    assert proving.FAILED_AT not in box.health


async def test_a_failure_that_is_older_than_an_answer_says_nothing(session):
    box = await a_box(session)
    await proving.record_model_call(session, box.id, asked_at=now())
    await fails(session, box, ago=timedelta(minutes=1))
    assert (await seen(session, box))[:3] == ("Answering", "good", True)


async def test_an_answer_to_an_older_question_does_not_hide_a_newer_failure(session):
    box = await a_box(session)
    await fails(session, box)
    await proving.record_model_call(session, box.id, asked_at=now() - timedelta(minutes=1))
    assert (await seen(session, box))[2] is False


async def test_an_old_failure_is_not_known_to_last(session):
    box = await a_box(session)
    await fails(session, box, ago=sentences.FAILURE_COUNTS_FOR)
    word, tone, is_ok, link, _ = await seen(session, box)
    assert (word, tone, is_ok) == ("Answering", "good", None)
    assert "the next one shows" in link.lower()


async def provider_rests(session, subject):
    detail = {"sentence": "http_503"}
    await jobs.raise_alert(session, code=troubles.PROVIDER_DOWN, subject=subject, detail=detail)


@pytest.mark.parametrize("subject", ["kimi", "kimi, key 1"])
async def test_without_any_provider_every_page_says_so_until_the_alert_is_closed(session, subject):
    box, other = await a_box(session), await a_box(session)
    await troubles.note_answers(session, {"kimi": now()})
    await provider_rests(session, subject)
    for one in (box, other):
        word, tone, is_ok, link, sentence = await seen(session, one)
        assert (word, tone, is_ok) == ("Not answering", "bad", False)
        assert "not yours" in link
        assert sentence.startswith("Running, but our model provider does not answer")
    await jobs.resolve_alert(session, code=troubles.PROVIDER_DOWN, subject=subject)
    assert (await seen(session, box))[:3] == ("Answering", "good", True)


async def test_a_provider_for_which_another_one_stands_in_is_no_trouble_of_a_customer(session):
    box = await a_box(session)
    await troubles.note_answers(session, {"kimi": now() - timedelta(minutes=5)})
    await troubles.note_answers(session, {"stand-in": now() - timedelta(seconds=5)})
    await provider_rests(session, "kimi")
    assert (await seen(session, box))[2] is True
    await provider_rests(session, "stand-in")
    assert (await seen(session, box))[2] is False


async def test_spent_tokens_are_said_before_all_else_of_the_model(session):
    owner = await make_subscription(session)
    await make_period(session, subscription=owner, tokens_used=10, tokens_limit=10)
    box = await a_box(session, subscription=owner)
    await fails(session, box)
    word, tone, is_ok, _, sentence = await seen(session, box)
    assert (word, tone, is_ok) == ("Out of tokens", "warning", False)
    assert "tokens are used up" in sentence


async def test_a_box_that_we_cannot_look_at_is_not_called_answering(session):
    box = await a_box(session)
    await jobs.raise_alert(session, code=troubles.WATCH_SILENT, subject=box.cluster)
    view = await queries.box_status_view(session, box.customer_id)
    assert view is not None
    assert headline(view) == ("Not seen", "warning")
    assert [link.is_ok for link in view.links] == [None, None, None, True]
    assert view.sentence.startswith("We cannot look at it at this moment")
    await proving.record_model_call(session, box.id, asked_at=now())
    assert (await seen(session, box))[:2] == ("Answering", "good"), "its agent gave a sign of life"


async def test_a_pod_that_is_not_ready_is_not_called_answering_in_green(session):
    box = await a_box(session, health={"pod": {"phase": "Running", "is_ready": False}})
    assert (await seen(session, box))[:2] == ("Not ready", "warning")


async def test_a_box_that_rests_says_only_that(session):
    box = await a_box(session, status=BoxStatus.SUSPENDED)
    await fails(session, box)
    await provider_rests(session, "kimi")
    assert (await seen(session, box))[:3] == ("Paused", "warning", None)
