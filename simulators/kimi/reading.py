"""What both wire forms share: reading models, messages and parts, and refusing wrong ones."""

from collections.abc import Iterator
from typing import Any

from simulators.kimi.errors import VendorError
from simulators.kimi.replies import tokens_of

CONTEXT_TOKENS = 262_144
LONG_CONTEXT_TOKENS = 1_048_576
MODELS = {
    "kimi-for-coding": CONTEXT_TOKENS,
    "kimi-for-coding-highspeed": CONTEXT_TOKENS,
    "k3": LONG_CONTEXT_TOKENS,
    "k3-256k": CONTEXT_TOKENS,
    "kimi-k3": LONG_CONTEXT_TOKENS,
    "kimi-k2.7-code": CONTEXT_TOKENS,
    "kimi-k2.7-code-highspeed": CONTEXT_TOKENS,
}
MOST_MESSAGE_BYTES = 2_097_152  # its error reference names this number; pictures do not count here
INTERNAL_CONTEXT = "<<<"  # OpenClaw appends messages for the model alone; they begin so

Messages = list[dict[str, Any]]


def model_of(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("model is required")
    if model not in MODELS:
        raise VendorError(404, f"Not found the model {model} or Permission denied")
    return model


def check_messages(body: dict[str, Any], roles: frozenset[str]) -> Messages:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("messages must not be empty")
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in roles:
            raise invalid(f"messages.{at}.role is not valid")
        has_calls = bool(message.get("tool_calls"))
        if not isinstance(message.get("content"), str | list) and not has_calls:
            raise invalid(f"messages.{at}.content is required")
    return messages


def check_size(model: str, size_bytes: int) -> None:
    if size_bytes > MOST_MESSAGE_BYTES:
        raise VendorError(
            400, f"total message size {size_bytes} exceeds limit {MOST_MESSAGE_BYTES}"
        )
    tokens, most = tokens_of(size_bytes), MODELS[model]
    if tokens > most:
        raise invalid(f"Your request exceeded model token limit: {most} (requested: {tokens})")


def check_names(names: list[str]) -> None:
    """Refuse a tool that is there twice."""
    for at, name in enumerate(names):
        if name in names[:at]:
            raise VendorError(400, f"function name {name} is duplicated")


def number_of(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise invalid(f"{name} must be a positive integer")
    return value


def object_of(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def objects_of(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects; nothing is an empty one."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise invalid(f"{name} must be a list of objects")
    return value


def parts_of(messages: Messages, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the parts of one kind in all messages, also those inside a tool's result."""
    for message in messages:
        content = message.get("content")
        if not isinstance(content, list):
            continue
        parts = [part for part in content if isinstance(part, dict)]
        yield from (part for part in parts if part.get("type") == kind)
        yield from parts_of([part for part in parts if part.get("type") != kind], kind)


def text_bytes(content: Any) -> int:
    """Return the size of all text in messages, parts or a plain text."""
    if isinstance(content, str):
        return len(content.encode(errors="replace"))
    if isinstance(content, list):
        return sum(text_bytes(part) for part in content)
    if isinstance(content, dict):
        return text_bytes(content.get("content")) + text_bytes(content.get("text"))
    return 0


def last_user_text(messages: Messages) -> str:
    """Return what the person said last; context that only the model should see is passed over."""
    texts = [plain(message["content"]) for message in messages if message["role"] == "user"]
    spoken = [text for text in texts if text and not text.startswith(INTERNAL_CONTEXT)]
    return spoken[-1] if spoken else ""


def plain(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str)).strip()
    return ""


def invalid(problem: str) -> VendorError:
    return VendorError(400, f"Invalid request: {problem}")
