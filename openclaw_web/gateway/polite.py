"""A short answer in the provider's place: the assistant itself says why it cannot go on."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec
from babel.dates import format_date

from openclaw_web.core.clock import real_now
from openclaw_web.gateway.errors import (
    Form,
    LimitReachedError,
    NotEntitledError,
    Pause,
    PoliteError,
)
from openclaw_web.gateway.wire import Request

DEFAULT_LANGUAGE = "en"
JSON = b"application/json"
EVENT_STREAM = b"text/event-stream"

_DONE = b"data: [DONE]\n\n"
_REASONS = {Pause.INACTIVE: "inactive", Pause.PAUSED: "paused", Pause.HELD: "held"}
_SENTENCES: dict[str, dict[str, str]] = tomllib.loads(
    (Path(__file__).parent / "polite.toml").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Answer:
    """What is sent with status 200."""

    content_type: bytes
    body: bytes


def languages() -> tuple[str, ...]:
    """Return the languages that the sentences exist in."""
    return tuple(_SENTENCES)


def answer(refusal: PoliteError, request: Request, *, language: str = DEFAULT_LANGUAGE) -> Answer:
    """Return a complete answer that says why, streamed or whole as it was asked for, using nothing.

    Agents show an answer as it is; an error they would wrap in words of their own, in English.
    """
    text = sentence(refusal, language)
    is_anthropic = request.form is Form.ANTHROPIC
    if request.is_stream:
        stream = _anthropic_stream if is_anthropic else _openai_stream
        return Answer(EVENT_STREAM, stream(text, request))
    body = _anthropic_whole(text, request) if is_anthropic else _openai_whole(text, request)
    return Answer(JSON, msgspec.json.encode(body))


def sentence(refusal: PoliteError, language: str) -> str:
    """Say a refusal in a language ("de", "pt-BR"); in English where we do not speak it."""
    spoken = language.replace("_", "-").partition("-")[0].lower()
    if spoken not in _SENTENCES:
        spoken = DEFAULT_LANGUAGE
    if isinstance(refusal, LimitReachedError):
        day = format_date(refusal.resets_at.date(), format="long", locale=spoken)
        return _SENTENCES[spoken]["limit"].format(date=day, link=refusal.home_url)
    pause = refusal.pause if isinstance(refusal, NotEntitledError) else Pause.INACTIVE
    return _SENTENCES[spoken][_REASONS[pause]].format(link=refusal.home_url)


def _openai_whole(text: str, request: Request) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _openai_head("chat.completion", request) | {"choices": [choice], "usage": _nothing()}


def _openai_stream(text: str, request: Request) -> bytes:
    head = _openai_head("chat.completion.chunk", request)
    said = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    ended = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks = [{**head, "choices": [said]}, {**head, "choices": [ended]}]
    if request.wants_usage:
        chunks.append({**head, "choices": [], "usage": _nothing()})
    return b"".join(_line(chunk) for chunk in chunks) + _DONE


def _openai_head(kind: str, request: Request) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": kind,
        "created": int(real_now().timestamp()),
        "model": request.asked_model,
    }


def _nothing() -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def _anthropic_whole(text: str, request: Request) -> dict[str, object]:
    content = [{"type": "text", "text": text}]
    return _anthropic_message(request) | {"content": content, "stop_reason": "end_turn"}


def _anthropic_stream(text: str, request: Request) -> bytes:
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": _anthropic_message(request)},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 0}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\n".encode() + _line(event) for event in events)


def _anthropic_message(request: Request) -> dict[str, object]:
    return {
        "id": f"msg_{uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": request.asked_model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def _line(event: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
