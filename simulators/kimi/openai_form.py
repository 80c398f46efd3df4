"""The OpenAI form: /v1/chat/completions."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from simulators.kimi.answers import Question, Reply, Usage
from simulators.kimi.errors import VendorError
from simulators.kimi.reading import (
    Event,
    check_messages,
    last_user_text,
    model_of,
    number_of,
    pieces,
    text_bytes,
)

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
DONE = "[DONE]"


def read(body: dict[str, Any]) -> Question:
    """Check a request and return what it asks.

    Raises:
        VendorError: a field is missing or wrong, or the model does not exist.
    """
    model = model_of(body)
    messages = check_messages(body, ROLES)
    stream_options = body.get("stream_options")
    is_stream = body.get("stream") is True
    if stream_options is not None and not is_stream:
        raise VendorError(400, "Invalid request: stream_options is only allowed with stream")
    effort = body.get("reasoning_effort")
    return Question(
        model=model,
        is_stream=is_stream,
        wants_usage=isinstance(stream_options, dict) and bool(stream_options.get("include_usage")),
        wants_reasoning=isinstance(effort, str) and effort not in {"none", "off"},
        prompt_bytes=text_bytes(messages),
        last_user_text=last_user_text(messages),
        most_tokens=number_of(body, "max_completion_tokens") or number_of(body, "max_tokens"),
    )


def error_body(error: VendorError) -> dict[str, Any]:
    return error.openai_body()


def whole(question: Question, reply: Reply, *, has_usage: bool) -> dict[str, Any]:
    """Return the answer of a request without streaming."""
    message = {"role": "assistant", "content": reply.text}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    body = {
        "id": _new_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": question.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(reply)}],
    }
    return body | ({"usage": _usage(reply.usage)} if has_usage else {})


def chunks(question: Question, reply: Reply, *, has_usage: bool) -> Iterator[Event]:
    """Yield the events of a streamed answer; the usage comes last, and only when asked for."""
    base = {
        "id": _new_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": question.model,
    }

    def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return base | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield Event(data=choice({"role": "assistant", "content": ""}))
    if reply.reasoning:
        yield Event(data=choice({"reasoning_content": reply.reasoning}))
    for piece in pieces(reply.text):
        yield Event(data=choice({"content": piece}), is_content=True)
    yield Event(data=choice({}, _finish(reply)))
    if has_usage and question.wants_usage:
        yield Event(data=base | {"choices": [], "usage": _usage(reply.usage)})
    yield Event(data=DONE)


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _finish(reply: Reply) -> str:
    return "length" if reply.is_cut_short else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
