"""Who set which field: managed fields, and server-side apply on top of them.

A field set is a set of paths in the notation of FieldsV1: `f:spec`, `k:{"name":"c"}`, `v:"x"`, `.`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import Object, now
from simulators.kubernetes.schemas import Schema, Schemas
from simulators.kubernetes.trees import Path, as_paths, as_tree

_NEVER_OWNED = {"apiVersion", "kind"}
_METADATA_OWNED = {"labels", "annotations", "finalizers", "ownerReferences"}
_DEFAULTED_KEYS = {"protocol": "TCP"}  # ports are keyed by a field that may be left out


@dataclass(frozen=True, kw_only=True)
class Manager:
    """Who writes, and in which way. Operation is `Apply` or `Update`."""

    name: str
    operation: str = "Update"
    subresource: str = ""
    forced: bool = False

    def is_entry(self, entry: Mapping[str, Any]) -> bool:
        return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (
            self.name,
            self.operation,
            self.subresource,
        )


def leaves(schemas: Schemas, one: Mapping[str, Any], schema: Schema) -> dict[Path, Any]:
    """Return every field a client can own, with its value."""
    found: dict[Path, Any] = {}
    for key, value in one.items():
        if key in _NEVER_OWNED:
            continue
        inner = schemas.member(schema, key)
        if key == "metadata":  # names and the server's own bookkeeping belong to nobody
            owned = {name: each for name, each in value.items() if name in _METADATA_OWNED}
            for name, each in owned.items():
                path = ("f:metadata", f"f:{name}")
                _collect(schemas, each, schemas.member(inner, name), path, found)
        else:
            _collect(schemas, value, inner, (f"f:{key}",), found)
    return found


def _collect(
    schemas: Schemas, value: Any, schema: Schema, path: Path, found: dict[Path, Any]
) -> None:
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for key, one in value.items():
            _collect(schemas, one, schemas.member(schema, key), (*path, f"f:{key}"), found)
    elif isinstance(value, list) and schema.get("x-kubernetes-list-type") == "map":
        keys = schema["x-kubernetes-list-map-keys"]
        for one in value:
            inside = (*path, _item_key(one, keys))
            found[*inside, "."] = None
            _collect(schemas, one, schemas.items(schema), inside, found)
    elif isinstance(value, list) and schema.get("x-kubernetes-list-type") == "set":
        for one in value:
            found[*path, f"v:{json.dumps(one)}"] = None
    else:
        found[path] = value


def _item_key(one: Mapping[str, Any], keys: Iterable[str]) -> str:
    named = {key: one.get(key, _DEFAULTED_KEYS.get(key)) for key in keys}
    present = {key: value for key, value in named.items() if value is not None}
    return f"k:{json.dumps(present, separators=(',', ':'), sort_keys=True)}"


def record_update(
    schemas: Schemas, schema: Schema, old: Object | None, new: Object, manager: Manager
) -> Object:
    """Give the fields that this write changed to its manager, and take them from all others."""
    before = leaves(schemas, old, schema) if old else {}
    after = leaves(schemas, new, schema)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    gone = before.keys() - after.keys()
    if not changed and not gone:
        return new
    entries = []
    mine: frozenset[Path] = frozenset()
    for entry in (old or new)["metadata"].get("managedFields") or []:
        paths = as_paths(entry["fieldsV1"]) - gone
        if manager.is_entry(entry):
            mine = paths
        elif left := paths - changed:
            entries.append({**entry, "fieldsV1": as_tree(left)})
    if mine | changed:
        entries.append(_entry(new, manager, mine | changed))
    return {**new, "metadata": {**new["metadata"], "managedFields": _sorted(entries)}}


def _entry(
    one: Object,
    manager: Manager,
    paths: frozenset[Path] | set[Path],
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe what the manager owns; the time stays with the fields: a repeat is no change."""
    made = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": one["apiVersion"],
        "time": now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": as_tree(paths),
    }
    if before and before["fieldsV1"] == made["fieldsV1"]:
        made["time"] = before["time"]
    return made | ({"subresource": manager.subresource} if manager.subresource else {})


def apply(
    schemas: Schemas, schema: Schema, live: Object | None, wanted: Object, manager: Manager
) -> Object:
    """Merge a server-side apply: set what is wanted, drop what this manager no longer wants.

    Raises:
        ApiError: 409, another manager owns a field with another value and `forced` is not set.
    """
    asked = leaves(schemas, wanted, schema)
    base = live or {"metadata": {}}
    others, mine = _owners(base, manager)
    present = leaves(schemas, base, schema)
    contested = {path for path, value in asked.items() if present.get(path, value) != value}
    _refuse_conflicts(others, contested, manager)
    kept = set().union(*(as_paths(entry["fieldsV1"]) for entry in others), asked)
    merged = _merge(schemas, base, wanted, schema)
    for path in sorted(mine - kept, key=len, reverse=True):
        merged = _without(merged, path, kept)
    entries = [
        {**entry, "fieldsV1": as_tree(left)}
        for entry in others
        if (left := as_paths(entry["fieldsV1"]) - contested)
    ]
    entries.append(_entry(wanted, manager, set(asked), _mine(base, manager)))
    return {**merged, "metadata": {**merged["metadata"], "managedFields": _sorted(entries)}}


def _mine(live: Object, manager: Manager) -> dict[str, Any] | None:
    entries = live["metadata"].get("managedFields") or []
    return next((entry for entry in entries if manager.is_entry(entry)), None)


def _sorted(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda one: (one["operation"], one["manager"], one["time"]))


def _owners(live: Object, manager: Manager) -> tuple[list[dict[str, Any]], frozenset[Path]]:
    others: list[dict[str, Any]] = []
    mine: frozenset[Path] = frozenset()
    for entry in live["metadata"].get("managedFields") or []:
        if manager.is_entry(entry):
            mine = as_paths(entry["fieldsV1"])
        else:
            others.append(entry)
    return others, mine


def _refuse_conflicts(
    others: Iterable[Mapping[str, Any]], contested: set[Path], manager: Manager
) -> None:
    causes = []
    for entry in [] if manager.forced else others:
        for path in sorted(as_paths(entry["fieldsV1"]) & contested):
            shown = _shown(path)
            message = f'conflict with "{entry["manager"]}" using {entry["apiVersion"]}'
            causes.append({"reason": "FieldManagerConflict", "message": message, "field": shown})
    if causes:
        plural = "s" if len(causes) > 1 else ""
        listed = "\n".join(f"{one['message']}: {one['field']}" for one in causes)
        message = f"Apply failed with {len(causes)} conflict{plural}: {listed}"
        raise ApiError(HTTPStatus.CONFLICT, "Conflict", message, {"causes": causes})


def _shown(path: Path) -> str:
    parts = []
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            parts.append(f".{rest}")
        elif kind == "k":
            named = json.loads(rest)
            shown = ",".join(f"{key}={json.dumps(value)}" for key, value in named.items())
            parts.append(f"[{shown}]")
        elif kind == "v":
            parts.append(f"[={rest}]")
    return "".join(parts)


def _merge(schemas: Schemas, live: Any, wanted: Any, schema: Schema) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return wanted
        merged = dict(live)
        for key, value in wanted.items():
            inner = schemas.member(schema, key)
            merged[key] = _merge(schemas, merged[key], value, inner) if key in merged else value
        return merged
    if isinstance(wanted, list) and isinstance(live, list):
        return _merge_list(schemas, live, wanted, schema)
    return wanted


def _merge_list(schemas: Schemas, live: list[Any], wanted: list[Any], schema: Schema) -> list[Any]:
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        return [*live, *(one for one in wanted if one not in live)]
    if kind != "map":
        return wanted
    keys = schema["x-kubernetes-list-map-keys"]
    asked = {_item_key(one, keys): one for one in wanted}
    merged = []
    for one in live:
        new = asked.pop(_item_key(one, keys), None)
        merged.append(one if new is None else _merge(schemas, one, new, schemas.items(schema)))
    return [*merged, *asked.values()]


def _without(value: Any, path: Path, kept: set[Path], done: Path = ()) -> Any:
    """Return `value` without the largest part on the way to `path` in which nobody owns anything.

    So a removed probe goes with the defaults inside it, as in the real server.
    """
    here = (*done, path[0])
    rest = path[1:]
    kind, _, name = path[0].partition(":")
    if kind == "v":
        return (
            [one for one in value if json.dumps(one) != name] if isinstance(value, list) else value
        )
    if kind == "f" and isinstance(value, dict) and name in value:
        if not _is_owned(here, kept):
            return {key: one for key, one in value.items() if key != name}
        return {**value, name: _without(value[name], rest, kept, here)} if rest else value
    if kind == "k" and isinstance(value, list):
        return _without_in_item(value, path, kept, done)
    return value


def _without_in_item(value: list[Any], path: Path, kept: set[Path], done: Path) -> list[Any]:
    here = (*done, path[0])
    named = json.loads(path[0].partition(":")[2])
    is_owned = _is_owned(here, kept)
    result = []
    for one in value:
        if any(one.get(key, _DEFAULTED_KEYS.get(key)) != named[key] for key in named):
            result.append(one)
        elif is_owned:
            result.append(_without(one, path[1:], kept, here))
    return result


def _is_owned(path: Path, kept: set[Path]) -> bool:
    return any(one[: len(path)] == path for one in kept)
