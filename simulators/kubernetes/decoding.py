"""Reading what a client sent against the schemas, as the real server decodes into its types.

Unknown fields are dropped, and refused or warned about as `fieldValidation` asks; a wrong type is
refused; nulls count as absent.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulators.kubernetes.errors import Cause, bad_request, required
from simulators.kubernetes.objects import Object
from simulators.kubernetes.resources import Resource
from simulators.kubernetes.schemas import Schema, Schemas

_CHECKS = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_GO_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number"}


@dataclass
class Decoded:
    """An object as the server understood it, and what was left aside."""

    body: Object
    unknown: list[str]
    missing: list[Cause]

    def warnings(self) -> list[str]:
        return [f'unknown field "{path}"' for path in self.unknown]


@dataclass
class _Reader:
    schemas: Schemas
    unknown: list[str] = field(default_factory=list)
    missing: list[Cause] = field(default_factory=list)

    def read(self, value: Any, schema: Schema, path: str, owner: str) -> Any:
        self._check_type(value, schema, path, owner)
        if isinstance(value, list):
            inner = self.schemas.items(schema)
            owner = _struct(schema.get("items"), owner)
            return [
                self.read(one, inner, f"{path}[{index}]", owner)
                for index, one in enumerate(value)
                if one is not None
            ]
        if isinstance(value, dict):
            return self._read_object(value, schema, path, owner)
        return value

    def _read_object(self, value: Mapping[str, Any], schema: Schema, path: str, owner: str) -> Any:
        properties = schema.get("properties") or {}
        is_free = not properties and "additionalProperties" not in schema
        kept: dict[str, Any] = {}
        for key, one in value.items():
            inside = f"{path}.{key}" if path else key
            if one is None:
                continue
            if is_free:
                kept[key] = one
            elif key in properties or "additionalProperties" in schema:
                raw = properties.get(key, schema.get("additionalProperties"))
                struct = _struct(raw, owner)
                kept[key] = self.read(one, self.schemas.member(schema, key), inside, struct)
            else:
                self.unknown.append(inside)
        for key in schema.get("required") or ():
            if kept.get(key) is None:
                self.missing.append(required(f"{path}.{key}" if path else key))
        return kept

    def _check_type(self, value: Any, schema: Schema, path: str, owner: str) -> None:
        kinds = self.schemas.types(schema)
        if kinds and not (
            _CHECKS[kinds[0]](value) or any(_CHECKS[kind](value) for kind in kinds[1:])
        ):
            found = _GO_NAMES.get(type(value), "number")
            wanted = schema.get("format") or kinds[0]
            raise _cannot_unmarshal(f"{found} into Go struct field {owner}.{path} of type {wanted}")
        if schema.get("format") == "byte":
            try:
                base64.b64decode(value, validate=True)
            except binascii.Error:
                raise _cannot_unmarshal(f"{owner}.{path}: illegal base64 data") from None


def decode(schemas: Schemas, resource: Resource, body: Any, *, strict: bool) -> Decoded:
    """Turn a request's body into an object of this kind.

    Raises:
        ApiError: 400, another kind or version, a wrong type, or unknown fields where `strict`.
    """
    if not isinstance(body, dict):
        raise bad_request("couldn't get version/kind; json parse error: the body is not an object")
    _check_kind(resource, body)
    reader = _Reader(schemas)
    definition = schemas.definition(resource.definition)
    try:
        read = reader.read(body, definition, "", resource.kind)
    except UnmarshalError as error:
        raise bad_request(f"{_cannot_be_handled(resource)}: json: {error}") from None
    if strict and reader.unknown:
        listed = ", ".join(f'unknown field "{path}"' for path in reader.unknown)
        raise bad_request(f"{_cannot_be_handled(resource)}: strict decoding error: {listed}")
    read |= {"apiVersion": resource.api_version, "kind": resource.kind}
    read.setdefault("metadata", {})
    return Decoded(read, reader.unknown, reader.missing)


class UnmarshalError(ValueError):
    """A value has another type than the schema says."""


def _cannot_unmarshal(what: str) -> UnmarshalError:
    return UnmarshalError(f"cannot unmarshal {what}")


def _check_kind(resource: Resource, body: Mapping[str, Any]) -> None:
    version, kind = body.get("apiVersion"), body.get("kind")
    if version not in (None, "", resource.api_version):
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version"
            f" ({resource.api_version})"
        )
    if kind not in (None, "", resource.kind):
        raise bad_request(
            f"{kind} in version {version!r} cannot be handled as a {resource.kind}: no kind"
            f" {kind!r} is registered for this address"
        )


def _cannot_be_handled(resource: Resource) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'


def _struct(schema: Any, owner: str) -> str:
    """Name the Go type that a reference points at, for the error message."""
    reference = schema.get("$ref", "") if isinstance(schema, dict) else ""
    return reference.rpartition(".")[2] or owner
