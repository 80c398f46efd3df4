"""The two APIs on the wire: what a request has rewritten, and where an answer says what it used."""

import json
import re
from collections.abc import Callable, Iterable, Iterator

import msgspec

from openclaw_web.gateway import guessing
from openclaw_web.gateway.errors import BadRequestError, Form

PROVIDER_PREFIX = "kimi-coding/"
MAX_MODEL_CHARACTERS = 100
MAX_TOKENS = 2**31 - 1  # what the ledger has room for

# Looking through a body for its members takes 30 ns a byte, in which nobody else has a turn. What
# is larger and cannot be spliced is taken apart, and put together without blanks between members.
MOST_LOOKED_THROUGH = 131_072
MAX_EVENT_BYTES = 8 * 1024 * 1024
SAMPLE_BYTES = 8_192  # of a stream's beginning, kept to guess from if it is cut

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_MODEL_KEY = b'"model"'
_MODEL_FIRST = re.compile(rb'\s*\{\s*(?P<field>"model"\s*:\s*"(?P<name>[^"\\]*)")')
_MODEL_FIELD = re.compile(rb'"model"\s*:\s*"[^"\\]*"')
_ESCAPED_LETTER = b"\\u006"  # a key may be spelled with these: "\u006dodel" is "model" too
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_SOMETHING = rb"\\u0020"  # as long, so that all else stays where it is
_USAGE_ASKED = b'"stream_options":{"include_usage":true},'
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_FINISHED = re.compile(rb"data: ?\[DONE\]|event: ?message_stop")
_FAILED = re.compile(rb"data: ?\{\"error\"|event: ?error")
# What to look for before a line is tried: searching for bytes costs next to nothing.
_DONE, _STOP = b"[DONE]", b"message_stop"
_OPENAI_ERROR, _ERROR = b'{"error"', b"error"
_USAGE = b'"usage"'
_NO_USAGE = b":null"  # stands in every chunk but the last where usage was asked for
_BLANK = b"\n\n"


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    """The union of both APIs' fields; absent is not zero."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Choice(msgspec.Struct):
    usage: _Usage | None = None


class _Message(msgspec.Struct):
    id: str | None = None
    usage: _Usage | None = None


class _Part(msgspec.Struct):
    """A body, a chunk or an event: only what metering needs is decoded."""

    id: str | None = None
    usage: _Usage | None = None
    choices: list[_Choice] | None = None
    message: _Message | None = None


class _Options(msgspec.Struct):
    include_usage: bool | None = None


class _Asked(msgspec.Struct):
    """The fields of a request that concern us; all others are skipped over, not decoded."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _Options | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_PART = msgspec.json.Decoder(_Part)
_ASKED = msgspec.json.Decoder(_Asked)
_VALUES = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


class Request(msgspec.Struct):
    """What was asked. `body` goes upstream; `asked_model` is the name without its provider."""

    form: Form
    body: bytes
    asked_model: str
    model: str
    is_stream: bool
    wants_usage: bool
    max_tokens: int | None


class Usage(msgspec.Struct):
    """Tokens as the provider counts them; `None` until it said so. Set, never added up."""

    prompt: int | None = None
    completion: int | None = None
    cached: int = 0
    reasoning: int = 0
    provider_id: str | None = None
    fresh: int = 0  # of Anthropic's prompts: what was not cached,
    created: int = 0  # and what went into the cache


def read_request(body: bytes, form: Form, model_for: Callable[[str], str]) -> Request:
    """Read the few fields that concern us; messages are never decoded.

    `model_for` returns what the provider calls a model.

    Raises:
        BadRequestError: the body is no JSON object, or has no model.
    """
    asked = _asked(body)
    if asked.model is None:
        raise BadRequestError("The field `model` is missing.")
    name = asked.model.removeprefix(PROVIDER_PREFIX)
    if len(name) > MAX_MODEL_CHARACTERS or not _MODEL.fullmatch(name):
        raise BadRequestError("The field `model` is not a model's name.")
    model = model_for(name)
    is_stream = asked.stream is True
    options = asked.stream_options
    wants_usage = isinstance(options, _Options) and options.include_usage is True
    asks_for_usage = is_stream and form is Form.OPENAI and not wants_usage
    return Request(
        form=form,
        body=_rewritten(body, asked, model, asks_for_usage=asks_for_usage),
        asked_model=name,
        model=model,
        is_stream=is_stream,
        wants_usage=wants_usage,
        max_tokens=asked.max_tokens
        if asked.max_completion_tokens is None
        else asked.max_completion_tokens,
    )


def with_model(body: bytes, model: str) -> bytes:
    """Return a request's body with another model; what else stands in it stays as it is."""
    return _written_anew(body, model, asks_for_usage=False)


def _asked(body: bytes) -> _Asked:
    try:
        return _ASKED.decode(body)
    except (msgspec.DecodeError, RecursionError):
        pass
    # Half of a surrogate pair, which text that was cut off can end in, is JSON all the same.
    try:
        return _ASKED.decode(_SURROGATE.sub(_SOMETHING, body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequestError("The body is not a JSON object of this API.") from error


def _rewritten(body: bytes, asked: _Asked, model: str, *, asks_for_usage: bool) -> bytes:
    """Return the body with the upstream's model name, and with the usage asked for.

    All other bytes stay as they are, but in two cases: the model is named twice, and no two readers
    may take different ones; or there are stream options, in which the usage is asked for.
    """
    can_splice = asked.stream_options is msgspec.UNSET or not asks_for_usage
    start, end = _model_span(body, asked) if can_splice else (0, 0)
    if not end:
        return _written_anew(body, model, asks_for_usage=asks_for_usage)
    if not asks_for_usage and asked.model == model:
        return body
    options = _USAGE_ASKED if asks_for_usage else b""
    return b'%b%b"model":"%b"%b' % (body[:start], options, model.encode(), body[end:])


def _model_span(body: bytes, asked: _Asked) -> tuple[int, int]:
    """Return where the model's key starts and its value ends, or zeros when it stands there twice.

    What stands first, and is what the decoder took, which takes the last, is what all readers take.
    """
    found = _MODEL_FIRST.match(body)
    if found is not None and found["name"] == (asked.model or "").encode():
        return found.start("field"), found.end()
    at = body.find(_MODEL_KEY)
    if body.find(_MODEL_KEY, at + 1) < 0 and _ESCAPED_LETTER not in body:
        found = _MODEL_FIELD.match(body, at)
        return found.span() if found is not None else (0, 0)
    if len(body) > MOST_LOOKED_THROUGH:
        return 0, 0
    spans = [span for name, span in _members(body) if name == "model"]
    return spans[0] if len(spans) == 1 else (0, 0)


def _members(body: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the names of an object's members, and where each stands; the body is known to be JSON.

    Read as Latin-1, in which a character is a byte; all that JSON itself is made of is ASCII.
    """
    text = body.decode("latin-1")
    at = _after_space(text, text.index("{") + 1)
    while text[at] == '"':
        name, end = _VALUES.raw_decode(text, at)
        _, end = _VALUES.raw_decode(text, _after_space(text, text.index(":", end) + 1))
        yield name, (at, end)
        end = _after_space(text, end)
        at = _after_space(text, end + 1) if text[end] == "," else end


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _written_anew(body: bytes, model: str, *, asks_for_usage: bool) -> bytes:
    fields = dict(_pieces(body))
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    if asks_for_usage:
        options = msgspec.json.decode(fields.get("stream_options", b"null"), type=dict | None)
        with_usage = {**(options or {}), "include_usage": True}
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode(with_usage))
    return msgspec.json.encode(fields)


def _pieces(body: bytes) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yield an object's members with the bytes of their values; the last of a name counts."""
    if len(body) > MOST_LOOKED_THROUGH:
        yield from _taken_apart(body).items()
        return
    for name, (start, end) in _members(body):
        member = body[start:end]
        _, key_end = _VALUES.raw_decode(member.decode("latin-1"))
        yield name, msgspec.Raw(member[member.index(b":", key_end) + 1 :].strip())


def _taken_apart(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise BadRequestError(
            "A body of this size that has half of a surrogate pair in it cannot be written anew:"
            " name the model first, and ask for the usage in `stream_options` or leave them out."
        ) from error


def read_usage(data: bytes, usage: Usage) -> _Part | None:
    """Take over what one body, chunk or event says about usage; anything else is left alone."""
    try:
        part = _PART.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    message = part.message
    if part.id is not None:
        usage.provider_id = part.id
    elif message is not None and message.id is not None:
        usage.provider_id = message.id
    # Kimi puts it into the last chunk's choice unless it was asked for at the top.
    found = part.usage or (part.choices[0].usage if part.choices else None)
    if found is not None:
        _take_over(found, usage)
    elif message is not None and message.usage is not None:
        _take_over_prompt(message.usage, usage)  # its output is only what had been written then
    return part


class StreamReader:
    """Watches a stream go by. `feed` returns what the client gets: everything, byte for byte.

    Only the usage chunk that we asked for and the client did not is left out; then whole events are
    passed on, else whatever has arrived.
    """

    def __init__(self, request: Request) -> None:
        self.usage = Usage()
        self.is_finished = False
        self.has_error = False
        is_openai = request.form is Form.OPENAI
        self._hides_usage = is_openai and not request.wants_usage
        self._end, self._error = (_DONE, _OPENAI_ERROR) if is_openai else (_STOP, _ERROR)
        self._rest = b""
        self._sample = b""
        self._bytes = 0

    def feed(self, data: bytes) -> bytes:
        self._bytes += len(data)
        if not self._sample:
            self._sample = data
        elif len(self._sample) < SAMPLE_BYTES:
            self._sample += data
        rest = self._rest + data if self._rest else data
        if len(rest) > MAX_EVENT_BYTES:  # no event of these APIs: let it pass unread
            self._rest = b""
            return rest if self._hides_usage else data
        if self._hides_usage:
            return self._feed_events(rest)
        end = rest.rfind(b"\n") + 1
        self._rest = rest[end:]
        for _ in self._read(rest[:end]):
            pass
        return data

    def close(self) -> bytes:
        """Return what is left of a stream that ended without a blank line."""
        rest, self._rest = self._rest, b""
        parts = [part for _, part in self._read(rest)]
        return rest if self._hides_usage and not any(map(_is_usage_only, parts)) else b""

    @property
    def separator(self) -> bytes:
        """Return what has to stand before an event of ours: a stream may be cut in any line."""
        return b"" if self._hides_usage else b"\n\n"

    def estimated_completion(self) -> int:
        """Guess from what has come, for a stream whose usage never did."""
        return guessing.tokens_for_bytes(self._sample, self._bytes)

    def _feed_events(self, data: bytes) -> bytes:
        if b"\r" in data:
            return self._feed_one_by_one(data)
        end = data.rfind(_BLANK) + len(_BLANK)
        if end < len(_BLANK):
            self._rest = data
            return b""
        self._rest, whole = data[end:], data[:end]
        kept, start = [], 0
        for at, part in self._read(whole):
            if _is_usage_only(part):
                before = whole.rfind(_BLANK, start, at)
                kept.append(whole[start : before + len(_BLANK)] if before >= 0 else b"")
                start = whole.find(_BLANK, at) + len(_BLANK)
        return b"".join([*kept, whole[start:]]) if kept else whole

    def _feed_one_by_one(self, data: bytes) -> bytes:
        """Do the same for a provider that ends its lines in another way."""
        passed, start = [], 0
        for found in _EVENT_END.finditer(data):
            event = data[start : found.end()]
            start = found.end()
            parts = [part for _, part in self._read(event)]  # all of them are read
            if not any(map(_is_usage_only, parts)):
                passed.append(event)
        self._rest = data[start:]
        return b"".join(passed)

    def _read(self, lines: bytes) -> Iterable[tuple[int, _Part]]:
        """Look at whole lines; return those that say something about usage, and where they start.

        The usage is taken over while they are gone through.
        """
        if not self.is_finished:
            self.is_finished = _has_line(lines, self._end, _FINISHED)
        if not self.has_error:
            self.has_error = _has_line(lines, self._error, _FAILED)
        at = lines.find(_USAGE)
        return self._usages(lines, at) if at >= 0 else ()

    def _usages(self, lines: bytes, at: int) -> Iterator[tuple[int, _Part]]:
        while at >= 0:
            if lines.startswith(_NO_USAGE, at + len(_USAGE)):
                at = lines.find(_USAGE, at + 1)
                continue
            start = lines.rfind(b"\n", 0, at) + 1
            end = lines.find(b"\n", at)
            end = len(lines) if end < 0 else end
            if lines.startswith(b"data:", start):
                part = read_usage(lines[start + len(b"data:") : end], self.usage)
                if part is not None:
                    yield start, part
            at = lines.find(_USAGE, end)


def _has_line(lines: bytes, needle: bytes, beginning: re.Pattern[bytes]) -> bool:
    """Say whether a line that holds the needle begins like that; the last lines first."""
    at = lines.rfind(needle)
    while at >= 0:
        start = lines.rfind(b"\n", 0, at) + 1
        if beginning.match(lines, start):
            return True
        at = lines.rfind(needle, 0, start)
    return False


def _is_usage_only(part: _Part) -> bool:
    return part.choices == [] and part.usage is not None


def _take_over(found: _Usage, usage: Usage) -> None:
    _take_over_prompt(found, usage)
    if found.completion_tokens is not None:
        usage.completion = _count(found.completion_tokens)
    elif found.output_tokens is not None:
        usage.completion = _count(found.output_tokens)
    details = found.completion_tokens_details
    if details is not None and details.reasoning_tokens is not None:
        usage.reasoning = _count(details.reasoning_tokens) or 0


def _take_over_prompt(found: _Usage, usage: Usage) -> None:
    """Set what is given, and leave what is not as it was said before."""
    if found.prompt_tokens is not None:
        usage.prompt = _count(found.prompt_tokens)
    else:
        _take_over_inputs(found, usage)
    details = found.prompt_tokens_details
    if details is not None and details.cached_tokens is not None:
        usage.cached = _count(details.cached_tokens) or 0
    elif found.cached_tokens is not None:
        usage.cached = _count(found.cached_tokens) or 0


def _take_over_inputs(found: _Usage, usage: Usage) -> None:
    """Make one prompt of Anthropic's three kinds of input; each may come alone, and again."""
    fresh, created, read = (
        found.input_tokens,
        found.cache_creation_input_tokens,
        found.cache_read_input_tokens,
    )
    if fresh is created is read is None:
        return
    usage.fresh = usage.fresh if fresh is None else fresh
    usage.created = usage.created if created is None else created
    usage.cached = usage.cached if read is None else read
    usage.prompt = _count(usage.fresh + usage.created + usage.cached)
    usage.cached = _count(usage.cached) or 0


def _count(tokens: int) -> int | None:
    """Return a count that can be true; what cannot is no count, and is guessed."""
    return tokens if 0 <= tokens <= MAX_TOKENS else None
