"""The Anthropic form: /v1/messages."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

from simulators.kimi.errors import VendorError
from simulators.kimi.events import Event
from simulators.kimi.reading import (
    Messages,
    check_messages,
    check_names,
    check_size,
    invalid,
    last_user_text,
    model_of,
    number_of,
    object_of,
    objects_of,
    parts_of,
    plain,
    text_bytes,
)
from simulators.kimi.replies import Question, Reply, ToolCall, Usage, pieces

ROLES = frozenset({"user", "assistant", "system"})
THINKING = frozenset({"enabled", "adaptive"})
IMAGE_SOURCES = frozenset({"base64", "url", "file"})


def read(body: dict[str, Any]) -> Question:
    """Check a request and return what it asks.

    Raises:
        VendorError: a field is missing or wrong, or the model does not exist.
    """
    model = model_of(body)
    messages = check_messages(body, ROLES)
    prompt_bytes = text_bytes(messages) + text_bytes(body.get("system"))
    check_size(model, prompt_bytes)
    most_tokens = number_of(body, "max_tokens")
    if most_tokens is None:
        raise VendorError(400, "max_tokens: Field required")
    tools = _tools(body)
    return Question(
        model=model,
        is_stream=body.get("stream") is True,
        wants_usage=True,
        wants_reasoning=object_of(body, "thinking").get("type") in THINKING,
        prompt_bytes=prompt_bytes,
        last_user_text=last_user_text(messages),
        tool_result=_tool_result(messages),
        images=_images(messages),
        tools=tools,
        must_call=_must_call(body, tools),
        most_tokens=most_tokens,
    )


def error_body(error: VendorError) -> dict[str, Any]:
    return error.anthropic_body()


def error_event(error: VendorError) -> Event:
    return Event(name="error", data=error.anthropic_body())


def whole(question: Question, reply: Reply) -> dict[str, Any]:
    """Return the answer of a request without streaming."""
    body = _message(question) | {
        "content": [block for block, _ in _blocks(reply)],
        "stop_reason": _stop(reply),
    }
    if reply.usage:
        body["usage"] = _input_usage(reply.usage) | {"output_tokens": reply.usage.completion}
    return body


def chunks(question: Question, reply: Reply) -> Iterator[Event]:
    """Yield the events of a streamed answer.

    The input is counted at the start. What `message_delta` counts is the sum so far, also when
    there are several of them: whoever adds them up counts twice.
    """
    first = _message(question)
    if reply.usage:
        first["usage"] = _input_usage(reply.usage) | {"output_tokens": min(1, _output(reply))}
    yield _event("message_start", message=first)
    yield _event("ping")
    for index, (block, deltas) in enumerate(_blocks(reply)):
        yield _event("content_block_start", index=index, content_block=_emptied(block))
        for delta in deltas:
            event = _event("content_block_delta", index=index, delta=delta)
            is_content = delta["type"] in {"text_delta", "input_json_delta"}
            yield Event(name=event.name, data=event.data, is_content=is_content)
        yield _event("content_block_stop", index=index)
    end = {"stop_reason": _stop(reply), "stop_sequence": None}
    if reply.usage:
        if reply.usage_at == "often":
            so_far = {"output_tokens": _output(reply) // 2}
            yield _event("message_delta", delta={"stop_reason": None}, usage=so_far)
        used = _input_usage(reply.usage) | {"output_tokens": _output(reply)}
        yield _event("message_delta", delta=end, usage=used)
    else:
        yield _event("message_delta", delta=end)
    yield _event("message_stop")


def _blocks(reply: Reply) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each block of the answer with the deltas that it is streamed in."""
    if reply.reasoning:
        signature = uuid.uuid4().hex
        thoughts = [{"type": "thinking_delta", "thinking": one} for one in pieces(reply.reasoning)]
        yield (
            {"type": "thinking", "thinking": reply.reasoning, "signature": signature},
            [*thoughts, {"type": "signature_delta", "signature": signature}],
        )
    if reply.text or not reply.tool_calls:
        words = [{"type": "text_delta", "text": one} for one in pieces(reply.text)]
        yield {"type": "text", "text": reply.text}, words
    for call in reply.tool_calls:
        parts = [
            {"type": "input_json_delta", "partial_json": one} for one in pieces(call.arguments)
        ]
        yield _call(call), parts


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = {}
    return {
        "type": "tool_use",
        "id": f"toolu_{uuid.uuid4().hex[:24]}",
        "name": call.name,
        "input": arguments,
    }


def _emptied(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block as its start shows it, before anything has been said."""
    empty = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {
        name: empty.get(name, value) if name != "type" else value for name, value in block.items()
    }


def _tools(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    tools = objects_of(body, "tools")
    if not all(isinstance(tool.get("name"), str) and tool["name"] for tool in tools):
        raise invalid("each of tools needs a name")
    check_names([tool["name"] for tool in tools])
    return {tool["name"]: object_of(tool, "input_schema") for tool in tools}


def _must_call(body: dict[str, Any], tools: dict[str, dict[str, Any]]) -> str | None:
    choice = object_of(body, "tool_choice")
    if choice.get("type") == "any":
        return next(iter(tools), None)
    if choice.get("type") != "tool":
        return None
    if choice.get("name") not in tools:
        raise invalid(f"tool_choice names {choice.get('name')}, which is none of tools")
    return str(choice["name"])


def _tool_result(messages: Messages) -> str | None:
    results = list(parts_of(messages[-1:], "tool_result"))
    return plain(results[-1].get("content")) if results else None


def _images(messages: Messages) -> int:
    found = list(parts_of(messages, "image"))
    for part in found:
        kind = object_of(part, "source").get("type")
        if kind not in IMAGE_SOURCES:
            raise invalid(f"unsupported image source: {kind}")
    return len(found)


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


def _stop(reply: Reply) -> str:
    if reply.tool_calls:
        return "tool_use"
    return "max_tokens" if reply.is_cut_short else "end_turn"


def _output(reply: Reply) -> int:
    return reply.usage.completion if reply.usage else 0


def _input_usage(usage: Usage) -> dict[str, int]:
    """Anthropic counts what was read from the cache beside the input, not among it."""
    return {
        "input_tokens": max(0, usage.prompt - usage.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
    }
