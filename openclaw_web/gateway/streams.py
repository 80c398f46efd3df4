"""A stream on its way to the client, watched for its usage and its end."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from openclaw_web.gateway import guessing
from openclaw_web.gateway.errors import Form
from openclaw_web.gateway.shapes import Part
from openclaw_web.gateway.usage import Usage, is_usage_only, read_usage
from openclaw_web.gateway.wire import Request

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
SAMPLE_BYTES: Final = 8_192  # of a stream's beginning, kept to guess from if it is cut

_EVENT_END: Final = re.compile(rb"\r?\n\r?\n")
_FINISHED: Final = re.compile(rb"data: ?\[DONE\]|event: ?message_stop")
_FAILED: Final = re.compile(rb"data: ?\{\"error\"|event: ?error")
# What to look for before a line is tried: searching for bytes costs next to nothing.
_DONE, _STOP = b"[DONE]", b"message_stop"
_OPENAI_ERROR, _ERROR = b'{"error"', b"error"
_USAGE: Final = b'"usage"'
_NO_USAGE: Final = b":null"  # stands in every chunk but the last where usage was asked for
_BLANK: Final = b"\n\n"


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
        return rest if self._hides_usage and not any(map(is_usage_only, parts)) else b""

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
            if is_usage_only(part):
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
            if not any(map(is_usage_only, parts)):
                passed.append(event)
        self._rest = data[start:]
        return b"".join(passed)

    def _read(self, lines: bytes) -> Iterable[tuple[int, Part]]:
        """Look at whole lines; return those that say something about usage, and where they start.

        The usage is taken over while they are gone through.
        """
        if not self.is_finished:
            self.is_finished = _has_line(lines, self._end, _FINISHED)
        if not self.has_error:
            self.has_error = _has_line(lines, self._error, _FAILED)
        at = lines.find(_USAGE)
        return self._usages(lines, at) if at >= 0 else ()

    def _usages(self, lines: bytes, at: int) -> Iterator[tuple[int, Part]]:
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
