"""The two APIs on the wire: what a request has rewritten, and where an answer says what it used."""

import re
from dataclasses import dataclass

import msgspec

from openclaw_web.gateway.errors import BadRequestError, Form

PROVIDER_PREFIX = "kimi-coding/"
ALIAS = "k2p5"
MAX_MODEL_CHARACTERS = 100

CHARACTERS_PER_TOKEN = 4
MAX_EVENT_BYTES = 8 * 1024 * 1024
FRAME_BYTES = 180  # what a streamed token is wrapped in, about

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_MODEL_KEY = b'"model"'
_MODEL_FIELD = re.compile(rb'"model"\s*:\s*"[^"\\]*"')
_ESCAPED_LETTER = b"\\u006"  # a key may be spelled with these: "\u006dodel" is "model" too
_USAGE_ASKED = b'"stream_options":{"include_usage":true},'
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_FINISHED = re.compile(rb"^(?:data: ?\[DONE\]|event: ?message_stop)", re.MULTILINE)
_FAILED = re.compile(rb"^(?:data: ?\{\"error\"|event: ?error)", re.MULTILINE)
_USAGE = b'"usage"'


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
    stream_options: _Options | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_PART = msgspec.json.Decoder(_Part)
_ASKED = msgspec.json.Decoder(_Asked)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True)
class Request:
    """What was asked. `body` goes upstream; `asked_model` is the name without its provider."""

    form: Form
    body: bytes
    asked_model: str
    model: str
    is_stream: bool
    wants_usage: bool
    max_tokens: int | None


@dataclass
class Usage:
    """Tokens as the provider counts them; `None` until it said so. Set, never added up."""

    prompt: int | None = None
    completion: int | None = None
    cached: int = 0
    reasoning: int = 0
    provider_id: str | None = None


def read_request(body: bytes, form: Form, *, current_model: str) -> Request:
    """Read the few fields that concern us; messages are never decoded.

    Raises:
        BadRequestError: the body is no JSON object, or has no model.
    """
    try:
        asked = _ASKED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError("The body is not a JSON object of this API.") from error
    if asked.model is None:
        raise BadRequestError("The field `model` is missing.")
    name = asked.model.removeprefix(PROVIDER_PREFIX)
    if len(name) > MAX_MODEL_CHARACTERS or not _MODEL.fullmatch(name):
        raise BadRequestError("The field `model` is not a model's name.")
    model = current_model if name == ALIAS else name
    is_stream = asked.stream is True
    wants_usage = asked.stream_options is not None and asked.stream_options.include_usage is True
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


def _rewritten(body: bytes, asked: _Asked, model: str, *, asks_for_usage: bool) -> bytes:
    """Return the body with the upstream's model name, and with the usage asked for.

    All other bytes stay as they are when there is one place where a model can be named. Where the
    name stands twice the top level is written anew, so that no reader can take the other one.
    """
    at = body.find(_MODEL_KEY)
    can_splice = (
        body.find(_MODEL_KEY, at + 1) < 0
        and _ESCAPED_LETTER not in body
        and (asked.stream_options is None or not asks_for_usage)
    )
    found = _MODEL_FIELD.match(body, at) if can_splice else None
    if found is None:
        return _written_anew(body, model, asks_for_usage=asks_for_usage)
    if not asks_for_usage and asked.model == model:
        return body
    options = _USAGE_ASKED if asks_for_usage else b""
    return b'%b%b"model":"%b"%b' % (body[:at], options, model.encode(), body[found.end() :])


def _written_anew(body: bytes, model: str, *, asks_for_usage: bool) -> bytes:
    fields = _FIELDS.decode(body)
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    if asks_for_usage:
        options = msgspec.json.decode(fields.get("stream_options", b"null"), type=dict | None)
        with_usage = {**(options or {}), "include_usage": True}
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode(with_usage))
    return msgspec.json.encode(fields)


def read_usage(data: bytes, usage: Usage) -> _Part | None:
    """Take over what one body, chunk or event says about usage; anything else is left alone."""
    try:
        part = _PART.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    message = part.message or _Message()
    usage.provider_id = part.id or message.id or usage.provider_id
    # Kimi puts it into the last chunk's choice unless it was asked for at the top.
    in_choice = part.choices[0].usage if part.choices else None
    if (found := part.usage or in_choice) is not None:
        _take_over(found, usage)
    elif message.usage is not None:
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
        self._hides_usage = request.form is Form.OPENAI and not request.wants_usage
        self._rest = b""
        self._events = 0
        self._bytes = 0

    def feed(self, data: bytes) -> bytes:
        self._bytes += len(data)
        rest = self._rest + data if self._rest else data
        if len(rest) > MAX_EVENT_BYTES:  # no event of these APIs: let it pass unread
            self._rest = b""
            return rest if self._hides_usage else data
        if self._hides_usage:
            return self._feed_events(rest)
        end = rest.rfind(b"\n") + 1
        self._rest = rest[end:]
        self._read_lines(rest[:end])
        return data

    def close(self) -> bytes:
        """Return what is left of a stream that ended without a blank line."""
        rest, self._rest = self._rest, b""
        self._read_lines(rest)
        return rest if self._hides_usage else b""

    def estimated_completion(self) -> int:
        """Guess from the bytes: a token an event, or one for four characters beside frames."""
        text_bytes = self._bytes - self._events * FRAME_BYTES
        return max(self._events, text_bytes // CHARACTERS_PER_TOKEN)

    def _feed_events(self, data: bytes) -> bytes:
        passed, start = [], 0
        for end in _EVENT_END.finditer(data):
            event = data[start : end.end()]
            start = end.end()
            if not self._is_usage_only(event):
                passed.append(event)
        self._rest = data[start:]
        return b"".join(passed)

    def _is_usage_only(self, event: bytes) -> bool:
        parts = self._read_lines(event)
        return any(part.choices == [] and part.usage is not None for part in parts)

    def _read_lines(self, lines: bytes) -> list[_Part]:
        self._events += lines.count(b"\ndata:") + lines.startswith(b"data:")
        self.is_finished |= _FINISHED.search(lines) is not None
        self.has_error |= _FAILED.search(lines) is not None
        if _USAGE not in lines:
            return []
        found = [
            read_usage(line[5:], self.usage)
            for line in lines.splitlines()
            if line.startswith(b"data:") and _USAGE in line
        ]
        return [part for part in found if part is not None]


def _take_over(found: _Usage, usage: Usage) -> None:
    _take_over_prompt(found, usage)
    completion = _first(found.completion_tokens, found.output_tokens)
    usage.completion = usage.completion if completion is None else completion
    reasoning = (found.completion_tokens_details or _Details()).reasoning_tokens
    usage.reasoning = usage.reasoning if reasoning is None else reasoning


def _take_over_prompt(found: _Usage, usage: Usage) -> None:
    """Set what is given. Anthropic's three kinds of input make one prompt."""
    if found.prompt_tokens is not None:
        usage.prompt = found.prompt_tokens
    elif found.input_tokens is not None:
        usage.prompt = (
            found.input_tokens
            + (found.cache_read_input_tokens or 0)
            + (found.cache_creation_input_tokens or 0)
        )
    in_prompt = found.prompt_tokens_details or _Details()
    cached = _first(in_prompt.cached_tokens, found.cached_tokens, found.cache_read_input_tokens)
    usage.cached = usage.cached if cached is None else cached


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
