"""Formatted text: HTML and Markdown become plain words and entities, as Telegram does it."""

import re
from html.parser import HTMLParser
from typing import Any

from simulators.telegram.errors import bad_request

Entity = dict[str, Any]
Formatted = tuple[str, list[Entity]]

TAGS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "code": "code",
    "pre": "pre",
    "a": "text_link",
    "span": "spoiler",
    "tg-spoiler": "spoiler",
    "tg-emoji": "custom_emoji",
    "blockquote": "blockquote",
}
MARKDOWN_V2 = {
    "*": "bold",
    "_": "italic",
    "__": "underline",
    "~": "strikethrough",
    "||": "spoiler",
    "`": "code",
    "```": "pre",
}
LEGACY_MARKDOWN = {"*": "bold", "_": "italic", "`": "code", "```": "pre"}
RESERVED = frozenset("_*[]()~`>#+-=|{}.!")
DETECTED = (
    ("bot_command", re.compile(r"(?<![\w/<>])/[A-Za-z0-9_]{1,64}(?:@\w{5,32})?(?![\w/<>])")),
    ("url", re.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]]|\bt\.me/\w+(?:\?start=[\w-]+)?")),
    ("mention", re.compile(r"(?<![\w@/])@[A-Za-z]\w{4,31}")),
)


def format_text(text: str, parse_mode: str) -> Formatted:
    """Return the words to show and their entities.

    Raises:
        ApiError: the mode is unknown, or the text breaks its rules.
    """
    mode = parse_mode.lower()
    if mode == "html":
        reader = _HtmlReader()
        plain, entities = reader.read(text)
    elif mode in {"markdownv2", "markdown"}:
        plain, entities = _MarkdownReader(text, is_legacy=mode == "markdown").read()
    elif not mode:
        plain, entities = text, []
    else:
        raise bad_request("unsupported parse_mode")
    return plain, sorted(entities + _found_beside(plain, entities), key=lambda one: one["offset"])


def detect_entities(text: str) -> list[Entity]:
    """Return the commands, links and mentions that Telegram marks by itself."""
    found = [
        _entity(kind, text[: match.start()], match.group())
        for kind, pattern in DETECTED
        for match in pattern.finditer(text)
    ]
    kept: list[Entity] = []
    for entity in sorted(found, key=lambda one: (one["offset"], -one["length"])):
        if not kept or entity["offset"] >= kept[-1]["offset"] + kept[-1]["length"]:
            kept.append(entity)
    return kept


def utf16_length(text: str) -> int:
    """Return the length in UTF-16 code units, in which Telegram counts offsets."""
    return len(text.encode("utf-16-le")) // 2


def _entity(kind: str, before: str, covered: str) -> Entity:
    return {"type": kind, "offset": utf16_length(before), "length": utf16_length(covered)}


def _found_beside(plain: str, entities: list[Entity]) -> list[Entity]:
    """What was marked by hand as code or a link is not marked a second time."""
    closed = [
        (one["offset"], one["offset"] + one["length"])
        for one in entities
        if one["type"] in {"code", "pre", "text_link"}
    ]
    return [
        one
        for one in detect_entities(plain)
        if not any(start < one["offset"] + one["length"] and one["offset"] < end
                   for start, end in closed)
    ]  # fmt: skip


class _HtmlReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._plain = ""
        self._entities: list[Entity] = []
        self._open: list[tuple[str, int, Entity]] = []
        self._source = ""

    def read(self, text: str) -> Formatted:
        self._source = text
        self.feed(text)
        self.close()
        if self._open:
            tag = self._open[-1][0]
            raise bad_request(
                f"can't parse entities: Can't find end tag corresponding to start tag \"{tag}\""
            )
        return self._plain, [one for one in self._entities if one["length"]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        is_spoiler = given.get("class") == "tg-spoiler"
        if tag not in TAGS or (tag == "span" and not is_spoiler):
            raise bad_request(
                f'can\'t parse entities: Unsupported start tag "{tag}" at byte offset {self._at()}'
            )
        entity: Entity = {"type": TAGS[tag]}
        if tag == "a":
            entity["url"] = given.get("href") or ""
        language = (given.get("class") or "").removeprefix("language-")
        is_inside_pre = bool(self._open) and self._open[-1][0] == "pre"
        if tag == "code" and is_inside_pre and language:
            self._open[-1][2]["language"] = language
        self._open.append((tag, len(self._plain), entity))

    def handle_endtag(self, tag: str) -> None:
        if not self._open:
            raise bad_request(
                f"can't parse entities: Unexpected end tag at byte offset {self._at()}"
            )
        expected, start, entity = self._open.pop()
        if tag != expected:
            raise bad_request(
                f"can't parse entities: Unmatched end tag at byte offset {self._at()},"
                f' expected "</{expected}>", found "</{tag}>"'
            )
        is_doubled = tag == "code" and self._open and self._open[-1][0] == "pre"
        is_empty_link = entity["type"] == "text_link" and not entity["url"]
        if not is_doubled and not is_empty_link:
            placed = _entity(entity["type"], self._plain[:start], self._plain[start:])
            self._entities.append(placed | entity)

    def handle_data(self, data: str) -> None:
        self._plain += data

    def _at(self) -> int:
        line, column = self.getpos()
        before = self._source.split("\n")[: line - 1]
        text = "\n".join([*before, self._source.split("\n")[line - 1][:column]])
        return len(text.encode())


class _MarkdownReader:
    """MarkdownV2, and the older Markdown, which forgives unescaped characters."""

    def __init__(self, source: str, *, is_legacy: bool) -> None:
        self._source = source
        self._is_legacy = is_legacy
        self._marks = LEGACY_MARKDOWN if is_legacy else MARKDOWN_V2
        self._at = 0
        self._plain = ""
        self._entities: list[Entity] = []
        self._open: list[tuple[str, int]] = []

    def read(self) -> Formatted:
        while self._at < len(self._source):
            self._step()
        if self._open:
            kind = self._marks.get(self._open[-1][0], "text_link").title()
            raise self._refused(f"Can't find end of {kind} entity")
        return self._plain, [one for one in self._entities if one["length"]]

    def _step(self) -> None:
        rest = self._source[self._at :]
        mark = next((one for one in sorted(self._marks, key=len, reverse=True)
                     if rest.startswith(one)), "")  # fmt: skip
        if rest[0] == "\\" and len(rest) > 1 and rest[1].isascii():
            self._plain += rest[1]
            self._at += 2
        elif mark in {"`", "```"}:
            self._read_code(mark)
        elif mark:
            self._toggle(mark)
        elif rest[0] == "[":
            self._open.append(("[", len(self._plain)))
            self._at += 1
        elif rest[0] == "]" and self._open and self._open[-1][0] == "[":
            self._read_link()
        elif rest[0] == ">" and self._is_at_line_start():
            self._read_quote()
        else:
            self._read_character(rest[0])

    def _read_character(self, character: str) -> None:
        if character in RESERVED and not self._is_legacy:
            raise self._refused(
                f"Character '{character}' is reserved and must be escaped with the preceding '\\'"
            )
        self._plain += character
        self._at += 1

    def _read_code(self, mark: str) -> None:
        end = self._source.find(mark, self._at + len(mark))
        if end < 0:
            raise self._refused(f"Can't find end of {self._marks[mark].title()} entity")
        inside = self._source[self._at + len(mark) : end]
        language = ""
        if mark == "```":
            first, newline, rest = inside.partition("\n")
            if newline and re.fullmatch(r"[\w+#-]*", first):
                language, inside = first, rest
        covered = re.sub(r"\\([!-~])", r"\1", inside)
        entity = _entity(self._marks[mark], self._plain, covered)
        self._entities.append(entity | ({"language": language} if language else {}))
        self._plain += covered
        self._at = end + len(mark)

    def _toggle(self, mark: str) -> None:
        if self._open and self._open[-1][0] == mark:
            _, start = self._open.pop()
            covered = self._plain[start:]
            self._entities.append(_entity(self._marks[mark], self._plain[:start], covered))
        else:
            self._open.append((mark, len(self._plain)))
        self._at += len(mark)

    def _read_link(self) -> None:
        _, start = self._open.pop()
        match = re.compile(r"\]\(((?:\\.|[^)\\])*)\)").match(self._source, self._at)
        if match:
            covered = _entity("text_link", self._plain[:start], self._plain[start:])
            url = re.sub(r"\\(.)", r"\1", match.group(1))
            self._entities.append(covered | {"url": url})
            self._at = match.end()
        else:
            self._at += 1

    def _read_quote(self) -> None:
        """Quote the line; its own marks are read as usual."""
        end = self._source.find("\n", self._at)
        line = self._source[self._at + 1 : end if end >= 0 else None]
        start = len(self._plain)
        self._at += 1
        stop = self._at + len(line)
        while self._at < stop:
            self._step()
        covered = self._plain[start:]
        self._entities.append(_entity("blockquote", self._plain[:start], covered))

    def _is_at_line_start(self) -> bool:
        return not self._is_legacy and (self._at == 0 or self._source[self._at - 1] == "\n")

    def _refused(self, reason: str) -> Exception:
        offset = len(self._source[: self._at].encode())
        place = "" if "reserved" in reason else f" at byte offset {offset}"
        return bad_request(f"can't parse entities: {reason}{place}")
