"""The Anthropic form: /v1/messages."""

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

ROLES = frozenset({"user", "assistant", "system"})


def read(body: dict[str, Any]) -> Question:
    """Check a request and return what it asks.

    Raises:
        VendorError: a field is missing or wrong, or the model does not exist.
    """
    model = model_of(body)
    messages = check_messages(body, ROLES)
    most_tokens = number_of(body, "max_tokens")
    if most_tokens is None:
        raise VendorError(400, "max_tokens: Field required")
    thinking = body.get("thinking")
    return Question(
        model=model,
        is_stream=body.get("stream") is True,
        wants_usage=True,
        wants_reasoning=isinstance(thinking, dict) and thinking.get("type") == "enabled",
        prompt_bytes=text_bytes(messages) + text_bytes(body.get("system")),
        last_user_text=last_user_text(messages),
        most_tokens=most_tokens,
    )


def error_body(error: VendorError) -> dict[str, Any]:
    return error.anthropic_body()


def whole(question: Question, reply: Reply, *, has_usage: bool) -> dict[str, Any]:
    """Return the answer of a request without streaming."""
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}]
    if reply.reasoning:
        thought = {"type": "thinking", "thinking": reply.reasoning, "signature": _signature()}
        content.insert(0, thought)
    usage = _input_usage(reply.usage) | {"output_tokens": reply.usage.completion}
    body = _message(question) | {
        "content": content,
        "stop_reason": _stop(reply),
        "usage": usage,
    }
    if not has_usage:
        del body["usage"]
    return body


def chunks(question: Question, reply: Reply, *, has_usage: bool) -> Iterator[Event]:
    """Yield the events of a streamed answer; the input is counted first, the output at the end."""
    first = _message(question)
    if has_usage:
        first["usage"] = _input_usage(reply.usage) | {"output_tokens": 1}
    yield _event("message_start", message=first)
    yield _event("ping")
    index = 0
    if reply.reasoning:
        yield from _thinking(reply)
        index = 1
    start = {"type": "text", "text": ""}
    yield _event("content_block_start", index=index, content_block=start)
    for piece in pieces(reply.text):
        delta = {"type": "text_delta", "text": piece}
        event = _event("content_block_delta", index=index, delta=delta)
        yield Event(name=event.name, data=event.data, is_content=True)
    yield _event("content_block_stop", index=index)
    end: dict[str, Any] = {"delta": {"stop_reason": _stop(reply), "stop_sequence": None}}
    if has_usage:
        end["usage"] = _input_usage(reply.usage) | {"output_tokens": reply.usage.completion}
    yield _event("message_delta", **end)
    yield _event("message_stop")


def _thinking(reply: Reply) -> Iterator[Event]:
    empty = {"type": "thinking", "thinking": "", "signature": ""}
    yield _event("content_block_start", index=0, content_block=empty)
    thought = {"type": "thinking_delta", "thinking": reply.reasoning}
    yield _event("content_block_delta", index=0, delta=thought)
    signed = {"type": "signature_delta", "signature": _signature()}
    yield _event("content_block_delta", index=0, delta=signed)
    yield _event("content_block_stop", index=0)


def _event(kind: str, **fields: Any) -> Event:
    return Event(name=kind, data={"type": kind, **fields})


def _message(question: Question) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": question.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _signature() -> str:
    return uuid.uuid4().hex


def _stop(reply: Reply) -> str:
    return "max_tokens" if reply.is_cut_short else "end_turn"


def _input_usage(usage: Usage) -> dict[str, int]:
    """Anthropic counts what was read from the cache beside the input, not among it."""
    return {
        "input_tokens": max(0, usage.prompt - usage.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
    }
