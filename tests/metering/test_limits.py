"""The rules of admission: estimates, zones, and rates that fill up again."""

import base64
import json

import pytest

from openclaw_web.metering import limits
from openclaw_web.metering.limits import Bucket, Fading

CONTEXT = 262_144


@pytest.mark.parametrize(
    ("body", "most", "expected"),
    [
        (b"x" * 4000, 500, 1500),
        (b"", None, 1000),
        (b"", 0, 1000),
        (b"", -5, 1000),
        (b"", 10**9, 4096),
        (b"x y" * 10**6, 100, CONTEXT + 100),
    ],
    ids=["both", "no most", "zero", "negative", "agents allow much", "no more than the context"],
)
def test_what_a_request_may_use_is_a_bounded_guess(body, most, expected):
    assert limits.expected_tokens(body, most, CONTEXT) == expected


def openai(picture: str) -> bytes:
    parts = [
        {"type": "text", "text": "What is this? " * 100},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    return json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()


def anthropic(picture: str) -> bytes:
    source = {"type": "base64", "media_type": "image/png", "data": picture}
    parts = [
        {"type": "text", "text": "What is this? " * 100},
        {"type": "image", "source": source},
    ]
    return json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize(
    "make",
    [lambda data: openai(f"data:image/png;base64,{data}"), anthropic],
    ids=["openai", "anthropic"],
)
def test_a_picture_inside_the_body_is_no_text(make, is_exact):
    body = make(base64.b64encode(bytes(range(256)) * 1500).decode())
    expected = limits.expected_tokens(body, 100, CONTEXT, is_exact=is_exact)
    text = 1400 // 4 + 100
    assert text + limits.PICTURE_TOKENS < expected < text + limits.PICTURE_TOKENS + 100


def test_a_picture_that_is_only_named_counts_near_the_limit():
    body = openai("https://example.com/a.png")
    assert limits.expected_tokens(body, 100, CONTEXT, is_exact=True) > limits.PICTURE_TOKENS


def test_large_text_stays_text():
    body = json.dumps({"messages": ["How are you? " * 50_000]}).encode()
    assert limits.expected_tokens(body, 1, CONTEXT) == len(body) // 4 + 1
    assert limits.expected_tokens(body, 1, CONTEXT, is_exact=True) == len(body) // 4 + 1


@pytest.mark.parametrize(
    ("limit", "parallel", "expected"),
    [(10_000_000, 2, 9_000_000), (150_000_000, 12, 135_000_000), (2_500_000, 2, 1_900_000)],
    ids=["starter", "team", "provisional starter: two contexts"],
)
def test_far_is_a_tenth_or_all_contexts_below_the_limit(limit, parallel, expected):
    assert limits.far_below(limit, parallel) == expected


@pytest.mark.parametrize(
    ("known", "own", "tokens", "expected"),
    [
        (0, 0, 500_000, True),
        (0, 100_000, 100_000, True),
        (0, 100_001, 100_000, False),
        (9_999_999, 0, 500_000, True),
        (9_999_999, 1, 1, False),
    ],
    ids=["one is always possible", "two percent", "more", "the last one", "the limit"],
)
def test_alone_a_process_stays_within_two_percent(known, own, tokens, expected):
    alone = limits.may_go_on_alone(known=known, own=own, tokens=tokens, limit=10_000_000)
    assert alone is expected


def test_a_burst_is_two_seconds_worth_and_fills_up_again():
    bucket = Bucket()
    taken = [bucket.take(5, now=100.0) for _ in range(11)]
    assert taken[:10] == [0.0] * 10
    assert taken[10] == pytest.approx(0.2)
    assert bucket.take(5, now=100.25) == 0.0


def test_a_steady_use_settles_at_what_a_minute_holds():
    minute = Fading()
    for second in range(600):
        minute.add(1_000, now=1_000.0 + second)
    assert minute.level(now=1_600.0) == pytest.approx(60_000, rel=0.02)
    assert minute.level(now=1_900.0) < 500


def test_an_estimate_is_corrected_as_if_it_had_been_known():
    known, guessed = Fading(), Fading()
    known.add(300, now=10.0)
    guessed.add(5_000, now=10.0)
    guessed.correct(expected=5_000, actual=300, started=10.0, now=40.0)
    assert guessed.level(now=40.0) == pytest.approx(known.level(now=40.0), abs=1)


def test_the_wait_is_as_long_as_fading_takes():
    minute = Fading()
    minute.add(200_000, now=0.0)
    wait = limits.seconds_until_below(200_000, 100_000)
    assert minute.level(now=wait) == pytest.approx(100_000)
    assert limits.seconds_until_below(5, 100_000) == 0
