"""What a request's head says, read once: also for the requests after it that have the same head."""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final

from openclaw_web.gateway.errors import UnknownTokenError
from openclaw_web.gateway.origin import FORWARDING_HEADERS, is_inside

Scope = MutableMapping[str, Any]
Headers = Sequence[tuple[bytes, bytes]]

MOST_KNOWN_BYTES: Final = 4_096
MOST_DIGITS: Final = 9

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(
    rb"\r\ncontent-length:[ \t]*(?P<digits>[0-9]+)[ \t]*(?=\r\n)", re.IGNORECASE
)

# What of a client's request the provider may need; all else stays with us.
_PASSED_ON: Final = frozenset(
    {b"user-agent", b"anthropic-version", b"anthropic-beta", b"openai-beta"}
)


class Head:
    """A request's head. Of a header that comes twice the last counts, except for who is asking.

    An agent says the same of itself on each of a connection's requests, so what is read here is
    kept as long as that is so.
    """

    __slots__ = ("_is_inside", "headers", "is_forwarded", "passed_on", "path", "scope", "token")

    def __init__(self, scope: Scope, path: str) -> None:
        pairs: Headers = scope["headers"]
        self.scope = scope
        self.path = path
        self.headers = headers = dict(pairs)
        self.is_forwarded = not FORWARDING_HEADERS.isdisjoint(headers)
        self.token = _token(headers)
        self.passed_on = tuple([header for header in pairs if header[0] in _PASSED_ON])
        self._is_inside: bool | None = None

    @property
    def is_inside(self) -> bool:
        """Say whether it came in where only boxes are."""
        if self._is_inside is None:
            self._is_inside = is_inside(self.scope, is_forwarded=self.is_forwarded)
        return self._is_inside

    def shown_token(self) -> bytes:
        """Return the token that it shows.

        Raises:
            UnknownTokenError: there is none.
        """
        if self.token is None:
            raise UnknownTokenError
        return self.token


class KnownHead:
    """A head's bytes, but for its body's length, beside what a parser has read in them.

    The same bytes mean the same, so who sees them again need not parse them.
    """

    __slots__ = ("_after", "_before", "_digits_at", "head")

    def __init__(self, before: bytes, after: bytes, head: Head) -> None:
        self._before = before
        self._after = after
        self._digits_at = len(before)
        self.head = head

    def find(self, data: bytes) -> tuple[bytes, int] | None:
        """Return the body's length, as it is written, and where the head ends in what has come.

        `None` if that does not begin with all of it.
        """
        if not data.startswith(self._before):
            return None
        start = self._digits_at
        end = data.find(b"\r", start, start + MOST_DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        return data[start:end], end + len(self._after)


def known_head(data: bytes, head: Head) -> KnownHead | None:
    """Return the head that some data begins with, if it is all there and no longer than usual."""
    end = data.find(_END, 0, MOST_KNOWN_BYTES) + len(_END)
    lengths = list(_LENGTH.finditer(data, 0, end))
    if len(lengths) != 1 or lengths[0]["digits"] != head.headers.get(b"content-length"):
        return None
    start, stop = lengths[0].span("digits")
    return KnownHead(data[:start], data[stop:end], head)


def _token(headers: Mapping[bytes, bytes]) -> bytes | None:
    bearer = headers.get(b"authorization")
    if bearer is not None and bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    return headers.get(b"x-api-key")
