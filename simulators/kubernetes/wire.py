"""Protocol buffers' wire format: a message as a list of numbered fields, nothing more."""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10
_SIGN, _WHOLE = 1 << 63, 1 << 64


class BrokenError(ValueError):
    """The bytes are not a message."""


def fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field: an int for a varint, else the bytes.

    Raises:
        BrokenError: the message ends too early, or holds what this format does not know.
    """
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(raw, position)
            yield number, value
            continue
        if kind == BYTES:
            size, position = _varint(raw, position)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise BrokenError(f"wire type {kind} is not known")
        if position + size > len(raw):
            raise BrokenError("unexpected EOF")
        yield number, raw[position : position + size]
        position += size


def signed(value: int) -> int:
    """Read a varint as the int32 or int64 that it stands for."""
    return value - _WHOLE if value & _SIGN else value


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = 0
    for step in range(_LONGEST_VARINT):
        if position >= len(raw):
            raise BrokenError("unexpected EOF")
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << (7 * step)
        if not byte & 0x80:
            return value & (_WHOLE - 1), position
    raise BrokenError("a number is too long")
