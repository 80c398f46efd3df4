"""Reads a request's parameters as the official library declares them, and refuses the rest.

`parameters.json` is generated from that library (see `tests/contracts/stripe_parameters.py`).
"""

import json
from pathlib import Path
from typing import Any

from simulators.stripe.errors import StripeError, invalid, required, unsupported
from simulators.stripe.forms import Raw

Schema = str | dict[str, Any] | None  # None: Stripe takes it, we do not

KNOWN: dict[str, Any] = json.loads(
    Path(__file__).with_name("parameters.json").read_text(encoding="utf-8")
)
LONGEST_METADATA_VALUE = 500
MOST_METADATA_KEYS = 50
INTEGER_LIMIT = 2**53


def read(operation: str, raw: Raw) -> dict[str, Any]:
    """Return typed values; a parameter that was unset with an empty string is None.

    Raises:
        StripeError: a parameter is unknown, missing, of the wrong type, or not simulated.
    """
    return _read_object(KNOWN["operations"][operation], raw, "")


def is_known_route(method: str, segments: list[str]) -> bool:
    """Whether Stripe itself has such a route, as far as its library knows."""
    return any(_fits(route, segments) for route in KNOWN["routes"].get(method, ()))


def _fits(route: str, segments: list[str]) -> bool:
    expected = route.split("/")
    return len(expected) == len(segments) and all(
        one in {"{}", two} for one, two in zip(expected, segments, strict=True)
    )


def _read_object(schema: dict[str, Any], raw: Raw, path: str) -> dict[str, Any]:
    fields: dict[str, Schema] = schema["object"]
    unknown = [_name(path, key) for key in raw if key not in fields]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise invalid(
            f"Received unknown parameter{plural}: {', '.join(unknown)}",
            unknown[0],
            "parameter_unknown",
        )
    for name in schema.get("required", ()):
        if name not in raw:
            raise required(_name(path, name))
    return {key: _read(fields[key], value, _name(path, key)) for key, value in raw.items()}


def _name(path: str, key: str) -> str:
    return f"{path}[{key}]" if path else key


def _read(schema: Schema, raw: Any, path: str) -> Any:
    if schema is None:
        raise unsupported(f"the parameter {path}", path)
    if isinstance(schema, str):
        return SCALARS[schema](raw, path)
    if "object" in schema:
        return _object(schema, raw, path)
    ((form, inner),) = schema.items()
    return FORMS[form](inner, raw, path)


def _or_empty(inner: Schema, raw: Any, path: str) -> Any:
    return None if raw == "" else _read(inner, raw, path)


def _any(inner: list[Schema], raw: Any, path: str) -> Any:
    refusal: StripeError | None = None
    for schema in inner:
        try:
            return _read(schema, raw, path)
        except StripeError as error:
            refusal = refusal or error
    raise refusal or invalid(f"Invalid value for {path}", path)


def _object(schema: dict[str, Any], raw: Any, path: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise invalid("Invalid object", path)
    return _read_object(schema, raw, path)


def _list(inner: Schema, raw: Any, path: str) -> list[Any]:
    if not isinstance(raw, dict) or not all(key.isdigit() for key in raw):
        raise invalid("Invalid array", path)
    ordered = sorted(raw, key=int)
    return [_read(inner, raw[key], f"{path}[{at}]") for at, key in enumerate(ordered)]


def _enum(inner: list[str], raw: Any, path: str) -> str:
    if raw not in inner:
        *others, last = inner
        choices = f"{', '.join(others)}, or {last}" if others else last
        raise invalid(f"Invalid {path}: must be one of {choices}", path)
    return raw


def _string(raw: Any, path: str) -> str:
    if not isinstance(raw, str):
        raise invalid(f"Invalid string: {json.dumps(raw)}", path)
    if raw == "":
        raise invalid(
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to"
            f" unset a parameter; however '{path}' cannot be unset. You should remove '{path}' from"
            " your request or supply a non-empty value.",
            path,
            "parameter_invalid_empty",
        )
    return raw


def _integer(raw: Any, path: str) -> int:
    try:
        value = int(raw)
    except (TypeError, ValueError):
        raise invalid(f"Invalid integer: {raw}", path, "parameter_invalid_integer") from None
    if abs(value) > INTEGER_LIMIT:
        raise invalid(f"Invalid integer: {raw}", path, "parameter_invalid_integer")
    return value


def _number(raw: Any, path: str) -> float:
    try:
        return float(raw)
    except (TypeError, ValueError):
        raise invalid(f"Invalid decimal: {raw}", path) from None


def _boolean(raw: Any, path: str) -> bool:
    if raw not in {"true", "false"}:
        raise invalid(f"Invalid boolean: {raw}", path)
    return raw == "true"


def _map(raw: Any, path: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise invalid("Invalid object", path)
    for key, value in raw.items():
        if not isinstance(value, str):
            raise invalid(f"Invalid string: {json.dumps(value)}", f"{path}[{key}]")
        if len(value) > LONGEST_METADATA_VALUE:
            raise invalid(
                f"Metadata values can have up to {LONGEST_METADATA_VALUE} characters, but you"
                f" passed in a value that is {len(value)} characters.",
                f"{path}[{key}]",
            )
    if len(raw) > MOST_METADATA_KEYS:
        raise invalid(f"Metadata can have up to {MOST_METADATA_KEYS} keys.", path)
    return dict(raw)


SCALARS = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "map": _map,
}
FORMS = {"or_empty": _or_empty, "any": _any, "list": _list, "enum": _enum}
