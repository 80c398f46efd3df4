"""Kubernetes quantities: `250m`, `1.25Gi`, `2e3`."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:([eE][+-]?[0-9]+)|([a-zA-Z]*))")
_BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
}
_SUFFIXES = _BINARY | _DECIMAL


def parse(text: object) -> Decimal:
    """Read a quantity.

    Raises:
        ValueError: it is not one.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or (match[3] or "") not in _SUFFIXES:
        raise ValueError(str(text))
    return Decimal(f"{match[1]}{match[2] or ''}") * _SUFFIXES[match[3] or ""]


def total(resources: Iterable[Mapping[str, Any]]) -> dict[str, Decimal]:
    """Add up resource lists such as `{"cpu": "250m"}`."""
    sums: dict[str, Decimal] = {}
    for one in resources:
        for name, quantity in one.items():
            sums[name] = sums.get(name, Decimal(0)) + parse(quantity)
    return sums


def write(amount: Decimal, like: str = "") -> str:
    """Write a quantity in canonical form; `like` names what it is of: memory, cpu, pods."""
    if amount == 0:
        return "0"
    if like.endswith(("memory", "storage")):
        for suffix, factor in reversed(_BINARY.items()):
            if amount % factor == 0:
                return f"{int(amount / factor)}{suffix}"
    if amount == amount.to_integral_value():
        return str(int(amount))
    return f"{int((amount * 1000).to_integral_value(rounding='ROUND_UP'))}m"
