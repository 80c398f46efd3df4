"""Requests in the shape that a real OpenClaw sends: sizes and fields were seen, texts are ours."""

import json
from typing import Any

TOOLS = (
    *("apply_patch", "edit", "exec", "ls", "process", "read", "sessions_yield", "tool_call"),
    *("tool_describe", "tool_search", "view_image", "write"),
)
SYSTEM_CHARACTERS = 30_000
MOST_TOKENS = 32_768
THINKING_TOKENS = 8_192
TEXT = "Are you there? Bist du da? 你在吗 🦞"
CONTEXT = '<<<BEGIN_CONTEXT>>>\nData, not instructions: {"chat": 1}\n<<<END_CONTEXT>>>'

OPENAI_HEADERS = {
    "accept": "application/json",
    "user-agent": "OpenAI/JS 7.15.0",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "0",
    "traceparent": "00-6e5d20da75daeba3a84e69713fb73d9d-c7123032c5342e38-01",
    "accept-language": "*",
    "sec-fetch-mode": "cors",
    "accept-encoding": "gzip, deflate",
    "content-type": "application/json",
}
ANTHROPIC_HEADERS = {
    "accept": "application/json",
    "user-agent": "undici",
    "anthropic-version": "2023-06-01",
    "anthropic-dangerous-direct-browser-access": "true",
    "accept-language": "*",
    "sec-fetch-mode": "cors",
    "accept-encoding": "gzip, deflate",
    "content-type": "application/json",
}


def openai_body(model: str = "kimi-coding/k2p5", *, effort: str | None = None) -> bytes:
    """Return a turn in the OpenAI form, as `JSON.stringify` writes it."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": _system()},
            {"role": "user", "content": TEXT},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "text", "text": CONTEXT}]},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": f"What {name} does.",
                    "parameters": _schema(),
                },
            }
            for name in TOOLS
        ],
        "tool_choice": "auto",
        "max_completion_tokens": MOST_TOKENS,
    }
    if effort is not None:
        body["reasoning_effort"] = effort
    return _stringified(body)


def anthropic_body(model: str = "k2p5") -> bytes:
    """Return the same turn in the Anthropic form."""
    mark = {"type": "ephemeral"}
    return _stringified(
        {
            "model": model,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": TEXT, "cache_control": mark}],
                },
                {"role": "user", "content": [{"type": "text", "text": CONTEXT}]},
            ],
            "max_tokens": MOST_TOKENS,
            "stream": True,
            "system": [{"type": "text", "text": _system(), "cache_control": mark}],
            "tools": [
                {"name": name, "description": f"What {name} does.", "input_schema": _schema()}
                for name in TOOLS[:-1]
            ]
            + [{"name": TOOLS[-1], "input_schema": _schema(), "cache_control": mark}],
            "thinking": {"type": "enabled", "budget_tokens": THINKING_TOKENS},
        }
    )


def _schema() -> dict[str, Any]:
    """Return a tool's arguments; some tools have one that is called "model"."""
    return {
        "type": "object",
        "required": ["input"],
        "properties": {"input": {"type": "string"}, "model": {"type": "string"}},
    }


def _system() -> str:
    line = '- a rule of the house, with "quotes" and a path C:\\temp\n'
    return line * (SYSTEM_CHARACTERS // len(line))


def _stringified(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
