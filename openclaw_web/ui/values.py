"""What a page shows: plain values while building, variables of a state in the browser."""

from collections.abc import Sequence
from typing import Any

import reflex as rx
from reflex.vars import ObjectVar

Text = str | rx.Var[str]
Number = float | rx.Var[float]
Row = ObjectVar[dict[str, str]]


def is_any(items: Sequence[Any] | rx.Var[Any]) -> rx.Var[bool]:
    """Say in the browser whether a list of a state holds anything."""
    return rx.Var.create(items).to(list).length() > 0


def words(*parts: Text) -> rx.Var[str]:
    """Join class names or texts of which some are known in the browser only."""
    joined = rx.Var.create("").to(str)
    for part in parts:
        joined = joined + rx.Var.create(part).to(str)
    return joined
