"""The rules of admission as plain arithmetic: estimates, the two zones, rates."""

import math
from functools import lru_cache
from typing import Final

CHARACTERS_PER_TOKEN: Final = 4
EXPECTED_ANSWER_TOKENS: Final = 1_000  # of a request that names no most
LARGEST_ANSWER_TOKENS: Final = 4_096  # agents allow far more than they write
# About what 1092 x 1092 pixels cost elsewhere; Kimi publishes no figure.
PICTURE_TOKENS: Final = 1_500

FAR_PERCENT: Final = 10
FAR_TOKENS_PER_REQUEST: Final = 300_000  # one whole context and its answer, and a little
ALONE_PERCENT: Final = 2

BURST_SECONDS: Final = 2  # as many requests as two seconds allow may come at once
MINUTE_SECONDS: Final = 60.0
_MOMENT: Final = 0.01  # in which next to nothing fades

_FEW_BYTES: Final = 128 * 1024  # decoding the JSON costs more than a look, from here on
_SAMPLES: Final = 8
_SAMPLE_BYTES: Final = 64
_PAYLOAD_BYTES: Final = 256  # what is shorter counts as text
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\\"
_STARTS: Final = (b";base64,", b'"data"')  # OpenAI's data URL, and Anthropic's field


def expected_tokens(
    body: bytes, max_tokens: int | None, context_tokens: int, *, is_exact: bool = False
) -> int:
    """Estimate what a request will use, prompt and answer; held only while it runs.

    Pictures inside the body are no text. Small bodies are not searched for them unless the estimate
    shall be `is_exact`: there a wrong guess is small, and far from the limit it decides nothing.
    """
    size = len(body)
    prompt = size // CHARACTERS_PER_TOKEN
    if is_exact or (size > _FEW_BYTES and _may_hold_pictures(body)):
        pictures, payload = _pictures(body)
        prompt = (size - payload) // CHARACTERS_PER_TOKEN + pictures * PICTURE_TOKENS
    prompt = min(prompt, context_tokens)
    if max_tokens is None or max_tokens < 1:
        return prompt + EXPECTED_ANSWER_TOKENS
    return prompt + min(max_tokens, LARGEST_ANSWER_TOKENS)


@lru_cache(maxsize=1_000)
def far_below(limit: int, parallel_requests: int) -> int:
    """Return below which total a process decides by itself: the limit less a margin.

    The margin covers what other processes may have started since they last told.
    """
    margin = max(limit * FAR_PERCENT // 100, parallel_requests * FAR_TOKENS_PER_REQUEST)
    return limit - margin


def may_go_on_alone(*, known: int, own: int, tokens: int, limit: int) -> bool:
    """Tell whether a process that cannot reach the shared counters may start one more request.

    `own` is what this process has settled and not written, or has under way. It stays within two
    percent of the limit, but one request at a time is always possible.
    """
    if known + own >= limit:
        return False
    return own == 0 or own + tokens <= limit * ALONE_PERCENT // 100


class Bucket:
    """Requests: it fills with so many a second and holds two seconds' worth."""

    __slots__ = ("_level", "_since")

    def __init__(self) -> None:
        self._level = math.inf
        self._since = 0.0

    def take(self, per_second: float, now: float) -> float:
        """Take one request and return 0, or take nothing and return how many seconds to wait."""
        level = self.level(per_second, now)
        if level < 1:
            return (1 - level) / per_second
        self._level = level - 1
        return 0.0

    def level(self, per_second: float, now: float) -> float:
        """Return how many requests may come at once."""
        level = self._level + (now - self._since) * per_second
        full = per_second * BURST_SECONDS
        if level > full:
            level = full if full > 1 else 1.0
        self._level = level
        self._since = now
        return level


class Fading:
    """Tokens of about the last minute: each counts less the older it is.

    With a time constant of a minute, a steady use of `n` tokens a minute settles at `n`. Unlike a
    bucket, the levels of several processes simply add up.
    """

    __slots__ = ("_level", "_since")

    def __init__(self) -> None:
        self._level = 0.0
        self._since = 0.0

    def add(self, tokens: float, now: float) -> None:
        level = self.level(now) + tokens
        self._level = level if level > 0 else 0.0

    def correct(self, *, expected: int, actual: int, started: float, now: float) -> None:
        """Replace the estimate of a request by what it used, as if that had been known then."""
        self.add((actual - expected) * faded(now - started), now)

    def level(self, now: float) -> float:
        elapsed = now - self._since
        if elapsed > _MOMENT:
            self._level *= faded(elapsed)
            self._since = now
        return self._level


def faded(seconds: float) -> float:
    """Return how much of a token counts after that time, from 1 to 0."""
    return math.exp(-seconds / MINUTE_SECONDS)


def seconds_until_below(level: float, most: float) -> float:
    """Return how long a fading level takes to fall to `most`."""
    return MINUTE_SECONDS * math.log(level / most) if level > most else 0.0


def _may_hold_pictures(body: bytes) -> bool:
    """Look at a few places: a long run of base64 has no blanks, quotes or punctuation."""
    step = len(body) // _SAMPLES
    return any(
        not body[start : start + _SAMPLE_BYTES].translate(None, _BASE64)
        for start in range(step // 2, len(body), step)
    )


def _pictures(body: bytes) -> tuple[int, int]:
    """Return how many pictures there are, and how many bytes of the body are their data."""
    count, payload = 0, 0
    for start in _STARTS:
        at = body.find(start)
        while at >= 0:
            begin, end = _payload(body, at + len(start), is_quoted=start == b'"data"')
            if end - begin >= _PAYLOAD_BYTES:
                count += 1
                payload += end - begin
            at = body.find(start, max(end, at + len(start)))
    named = body.count(b'"image_url"') // 2 + body.count(b'"image"')
    return max(count, named), payload


def _payload(body: bytes, at: int, *, is_quoted: bool) -> tuple[int, int]:
    """Return where base64 data begins and ends; both are the same where there is none."""
    begin = body.find(b'"', at) + 1 if is_quoted else at
    end = body.find(b'"', begin)
    if begin == 0 or end < 0 or body[begin : min(end, begin + _SAMPLE_BYTES)].strip(_BASE64):
        return at, at
    return begin, end
