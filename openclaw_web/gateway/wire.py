"""A request of either API: what it asks for, and what of it is rewritten on its way."""

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from openclaw_web.gateway.errors import OPENAI, BadRequestError, Form
from openclaw_web.gateway.shapes import ASKED, Asked, Options

PROVIDER_PREFIX: Final = "kimi-coding/"
MAX_MODEL_CHARACTERS: Final = 100
MAX_KNOWN_NAMES: Final = 256

# Looking through a body for its members takes 30 ns a byte, in which nobody else has a turn. What
# is larger and cannot be spliced is taken apart, and put together without blanks between members.
MOST_LOOKED_THROUGH: Final = 131_072

_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_MODEL_KEY: Final = b'"model"'
_MODEL_FIRST: Final = re.compile(rb'\s*\{\s*("model"\s*:\s*"([^"\\]*)")')
_MODEL_FIELD: Final = re.compile(rb'"model"\s*:\s*"[^"\\]*"')
_ESCAPED_LETTER: Final = b"\\u006"  # a key may be spelled with these: "\u006dodel" is "model" too
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_SOMETHING: Final = rb"\\u0020"  # as long, so that all else stays where it is
_USAGE_ASKED: Final = b'"stream_options":{"include_usage":true},'
_VALUES: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class Request:
    """What was asked. `body` goes upstream; `asked_model` is the name without its provider."""

    __slots__ = (
        "asked_model",
        "body",
        "form",
        "is_stream",
        "max_tokens",
        "model",
        "wants_usage",
    )

    def __init__(
        self,
        *,
        form: Form,
        body: bytes,
        asked_model: str,
        model: str,
        is_stream: bool = False,
        wants_usage: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        self.form = form
        self.body = body
        self.asked_model = asked_model
        self.model = model
        self.is_stream = is_stream
        self.wants_usage = wants_usage
        self.max_tokens = max_tokens


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
    if len(name) > MAX_MODEL_CHARACTERS or not _is_name(name):
        raise BadRequestError("The field `model` is not a model's name.")
    model = model_for(name)
    is_stream = asked.stream is True
    options = asked.stream_options
    wants_usage = isinstance(options, Options) and options.include_usage is True
    asks_for_usage = is_stream and form is OPENAI and not wants_usage
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


@lru_cache(maxsize=MAX_KNOWN_NAMES)
def _is_name(name: str) -> bool:
    return _MODEL.fullmatch(name) is not None


def with_model(body: bytes, model: str) -> bytes:
    """Return a request's body with another model; what else stands in it stays as it is."""
    return _written_anew(body, model, asks_for_usage=False)


def _asked(body: bytes) -> Asked:
    try:
        return ASKED.decode(body)
    except (msgspec.DecodeError, RecursionError):
        pass
    # Half of a surrogate pair, which text that was cut off can end in, is JSON all the same.
    try:
        return ASKED.decode(_SURROGATE.sub(_SOMETHING, body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequestError("The body is not a JSON object of this API.") from error


def _rewritten(body: bytes, asked: Asked, model: str, *, asks_for_usage: bool) -> bytes:
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


def _model_span(body: bytes, asked: Asked) -> tuple[int, int]:
    """Return where the model's key starts and its value ends, or zeros when it stands there twice.

    What stands first, and is what the decoder took, which takes the last, is what all readers take.
    """
    found = _MODEL_FIRST.match(body)
    if found is not None and found[2] == (asked.model or "").encode():
        return found.span(1)
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
