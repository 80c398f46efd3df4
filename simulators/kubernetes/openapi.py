"""The OpenAPI v3 documents that kubectl reads for `apply`, `explain` and `diff`.

They are made on the first request from the published schemas, descriptions included, and kept in
the state folder, so that they cost no memory.
"""

from pathlib import Path
from typing import Any

import orjson

from simulators.kubernetes import errors
from simulators.kubernetes.resources import GROUP_VERSIONS, OFFERED, SERVER_VERSION, Resource
from simulators.kubernetes.schemas import SCALE, SCHEMAS_ID, published

_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")


def index() -> dict[str, Any]:
    paths = {
        _address(group, version): {
            "serverRelativeURL": f"/openapi/v3/{_address(group, version)}?hash={SCHEMAS_ID}"
        }
        for group, version in GROUP_VERSIONS
    }
    return {"paths": paths}


def document(folder: Path, address: str) -> bytes:
    """Return one group's document; `address` is `api/v1` or `apis/<group>/<version>`.

    Raises:
        ApiError: 404.
    """
    known = {_address(group, version): (group, version) for group, version in GROUP_VERSIONS}
    if address not in known:
        raise errors.unknown_resource()
    kept = folder / f"openapi-{SCHEMAS_ID}-{address.replace('/', '-')}.json"
    if not kept.exists():
        fresh = kept.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(_made(*known[address])))
        fresh.replace(kept)
    return kept.read_bytes()


def _address(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _made(group: str, version: str) -> dict[str, Any]:
    kinds = [one for one in OFFERED if (one.group, one.version) == (group, version)]
    roots = [*(one.definition for one in kinds), SCALE]
    schemas = {name: _in_v3_form(one) for name, one in published(roots).items()}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": SERVER_VERSION},
        "paths": {_path(one): _operations(one) for one in kinds},
        "components": {"schemas": schemas},
    }


def _path(one: Resource) -> str:
    inside = "namespaces/{namespace}/" if one.namespaced else ""
    return f"/{_address(one.group, one.version)}/{inside}{one.plural}/{{name}}"


def _operations(one: Resource) -> dict[str, Any]:
    meaning = {
        "x-kubernetes-group-version-kind": {
            "group": one.group,
            "version": one.version,
            "kind": one.kind,
        }
    }
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in _WRITE_PARAMETERS
    ]
    reference = {"$ref": f"#/components/schemas/{one.definition}"}
    answer = {"description": "OK", "content": {"application/json": {"schema": reference}}}
    return {
        "get": {"x-kubernetes-action": "get", "responses": {"200": answer}, **meaning},
        "patch": {
            "x-kubernetes-action": "patch",
            "parameters": parameters,
            "responses": {"200": answer},
            **meaning,
        },
    }


def _in_v3_form(schema: Any) -> Any:
    """Point references at components, and say one type where the source allows null beside it."""
    if isinstance(schema, list):
        return [_in_v3_form(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _in_v3_form(value) for key, value in schema.items()}
    if isinstance(changed.get("$ref"), str):
        name = changed["$ref"].rpartition("/")[2]
        return {"allOf": [{"$ref": f"#/components/schemas/{name}"}]} | {
            key: value for key, value in changed.items() if key != "$ref"
        }
    if isinstance(changed.get("type"), list):
        changed["type"] = next(one for one in changed["type"] if one != "null")
    return changed
