"""Putting values into a state: what the browser knows already is not sent to it again."""

from typing import Any

import reflex as rx


def show(state: rx.State, **values: Any) -> None:
    """Set what differs; an assignment of the same value would go over the wire once more."""
    for name, value in values.items():
        if getattr(state, name) != value:
            setattr(state, name, value)
