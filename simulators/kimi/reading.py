"""What both wire forms share: reading messages, cutting text into pieces."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulators.kimi.answers import INTERNAL_CONTEXT
from simulators.kimi.errors import VendorError

MODELS = (
    "kimi-for-coding",
    "kimi-for-coding-highspeed",
    "k3",
    "k3-256k",
    "kimi-k3",
    "kimi-k2.7-code",
    "kimi-k2.7-code-highspeed",
)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One server-sent event; content events are those that a cut counts."""

    data: dict[str, Any] | str
    name: str | None = None
    is_content: bool = False

    def encode(self) -> bytes:
        named = f"event: {self.name}\n" if self.name else ""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data)
        return f"{named}data: {data}\n\n".encode()


def model_of(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise VendorError(400, "Invalid request: model is required")
    if model not in MODELS:
        raise VendorError(404, f"Not found the model {model} or Permission denied")
    return model


def check_messages(body: dict[str, Any], roles: frozenset[str]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise VendorError(400, "Invalid request: messages must not be empty")
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in roles:
            raise VendorError(400, f"Invalid request: messages.{at}.role is not valid")
        has_calls = bool(message.get("tool_calls"))
        if not isinstance(message.get("content"), str | list) and not has_calls:
            raise VendorError(400, f"Invalid request: messages.{at}.content is required")
    return messages


def number_of(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise VendorError(400, f"Invalid request: {name} must be a positive integer")
    return value


def text_bytes(content: Any) -> int:
    """Return the size of all text in messages, parts or a plain text."""
    if isinstance(content, str):
        return len(content.encode())
    if isinstance(content, list):
        return sum(text_bytes(part) for part in content)
    if isinstance(content, dict):
        return text_bytes(content.get("content")) + text_bytes(content.get("text"))
    return 0


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """Return what the person said last; context that only the model should see is passed over."""
    texts = [_plain(message["content"]) for message in messages if message["role"] == "user"]
    spoken = [text for text in texts if text and not text.startswith(INTERNAL_CONTEXT)]
    return spoken[-1] if spoken else ""


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str)).strip()
    return ""


def pieces(text: str) -> Iterator[str]:
    """Cut a text into words, as a model's tokens would arrive."""
    for match in re.finditer(r"\s*\S+\s*$|\s*\S+", text):
        yield match.group()
