"""What an assistant says when it may not go on: in its language, and never as an unpaid bill."""

import json
from datetime import UTC, datetime

import pytest

from openclaw_web.gateway import errors, polite
from openclaw_web.gateway.errors import (
    PAUSES,
    Form,
    LimitReachedError,
    NotEntitledError,
    Pause,
    body_of,
)
from openclaw_web.gateway.wire import read_request
from simulators.agent.model import BILLING_SIGNS
from tests.gateway.upstream_server import model_for

HOME = "https://cloud.example/home"
RESET = datetime(2026, 12, 3, 9, 30, tzinfo=UTC)
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)

# Seen to make OpenClaw give its provider up for ten minutes, and what looks like them.
NOT_TO_BE_SAID = {*BILLING_SIGNS, "billing", "credit", "upgrade", "top up", "quota", "balance"}
NOT_TO_BE_SAID |= {"payment", "402", "unpaid", "invoice", "purchase"}

DATES = {
    "en": "December 3, 2026",
    "de": "3. Dezember 2026",
    "es": "3 de diciembre de 2026",
    "fr": "3 décembre 2026",
    "it": "3 dicembre 2026",
    "ja": "2026年12月3日",
    "pl": "3 grudnia 2026",
    "pt": "3 de dezembro de 2026",
    "ru": "3 декабря 2026",
    "tr": "3 Aralık 2026",  # noqa: RUF001 - that is how it is spelled
    "uk": "3 грудня 2026",
    "zh": "2026年12月3日",
}


def limit_reached():
    return LimitReachedError(resets_at=RESET, now=NOW, home_url=HOME)


def every_refusal():
    return [limit_reached(), *(NotEntitledError(home_url=HOME, pause=pause) for pause in Pause)]


def asked(form, *, is_stream, wants_usage=False):
    body = {"model": "k2p5", "stream": is_stream, "messages": []}
    if wants_usage:
        body["stream_options"] = {"include_usage": True}
    return read_request(json.dumps(body).encode(), form, model_for)


def test_twelve_languages_are_spoken():
    assert set(polite.languages()) == set(DATES)


@pytest.mark.parametrize("language", DATES)
def test_the_date_is_written_as_the_language_writes_it(language):
    said = polite.sentence(limit_reached(), language)
    assert DATES[language] in said
    assert said.endswith(f" {HOME}"), "a space before the link, or chats do not make it one"


@pytest.mark.parametrize("language", DATES)
def test_each_reason_has_a_sentence_of_its_own(language):
    said = [polite.sentence(refusal, language) for refusal in every_refusal()]
    assert len(set(said)) == 1 + len(Pause)
    assert all(HOME in one and "{" not in one for one in said)
    assert language == "en" or not set(said) & {polite.sentence(r, "en") for r in every_refusal()}


@pytest.mark.parametrize("language", DATES)
def test_no_sentence_looks_like_an_unpaid_bill(language):
    said = " ".join(polite.sentence(refusal, language) for refusal in every_refusal()).lower()
    assert not [word for word in NOT_TO_BE_SAID if word in said]


def test_no_refusal_of_ours_looks_like_an_unpaid_bill():
    refusals = [*every_refusal(), errors.UnknownTokenError(), errors.TooLargeError("too large")]
    for refusal in refusals:
        assert refusal.status != 402
        for form in Form:
            body = body_of(refusal, form).decode().lower()
            assert not [word for word in NOT_TO_BE_SAID if word in body]


@pytest.mark.parametrize(
    ("language", "spoken"),
    [("pt-BR", "pt"), ("zh_Hans", "zh"), ("DE", "de"), ("nl", "en"), ("", "en"), ("xx-YY", "en")],
)
def test_a_dialect_is_its_language_and_an_unknown_language_is_english(language, spoken):
    for refusal in every_refusal():
        assert polite.sentence(refusal, language) == polite.sentence(refusal, spoken)


def test_a_program_reads_when_it_may_come_back():
    refusal = limit_reached()
    assert str(refusal) == "monthly usage limit reached, resets on 3 December 2026"
    assert (refusal.status, refusal.retry_after) == (429, 12 * 24 * 3600)
    assert {NotEntitledError(home_url=HOME, pause=pause).status for pause in Pause} == {403}
    assert set(PAUSES) == set(Pause)


@pytest.mark.parametrize("form", Form)
def test_an_answer_is_whole_when_no_stream_was_asked_for(form):
    answer = polite.answer(limit_reached(), asked(form, is_stream=False), language="de")
    assert answer.content_type == b"application/json"
    body = json.loads(answer.body)
    text = body["content"][0]["text"] if form is Form.ANTHROPIC else said_in(body)
    assert text == polite.sentence(limit_reached(), "de")
    assert body["model"] == "k2p5"
    assert sum(body["usage"].values()) == 0


def said_in(body):
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    return choice["message"]["content"]


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_ends_with_the_usage_only_when_it_was_asked_for(wants_usage):
    request = asked(Form.OPENAI, is_stream=True, wants_usage=wants_usage)
    answer = polite.answer(limit_reached(), request)
    assert answer.content_type == b"text/event-stream"
    assert (b'"usage"' in answer.body) is wants_usage
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("used", "limit", "said"),
    [(0, 0, None), (0, 1000, None), (899, 1000, None), (900, 1000, b"90%"), (1001, 1000, b"100%")],
)
def test_programs_are_warned_when_little_is_left(used, limit, said):
    headers = errors.token_warning(used=used, limit=limit)
    assert headers == ([] if said is None else [(b"x-token-warning", said + WARNING)])


WARNING = b" of the monthly limit is used"
