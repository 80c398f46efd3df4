"""The three classic kinds of patch: JSON patch, JSON merge patch, and strategic merge patch."""

import copy
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from simulators.kubernetes.errors import ApiError, bad_request
from simulators.kubernetes.schemas import Schema, Schemas

_ORDER = "$setElementOrder/"
_DELETE_VALUES = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"
_PATCH = "$patch"


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply an RFC 7396 patch: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Any, operations: Any) -> Any:
    """Apply an RFC 6902 patch.

    Raises:
        ApiError: 422, a path is not there or a test does not hold; 400, this is no patch.
    """
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        raise bad_request("json: a JSON patch is a list of operations")
    patched = copy.deepcopy(target)
    for operation in operations:
        try:
            patched = _OPERATIONS[operation["op"]](patched, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise _impossible(operation) from error
    return patched


def _impossible(operation: Mapping[str, Any]) -> ApiError:
    message = (
        "the server rejected our request due to an error in our request: operation"
        f" {operation.get('op')!r} at {operation.get('path')!r} does not apply"
    )
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message)


def _steps(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(pointer)
    return [one.replace("~1", "/").replace("~0", "~") for one in pointer.split("/")[1:]]


def _parent(document: Any, pointer: str) -> tuple[Any, str]:
    steps = _steps(pointer)
    for step in steps[:-1]:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document, steps[-1]


def _value_at(document: Any, pointer: str) -> Any:
    for step in _steps(pointer):
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def _add(document: Any, operation: Mapping[str, Any], value: Any = None) -> Any:
    value = copy.deepcopy(operation["value"]) if "value" in operation else value
    if not operation["path"]:
        return value
    parent, last = _parent(document, operation["path"])
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last)
        if not 0 <= index <= len(parent):
            raise IndexError(last)
        parent.insert(index, value)
    else:
        parent[last] = value
    return document


def _remove(document: Any, operation: Mapping[str, Any]) -> Any:
    parent, last = _parent(document, operation["path"])
    del parent[int(last) if isinstance(parent, list) else last]
    return document


def _replace(document: Any, operation: Mapping[str, Any]) -> Any:
    if not operation["path"]:
        return operation["value"]
    parent, last = _parent(document, operation["path"])
    place = int(last) if isinstance(parent, list) else last
    parent[place]  # raises when there is nothing to replace
    parent[place] = operation["value"]
    return document


def _move(document: Any, operation: Mapping[str, Any]) -> Any:
    value = _value_at(document, operation["from"])
    document = _remove(document, {"path": operation["from"]})
    return _add(document, {"path": operation["path"]}, value)


def _copy(document: Any, operation: Mapping[str, Any]) -> Any:
    value = copy.deepcopy(_value_at(document, operation["from"]))
    return _add(document, {"path": operation["path"]}, value)


def _test(document: Any, operation: Mapping[str, Any]) -> Any:
    if _value_at(document, operation["path"]) != operation["value"]:
        raise ValueError(operation["path"])
    return document


_OPERATIONS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}


def strategic_merge(schemas: Schemas, target: Any, patch: Any, schema: Schema) -> Any:
    """Apply a strategic merge patch: lists with a merge key are merged item by item."""
    if not isinstance(patch, dict):
        return patch
    if patch.get(_PATCH) == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    merged = dict(target) if isinstance(target, dict) else {}
    if _RETAIN in patch:
        merged = {key: value for key, value in merged.items() if key in patch[_RETAIN]}
    for key, value in patch.items():
        if key.startswith(_DELETE_VALUES):
            field = key.removeprefix(_DELETE_VALUES)
            merged[field] = [one for one in merged.get(field) or [] if one not in value]
        elif value is None:
            merged.pop(key, None)
        elif not key.startswith("$"):
            field_schema = schemas.member(schema, key)
            merged[key] = _merge_field(schemas, merged.get(key), value, field_schema)
    _reorder(merged, patch, schemas, schema)
    return merged


def _merge_field(schemas: Schemas, target: Any, value: Any, schema: Schema) -> Any:
    if isinstance(value, dict):
        if value.get(_PATCH) == "delete":
            return {}
        return strategic_merge(schemas, target, value, schema)
    strategy = schema.get("x-kubernetes-patch-strategy", "")
    if not isinstance(value, list) or "merge" not in strategy.split(","):
        return value
    current = target if isinstance(target, list) else []
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        return [*current, *(one for one in value if one not in current)]
    return _merge_items(schemas, current, value, key, schemas.items(schema))


def _merge_items(
    schemas: Schemas, current: Sequence[Any], items: Sequence[Any], key: str, schema: Schema
) -> list[Any]:
    if any(item.get(_PATCH) == "replace" for item in items):
        return [item for item in items if _PATCH not in item]
    merged = list(current)
    for item in items:
        if key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        places = [index for index, one in enumerate(merged) if one.get(key) == item[key]]
        if item.get(_PATCH) == "delete":
            merged = [one for one in merged if one.get(key) != item[key]]
        elif places:
            merged[places[0]] = strategic_merge(schemas, merged[places[0]], item, schema)
        else:
            merged.append(strategic_merge(schemas, {}, item, schema))
    return merged


def _reorder(
    merged: dict[str, Any], patch: Mapping[str, Any], schemas: Schemas, schema: Schema
) -> None:
    """Put lists in the order the client asked for; items it does not name go to the end."""
    for directive, wanted in patch.items():
        field = directive.removeprefix(_ORDER)
        if field == directive or not isinstance(merged.get(field), list):
            continue
        key = schemas.member(schema, field).get("x-kubernetes-patch-merge-key")
        places = {one[key] if key else one: index for index, one in enumerate(wanted)}

        def place(one: Any, places: dict[Any, int] = places, key: str | None = key) -> int:
            return places.get(one.get(key) if key else one, len(places))

        merged[field] = sorted(merged[field], key=place)
