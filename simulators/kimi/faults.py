"""What may go wrong with an answer on its way, because somebody asked for it."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What happens to an answer, before its head or after some of it."""

    HANG = "hang"  # the connection stays open, and nothing comes any more
    CLOSE = "close"  # the connection is closed before the answer's end
    RESET = "reset"  # the same, as a broken machine does it
    END = "end"  # the answer ends as if that were all of it
    ERROR = "error"  # the stream says that it failed, and ends
    MALFORMED = "malformed"  # something that is no event is among them, and it goes on


CUTS = frozenset({Kind.HANG, Kind.CLOSE, Kind.RESET, Kind.END, Kind.ERROR})
BEFORE_THE_HEAD = frozenset({Kind.HANG, Kind.CLOSE, Kind.RESET})

# Not JSON, no known field, no field at all, not UTF-8, and JSON of a shape that nobody expects.
MALFORMED = (
    b'data: {"id": "chatcmpl-broken", "choices": [{"delta"\n\n'
    b"nonsense: 1\n\n"
    b": a comment is allowed\n\n"
    b"data\n\n"
    b"data: \xff\xfe\xfa\n\n"
    b'data: {"choices": "none", "usage": "much"}\n\n'
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong; `after_chunks` counts pieces of content, `None` is at once."""

    kind: Kind
    after_chunks: int | None = None

    @property
    def is_before_the_head(self) -> bool:
        return self.after_chunks is None and self.kind in BEFORE_THE_HEAD


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How an answer travels: how fast, in which pieces, packed, and what goes wrong."""

    fault: Fault | None = None
    chunk_delay_seconds: float = 0.0
    split_bytes: int | None = None
    is_gzip: bool = False
