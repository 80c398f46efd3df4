"""What an answer has used when the provider never said: guessed from what it has written."""

from collections.abc import Iterator
from typing import Any

import msgspec

CHARACTERS_PER_TOKEN = 4

# Where both APIs put what the model wrote; all else of an event is its frame.
_TEXTS = frozenset(
    {"content", "reasoning_content", "arguments", "text", "thinking", "partial_json", "refusal"}
)
_ANY = msgspec.json.Decoder()


def tokens_for_bytes(sample: bytes, total: int) -> int:
    """Return the tokens of a stream of `total` bytes that goes on as its beginning does.

    A token for each event that brought text, or one for four characters where that is more. What
    cannot be read, since it is packed, counts by its bytes: it must not be free.
    """
    whole = sample[: sample.rfind(b"\n") + 1]
    events = [line[5:] for line in whole.splitlines() if line.startswith(b"data:")]
    if not events:
        return total // CHARACTERS_PER_TOKEN
    texts = [_characters(event) for event in events]
    written = sum(max(1, text // CHARACTERS_PER_TOKEN) for text in texts if text)
    return -(-written * total // len(whole))


def _characters(data: bytes) -> int:
    try:
        return sum(map(len, _texts(_ANY.decode(data), is_text=False)))
    except (msgspec.DecodeError, RecursionError):
        return 0


def _texts(value: Any, *, is_text: bool) -> Iterator[str]:
    if isinstance(value, str):
        if is_text:
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, is_text=name in _TEXTS)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, is_text=is_text)
