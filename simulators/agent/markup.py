"""The model's Markdown as Telegram's HTML, in messages of a size that Telegram takes."""

import html
import re

CHUNK_CHARACTERS = 3500  # Telegram takes 4096; the rest is room for characters that count twice
FENCE = re.compile(r"```(?:[\w+#-]*\n)?(.*?)```", re.DOTALL)
INLINE = (
    (re.compile(r"`([^`\n]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*(\S(?:[^*\n]*\S)?)\*\*"), r"<b>\1</b>"),
)


def chunks(text: str) -> list[str]:
    """Cut a text at paragraphs, lines or words, so that each piece fits in one message."""
    rest = text.strip()
    pieces = []
    while len(rest) > CHUNK_CHARACTERS:
        head = rest[:CHUNK_CHARACTERS]
        ends = (head.rfind(mark) for mark in ("\n\n", "\n", " "))
        cut = next((end for end in ends if end > CHUNK_CHARACTERS // 2), CHUNK_CHARACTERS)
        pieces.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*pieces, rest] if rest else pieces


def to_html(text: str) -> str:
    parts = FENCE.split(text)
    shown = [
        _inline(html.escape(part, quote=False))
        if at % 2 == 0
        else f"<pre>{html.escape(part, quote=False)}</pre>"
        for at, part in enumerate(parts)
    ]
    return "".join(shown)


def _inline(escaped: str) -> str:
    for pattern, replacement in INLINE:
        escaped = pattern.sub(replacement, escaped)
    return escaped
