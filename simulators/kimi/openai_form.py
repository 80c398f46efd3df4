"""The OpenAI form: /v1/chat/completions."""

import time
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

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
IMAGE_ADDRESSES = ("data:image/", "http://", "https://", "ms://")
DONE = "[DONE]"


def read(body: dict[str, Any]) -> Question:
    """Check a request and return what it asks.

    Raises:
        VendorError: a field is missing or wrong, or the model does not exist.
    """
    model = model_of(body)
    messages = check_messages(body, ROLES)
    prompt_bytes = text_bytes(messages)
    check_size(model, prompt_bytes)
    is_stream = body.get("stream") is True
    options = body.get("stream_options")
    if options is not None and not is_stream:
        raise invalid("stream_options is only allowed with stream")
    wants_reasoning = _wants_reasoning(body)
    if wants_reasoning:
        _check_reasoning(messages)
    tools = _tools(body)
    last = messages[-1]
    return Question(
        model=model,
        is_stream=is_stream,
        wants_usage=bool(object_of(body, "stream_options").get("include_usage")),
        wants_reasoning=wants_reasoning,
        prompt_bytes=prompt_bytes,
        last_user_text=last_user_text(messages),
        tool_result=plain(last["content"]) if last["role"] == "tool" else None,
        images=_images(messages),
        tools=tools,
        must_call=_must_call(body, tools),
        most_tokens=number_of(body, "max_completion_tokens") or number_of(body, "max_tokens"),
    )


def error_body(error: VendorError) -> dict[str, Any]:
    return error.openai_body()


def error_event(error: VendorError) -> Event:
    return Event(data=error.openai_body())


def whole(question: Question, reply: Reply) -> dict[str, Any]:
    """Return the answer of a request without streaming."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [_call(at, call) for at, call in enumerate(reply.tool_calls)]
    body = {
        "id": _new_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": question.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(reply)}],
    }
    return body | ({"usage": _usage(reply.usage)} if reply.usage else {})


def chunks(question: Question, reply: Reply) -> Iterator[Event]:
    """Yield the events of a streamed answer.

    Kimi tells the usage in the last choice always, and in a chunk of its own only when asked.
    """
    base = {
        "id": _new_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": question.model,
    }
    used = _usage(reply.usage) if reply.usage else None
    for count, delta in enumerate(_deltas(reply)):
        is_content = bool(delta.get("content")) or "tool_calls" in delta
        chunk: dict[str, Any] = base | {
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}]
        }
        if used and reply.usage_at == "often":
            chunk["usage"] = used | {"completion_tokens": min(count, used["completion_tokens"])}
        yield Event(data=chunk, is_content=is_content)
    last: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": _finish(reply)}
    if used and reply.usage_at != "top":
        last["usage"] = used
    yield Event(data=base | {"choices": [last]})
    if used and question.wants_usage and reply.usage_at != "choice":
        yield Event(data=base | {"choices": [], "usage": used})
    yield Event(data=DONE)


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for piece in pieces(reply.reasoning):
        yield {"reasoning_content": piece}
    for piece in pieces(reply.text):
        yield {"content": piece}
    for at, call in enumerate(reply.tool_calls):
        begun = {"index": at} | _call(at, ToolCall(name=call.name, arguments=""))
        yield {"tool_calls": [begun]}
        for piece in pieces(call.arguments):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


def _wants_reasoning(body: dict[str, Any]) -> bool:
    """Kimi has a switch of its own beside OpenAI's effort."""
    thinking = object_of(body, "thinking").get("type")
    if thinking is not None:
        return thinking != "disabled"
    effort = body.get("reasoning_effort")
    return isinstance(effort, str) and effort not in {"none", "off"}


def _check_reasoning(messages: Messages) -> None:
    for at, message in enumerate(messages):
        if message.get("tool_calls") and not message.get("reasoning_content"):
            raise VendorError(
                400,
                "thinking is enabled but reasoning_content is missing in assistant tool call"
                f" message at index {at}",
            )


def _images(messages: Messages) -> int:
    found = list(parts_of(messages, "image_url"))
    for part in found:
        url = str(object_of(part, "image_url").get("url"))
        if not url.startswith(IMAGE_ADDRESSES):
            raise invalid(f"unsupported image url: {url}")
    return len(found)


def _tools(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    functions = [object_of(tool, "function") for tool in objects_of(body, "tools")]
    names = [function.get("name") for function in functions]
    if not all(isinstance(name, str) and name for name in names):
        raise invalid("each of tools needs a function with a name")
    check_names([str(name) for name in names])
    return {str(one["name"]): object_of(one, "parameters") for one in functions}


def _must_call(body: dict[str, Any], tools: dict[str, dict[str, Any]]) -> str | None:
    choice = body.get("tool_choice")
    if choice == "required":
        return next(iter(tools), None)
    if not isinstance(choice, dict):
        return None
    name = object_of(choice, "function").get("name")
    if name not in tools:
        raise invalid(f"tool_choice names {name}, which is none of tools")
    return str(name)


def _call(at: int, call: ToolCall) -> dict[str, Any]:
    """Return a call; Kimi's ids are the tool's name and a number."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"{call.name}:{at}", "type": "function", "function": function}


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _finish(reply: Reply) -> str:
    if reply.tool_calls:
        return "tool_calls"
    return "length" if reply.is_cut_short else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    """Return the counts; what was cached is there twice, in Kimi's spelling and in OpenAI's."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "cached_tokens": usage.cached,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
