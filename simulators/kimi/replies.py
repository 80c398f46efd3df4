"""What the model says next: what was queued, or a friendly sentence of its own, and its cost."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulators.kimi.answers import Answer

BYTES_PER_TOKEN = 4
QUOTE_LENGTH = 160
REASONING = "They want a short and friendly answer."


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens, as OpenAI counts them: cached ones are among the prompt, reasoning in completion."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0

    def as_json(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "cached_tokens": self.cached,
            "reasoning_tokens": self.reasoning,
        }


@dataclass(frozen=True, kw_only=True)
class Question:
    """What both wire forms ask, in one shape."""

    model: str
    is_stream: bool
    wants_usage: bool
    wants_reasoning: bool
    prompt_bytes: int
    last_user_text: str
    tool_result: str | None
    images: int
    tools: Mapping[str, dict[str, Any]]  # by name, with the schema of their arguments
    must_call: str | None  # the name of a tool
    most_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What both wire forms answer, in one shape."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    usage: Usage | None
    usage_at: str | None
    is_cut_short: bool


def compose(question: Question, answer: Answer) -> Reply:
    """Turn a queued answer into words, calls of tools and token counts."""
    calls = _tool_calls(question, answer)
    text = _text(question, answer, has_calls=bool(calls))
    limit = question.most_tokens
    is_cut_short = False
    if answer.completion_tokens is None and limit is not None and count_tokens(text) > limit:
        text = text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
        is_cut_short = True
    reasoning = answer.reasoning
    if reasoning is None:
        reasoning = REASONING if question.wants_reasoning or answer.reasoning_tokens else ""
    said = text + "".join(call.name + call.arguments for call in calls)
    return Reply(
        text=text,
        reasoning=reasoning,
        tool_calls=calls,
        usage=None if answer.no_usage else _usage(question, answer, said, reasoning),
        usage_at=answer.usage_at,
        is_cut_short=is_cut_short,
    )


def count_tokens(text: str) -> int:
    return tokens_of(len(text.encode()))


def tokens_of(size_bytes: int) -> int:
    return math.ceil(size_bytes / BYTES_PER_TOKEN)


def pieces(text: str) -> list[str]:
    """Cut a text into words, as a model's tokens would arrive."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def _usage(question: Question, answer: Answer, said: str, reasoning: str) -> Usage:
    reasoning_tokens = _first(answer.reasoning_tokens, count_tokens(reasoning))
    return Usage(
        prompt=_first(answer.prompt_tokens, max(1, tokens_of(question.prompt_bytes))),
        completion=_first(answer.completion_tokens, count_tokens(said) + reasoning_tokens),
        cached=_first(answer.cached_tokens, 0),
        reasoning=reasoning_tokens,
    )


def _tool_calls(question: Question, answer: Answer) -> tuple[ToolCall, ...]:
    if answer.tool_calls is not None:
        return tuple(_queued_call(call) for call in answer.tool_calls)
    if question.must_call is None or answer.text is not None:
        return ()
    made_up = _example(question.tools[question.must_call])
    return (ToolCall(name=question.must_call, arguments=json.dumps(made_up)),)


def _queued_call(call: dict[str, Any]) -> ToolCall:
    arguments = call.get("arguments", {})
    as_text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(name=call["name"], arguments=as_text)


def _example(schema: Any) -> Any:
    """Return the smallest value of a JSON schema, as far as tools use them."""
    if not isinstance(schema, dict):
        return {}
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        known = schema.get("properties") or {}
        return {name: _example(known.get(name)) for name in schema.get("required") or ()}
    return {"string": "example", "integer": 1, "number": 1.5, "boolean": True, "array": []}.get(
        kind if isinstance(kind, str) else "null"
    )


def _text(question: Question, answer: Answer, *, has_calls: bool) -> str:
    if answer.text is not None:
        return answer.text
    return "" if has_calls else _default_text(question)


def _default_text(question: Question) -> str:
    if question.tool_result is not None:
        return f"The tool answered: “{_quote(question.tool_result)}”."
    said = " ".join(question.last_user_text.split())
    if question.images:
        count = "one picture" if question.images == 1 else f"{question.images} pictures"
        return f"I was sent {count}" + (f" and: “{_quote(said)}”." if said else ".")
    if not said:
        return "Hello! I am here. What can I do for you?"
    if said.startswith("/start"):
        return "Hello! I am your assistant, awake and ready. What can I do for you?"
    return (
        f"You wrote: “{_quote(said)}”. I am a stand-in for {question.model} on your own machine, so"
        " I cannot think about it, but your message came all the way here and this answer came"
        " back."
    )


def _quote(text: str) -> str:
    return text if len(text) <= QUOTE_LENGTH else text[:QUOTE_LENGTH].rstrip() + "…"


def _first(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given
