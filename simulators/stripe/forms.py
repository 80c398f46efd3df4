"""Stripe's nested form fields, `items[0][price]=price_1`, read into dictionaries of strings."""

import re
from typing import Any
from urllib.parse import parse_qsl

from simulators.stripe.errors import invalid

FIELD = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
INNER = re.compile(r"\[([^\[\]]*)\]")

Raw = dict[str, Any]  # each value is a string or again such a dictionary


def decode(text: str) -> Raw:
    """Return the fields; an array is a dictionary whose keys are its indexes.

    Whether `a[0]` is an array or a map with the key "0" only the schema knows, so that is not
    decided here.
    """
    fields: Raw = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        match = FIELD.match(name)
        if match is None:
            raise invalid(f"Invalid parameter name: {name}", name)
        _put(fields, [match[1], *INNER.findall(match[2])], value, name)
    return fields


def _put(fields: Raw, keys: list[str], value: str, name: str) -> None:
    inner = fields
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        used = key or str(len(inner))
        if following is None:
            inner[used] = value
            return
        inner = inner.setdefault(used, {})
        if not isinstance(inner, dict):
            raise invalid(f"Invalid object at {name}", name)
