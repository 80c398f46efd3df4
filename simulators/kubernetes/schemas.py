"""Kubernetes' own object schemas, cut down to the kinds of this cluster.

They come with the `kubernetes-validate` package, which is read but never imported: importing it
costs 15 MB and half a second. The cut is kept in the state folder.
"""

import importlib.util
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from simulators.kubernetes import snapshot_schemas
from simulators.kubernetes.resources import OFFERED, SERVER_VERSION

Schema = dict[str, Any]
SCALE = "io.k8s.api.autoscaling.v1.Scale"
ROOTS = (
    *(one.definition for one in OFFERED),
    SCALE,
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.policy.v1.Eviction",
)
# Names the cut that is kept in the state folder: other kinds are another cut.
SCHEMAS_ID = f"{SERVER_VERSION}-{zlib.crc32(' '.join(ROOTS).encode()):08x}"
_NOTHING: Schema = {}
_REFERENCE = re.compile(rb'"#/\$defs/([^"]+)"')


class Schemas:
    """Definitions by name, without their descriptions."""

    def __init__(self, folder: Path) -> None:
        cached = folder / f"schemas-{SCHEMAS_ID}.json"
        if not cached.exists():
            cut = {name: _without_prose(one) for name, one in published(ROOTS).items()}
            fresh = cached.with_suffix(".new")
            fresh.write_bytes(orjson.dumps(cut))
            fresh.replace(cached)
        self._definitions: dict[str, Schema] = orjson.loads(cached.read_bytes())
        # by identity: the definitions live as long as this object, and so do these
        self._merged: dict[int, Schema] = {}
        self._types: dict[int, tuple[str, ...]] = {}

    def definition(self, name: str) -> Schema:
        return self._definitions[name]

    def resolved(self, schema: Schema | None) -> Schema:
        """Follow a reference; its siblings (merge keys, list types) stay visible."""
        if not schema:
            return _NOTHING
        reference = schema.get("$ref")
        if reference is None:
            return schema
        known = self._merged.get(id(schema))
        if known is None:
            known = {**self._definitions[reference.rpartition("/")[2]], **schema}
            self._merged[id(schema)] = known
        return known

    def types(self, schema: Schema) -> tuple[str, ...]:
        """Return the JSON types that a schema allows, null aside."""
        known = self._types.get(id(schema))
        if known is None:
            known = self._types[id(schema)] = _types(schema)
        return known

    def member(self, schema: Schema, key: str) -> Schema:
        """Return the schema of an object's field, or of a map's values."""
        found = (schema.get("properties") or {}).get(key)
        if found is None:
            more = schema.get("additionalProperties")
            found = more if isinstance(more, dict) else None
        return self.resolved(found)

    def items(self, schema: Schema) -> Schema:
        return self.resolved(schema.get("items"))


def _types(schema: Schema) -> tuple[str, ...]:
    if "oneOf" in schema:
        return tuple(kind for one in schema["oneOf"] for kind in _types(one))
    found = schema.get("type") or []
    listed = [found] if isinstance(found, str) else found
    return tuple(kind for kind in listed if kind != "null")


def published(roots: Iterable[str]) -> dict[str, Schema]:
    """Read these definitions, and all that they refer to, with their descriptions."""
    whole = orjson.loads(_document().read_bytes())["$defs"] | snapshot_schemas.DEFINITIONS
    found: dict[str, Schema] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = whole[name]
            inside = _REFERENCE.findall(orjson.dumps(whole[name]))
            waiting.extend(reference.decode() for reference in inside)
    return found


def _document() -> Path:
    package = importlib.util.find_spec("kubernetes_validate")
    if package is None or package.origin is None:
        raise SystemExit("kubernetes-validate is missing; run: pip install -r requirements.txt")
    folder = Path(package.origin).parent / "kubernetes-json-schema"
    return folder / f"{SERVER_VERSION}-local" / "_definitions.json"


def _without_prose(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_prose(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_prose(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }
