"""A short answer in the provider's place: the assistant itself says why it cannot go on."""

from uuid import uuid4

import msgspec

from openclaw_web.core.clock import real_now
from openclaw_web.gateway.errors import Form
from openclaw_web.gateway.wire import Request

_DONE = b"data: [DONE]\n\n"


def stream(text: str, request: Request) -> bytes:
    """Return a whole stream that says `text` and used nothing."""
    if request.form is Form.ANTHROPIC:
        return _anthropic(text, request.asked_model)
    return _openai(text, request)


def _openai(text: str, request: Request) -> bytes:
    head = {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion.chunk",
        "created": int(real_now().timestamp()),
        "model": request.asked_model,
    }
    said = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    ended = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks: list[dict[str, object]] = [{**head, "choices": [said]}, {**head, "choices": [ended]}]
    if request.wants_usage:
        nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        chunks.append({**head, "choices": [], "usage": nothing})
    return b"".join(_line(chunk) for chunk in chunks) + _DONE


def _anthropic(text: str, model: str) -> bytes:
    message = {
        "id": f"msg_{uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": message},
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


def _line(event: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
