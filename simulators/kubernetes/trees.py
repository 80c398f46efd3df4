"""Parts that thousands of objects have in common, each kept once.

Boxes are alike: the same containers, the same policy, owned field by field alike. What is shared
between objects may not be changed by anybody, which holds for all that is stored.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import orjson

Path = tuple[str, ...]
Tree = dict[str, Any]
KEPT_TREES = 2048


def as_tree(paths: Iterable[Path]) -> Tree:
    return _as_tree(frozenset(paths))


@lru_cache(maxsize=KEPT_TREES)
def _as_tree(paths: frozenset[Path]) -> Tree:
    tree: Tree = {}
    for path in sorted(paths):
        inside = tree
        for step in path:
            inside = inside.setdefault(step, {})
    return tree


def as_paths(tree: Mapping[str, Any]) -> frozenset[Path]:
    """Return the paths of a tree; those of one that is shared are known already."""
    known = _paths_by_id.get(id(tree))
    if known is not None and known[0] is tree:
        return known[1]
    found = frozenset(_walk(tree, ()))
    if len(_paths_by_id) >= KEPT_TREES:
        _paths_by_id.clear()
    _paths_by_id[id(tree)] = (tree, found)
    return found


_paths_by_id: dict[int, tuple[Mapping[str, Any], frozenset[Path]]] = {}


def _walk(tree: Mapping[str, Any], before: Path) -> Iterable[Path]:
    for step, inside in tree.items():
        if inside:
            yield from _walk(inside, (*before, step))
        else:
            yield (*before, step)


def with_shared_parts(one: dict[str, Any]) -> dict[str, Any]:
    """Return the object with the parts of its spec, and its trees, shared with equal ones."""
    made = dict(one)
    metadata = one["metadata"]
    if entries := metadata.get("managedFields"):
        shared = [{**entry, "fieldsV1": _shared(entry["fieldsV1"])} for entry in entries]
        made["metadata"] = {**metadata, "managedFields": shared}
    if "spec" in one:
        made["spec"] = _with_shared_fields(one["spec"])
    return made


def _with_shared_fields(spec: dict[str, Any]) -> dict[str, Any]:
    made = {
        key: _shared(value) if isinstance(value, dict | list) and key != "template" else value
        for key, value in spec.items()
    }
    template = spec.get("template")
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        made["template"] = {**template, "spec": _with_shared_fields(template["spec"])}
    return made


def _shared(value: Any) -> Any:
    return _of_text(orjson.dumps(value))


@lru_cache(maxsize=KEPT_TREES)
def _of_text(text: bytes) -> Any:
    return orjson.loads(text)
