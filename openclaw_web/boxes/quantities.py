"""Kubernetes quantities: `1` and `1000m` are the same amount."""

import re
from decimal import Decimal
from typing import Any

_SHAPE = re.compile(r"(\d+(?:\.\d+)?)([mkMGTPE]|[KMGTPE]i)?")
_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{name: Decimal(1000) ** power for power, name in enumerate("kMGTPE", 1)},
    **{f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", 1)},
}


def is_same_quantity(first: Any, second: Any) -> bool:
    """Say whether both are quantities of the same amount; anything else is none."""
    one, other = _amount(first), _amount(second)
    return one is not None and one == other


def whole(value: str) -> int:
    """Return a quantity as a number, such as the bytes of `5Gi`."""
    amount = _amount(value)
    if amount is None:
        raise ValueError(f"{value!r} is no quantity")
    return int(amount)


def _amount(value: Any) -> Decimal | None:
    match = _SHAPE.fullmatch(value) if isinstance(value, str) else None
    return Decimal(match[1]) * _SUFFIXES[match[2] or ""] if match else None
