"""What the fake provider answers: both APIs' wire forms, and how a prompt asks for a case.

A prompt may begin with a script such as `bench[c10,d5]`, which every proxy passes on untouched:
`cN` N tokens (and chunks), `dN` N ms before each chunk (or before a whole answer), `kimi` usage
only in the last chunk's choice, `cut` end the connection in mid-stream, `fail` status 500.
"""

import json
import re
from dataclasses import dataclass
from functools import cache

PROMPT_TOKENS = 137
WHOLE_TOKENS = 211  # of an answer that is not streamed, unless the script says otherwise
CHUNKS = 50
TEXT = (
    "The quick brown fox jumps over the lazy dog and keeps running through the quiet forest until "
    "the moon is high above the hills. "
) * 5
MODEL = "kimi-for-coding"
ID_PLACE = b"R" * 16  # as long as an id, so that a cached chunk's length stays right

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"

_SCRIPT = re.compile(rb"bench\[([a-z0-9,]*)\]")
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')


@dataclass(frozen=True)
class Case:
    """One way to answer."""

    is_anthropic: bool
    is_stream: bool
    tokens: int
    delay_ms: int = 0
    has_usage_chunk: bool = False
    is_kimi: bool = False
    is_cut: bool = False
    is_failure: bool = False


def case_of(body: bytes, *, is_anthropic: bool) -> Case:
    found = _SCRIPT.search(body, 0, 1_024)
    words = found[1].decode().split(",") if found else []
    numbers = {word[0]: int(word[1:]) for word in words if word[1:].isdigit()}
    is_stream = _STREAM.search(body) is not None
    is_kimi = "kimi" in words
    return Case(
        is_anthropic=is_anthropic,
        is_stream=is_stream,
        tokens=numbers.get("c", CHUNKS if is_stream else WHOLE_TOKENS),
        delay_ms=numbers.get("d", 0),
        has_usage_chunk=is_stream and not is_kimi and _USAGE.search(body) is not None,
        is_kimi=is_kimi,
        is_cut="cut" in words,
        is_failure="fail" in words,
    )


def response(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


@cache
def whole(case: Case) -> bytes:
    """Return an answer that is not streamed, with `ID_PLACE` where its id goes."""
    return response(_json(_message(case) if case.is_anthropic else _completion(case)))


@cache
def chunks(case: Case) -> list[bytes]:
    """Return a stream's events, each framed as one HTTP chunk, with `ID_PLACE` in them."""
    events = _anthropic_events(case) if case.is_anthropic else _openai_events(case)
    return [b"%x\r\n%s\r\n" % (len(event), event) for event in events]


def _completion(case: Case) -> dict[str, object]:
    message = {"role": "assistant", "content": TEXT}
    return {
        "id": f"chatcmpl-{ID_PLACE.decode()}",
        "object": "chat.completion",
        "created": 1_763_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(case),
    }


def _message(case: Case) -> dict[str, object]:
    return {
        "id": f"msg_{ID_PLACE.decode()}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": case.tokens},
    }


def _openai_events(case: Case) -> list[bytes]:
    head = {
        "id": f"chatcmpl-{ID_PLACE.decode()}",
        "object": "chat.completion.chunk",
        "created": 1_763_000_000,
        "model": MODEL,
    }
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f"token{number} of the reply "} for number in range(case.tokens)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    last: dict[str, object] = {"index": 0, "delta": {}, "finish_reason": "stop"}
    if case.is_kimi:
        last["usage"] = _usage(case)
    parts: list[dict[str, object]] = [{**head, "choices": [one]} for one in [*choices, last]]
    if case.has_usage_chunk:
        parts.append({**head, "choices": [], "usage": _usage(case)})
    return [*(b"data: " + _json(part) + b"\n\n" for part in parts), b"data: [DONE]\n\n"]


def _anthropic_events(case: Case) -> list[bytes]:
    begun = {"input_tokens": PROMPT_TOKENS, "output_tokens": 1}
    message = {**_message(case), "content": [], "stop_reason": None, "usage": begun}
    empty = {"type": "text", "text": ""}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": empty},
    ]
    for number in range(case.tokens):
        delta = {"type": "text_delta", "text": f"token{number} of the reply "}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": case.tokens}},
        {"type": "message_stop"},
    ]
    return [f"event: {one['type']}\n".encode() + b"data: " + _json(one) + b"\n\n" for one in events]


def _usage(case: Case) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": case.tokens,
        "total_tokens": PROMPT_TOKENS + case.tokens,
    }


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
