"""Reading a request: which object its address means, what its body says, which answer it wants."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
import yaml
from starlette.requests import Request

from simulators.kubernetes import errors, protobuf, selectors
from simulators.kubernetes.cluster import Deletion
from simulators.kubernetes.objects import Object, name_of
from simulators.kubernetes.ownership import Manager
from simulators.kubernetes.resources import BY_ADDRESS, BY_QUALIFIED, Resource
from simulators.kubernetes.selectors import Test

BODY_BYTES = 3 * 1024 * 1024  # the real server's limit
JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
# The official Python client names no type at all; the bearer token keeps web pages out here.
CONTENT_TYPES = frozenset({"", JSON, YAML, PROTOBUF, *PATCHES})
_GROUP_DEPTH = 2  # a group's address names the group and the version
_FORMS = {
    "Table": "Table",
    "PartialObjectMetadata": "Metadata",
    "PartialObjectMetadataList": "Metadata",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """The object, the collection or the part of an object that an address means."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    shown: Resource  # the kind by its address; another than what is kept for events.k8s.io


def target(path: str) -> Target:
    """Read `/api/v1/namespaces/<ns>/pods/<name>/status` and its like.

    Raises:
        ApiError: 404, there is no such kind here.
    """
    parts = [part for part in path.split("/") if part]
    group, version, rest = _group_version(parts)
    namespace = ""
    if len(rest) > _GROUP_DEPTH and rest[0] == "namespaces" and not _is_own_part(rest):
        namespace, rest = rest[1], rest[2:]
    resource = BY_ADDRESS.get((group, version, rest[0])) if rest else None
    if resource is None or (namespace and not resource.namespaced):
        raise errors.unknown_resource()
    name, subresource = ([*rest[1:], "", ""])[0], "/".join(rest[2:])
    if name and resource.namespaced and not namespace:
        raise errors.unknown_resource()
    stored = BY_QUALIFIED[resource.stored_as] if resource.stored_as else resource
    return Target(
        resource=stored, namespace=namespace, name=name, subresource=subresource, shown=resource
    )


def _group_version(parts: list[str]) -> tuple[str, str, list[str]]:
    if parts[0] == "api":
        return "", ([*parts[1:2], ""])[0], parts[2:]
    return ([*parts[1:2], ""])[0], ([*parts[2:3], ""])[0], parts[3:]


def _is_own_part(rest: list[str]) -> bool:
    """Say whether this is a subresource of a namespace and not something inside it."""
    return len(rest) == _GROUP_DEPTH + 1 and rest[2] in {"status", "finalize"}


async def body(request: Request) -> Any:
    """Return the body as plain data, or None where there is none.

    Raises:
        ApiError: 400, 413 or 415.
    """
    raw = await request.body()
    if not raw:
        return None
    if len(raw) > BODY_BYTES:
        message = f"Request entity too large: limit is {BODY_BYTES}"
        raise errors.ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLarge", message)
    kind = content_type(request)
    if kind == PROTOBUF or protobuf.is_protobuf(raw):
        return protobuf.decode(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if kind in {YAML, APPLY_PATCH}:
            return _yaml(raw)
        raise errors.bad_request(f"the object provided is unrecognized: {error}") from error


def content_type(request: Request) -> str:
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()


class _PlainLoader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a time stays a string."""


_PlainLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(raw: bytes) -> Any:
    try:
        return yaml.load(raw, Loader=_PlainLoader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        raise errors.bad_request(f"error converting YAML to JSON: {error}") from error


@dataclass(frozen=True)
class Form:
    """How the answer is to look: `Object`, `Metadata` or `Table`."""

    kind: str
    include: str = "Metadata"


def form(request: Request) -> Form:
    """Choose among the forms that the Accept header names, in its order.

    Raises:
        ApiError: 406, it names none that is spoken here.
    """
    accept = request.headers.get("accept") or "*/*"
    for entry in accept.split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        named = dict(part.split("=", 1) for part in parameters if "=" in part)
        if media in {JSON, "application/*", "*/*"} and named.get("as", "") in {*_FORMS, ""}:
            kind = _FORMS.get(named.get("as", ""), "Object")
            return Form(kind, request.query_params.get("includeObject") or "Metadata")
    message = f"only the following media types are accepted: {JSON}"
    raise errors.not_acceptable(message)


def manager(request: Request, subresource: str, *, is_apply: bool) -> Manager:
    """Return who writes: the named field manager, else the client's program.

    Raises:
        ApiError: 422, a server-side apply must name its manager.
    """
    name = request.query_params.get("fieldManager", "")
    if is_apply and not name:
        message = (
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for'
            " apply patch"
        )
        raise errors.ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message)
    agent = re.split(r"[/ ]", request.headers.get("user-agent", "unknown"), maxsplit=1)[0]
    return Manager(
        name=name or agent,
        operation="Apply" if is_apply else "Update",
        subresource=subresource if subresource in {"status", "scale"} else "",
        forced=flag(request, "force"),
    )


def flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in {"true", "1"}


def dry_run(request: Request, options: Any = None) -> bool:
    """Say whether nothing may be kept.

    Raises:
        ApiError: 400, a value other than `All`.
    """
    asked = request.query_params.getlist("dryRun")
    if isinstance(options, dict):
        asked = [*asked, *(options.get("dryRun") or [])]
    if any(one not in {"All", ""} for one in asked):
        raise errors.bad_request(
            f'dryRun: Unsupported value: "{asked[0]}": supported values: "All"'
        )
    return "All" in asked


def number(request: Request, name: str) -> int:
    """Return a whole number from the query, 0 where there is none.

    Raises:
        ApiError: 400, it is something else.
    """
    text = request.query_params.get(name) or "0"
    if not text.isdigit():
        raise errors.bad_request(f'{name}: Invalid value: "{text}"')
    return int(text)


def selected(request: Request, target: Target) -> Test:
    """Return the test that the request's selectors (and name, for a watch of one) make."""
    query = request.query_params
    labels = selectors.by_labels(query.get("labelSelector"))
    fields = selectors.by_fields(target.resource, query.get("fieldSelector"))
    name = target.name
    return lambda one: labels(one) and fields(one) and (not name or name_of(one) == name)


def check_names(target: Target, given: Object) -> None:
    """Let the body name what the address names, or nothing.

    Raises:
        ApiError: 400.
    """
    metadata = given["metadata"]
    name = metadata.setdefault("name", target.name)
    if name != target.name:
        raise errors.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({target.name})"
        )
    if metadata.get("namespace", target.namespace) != target.namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if target.namespace:
        metadata["namespace"] = target.namespace


async def deletion(request: Request, options: Any = None) -> Deletion:
    """Read how to delete, from the body and the query."""
    options = await body(request) if options is None else options
    options = options if isinstance(options, dict) else {}
    query = request.query_params
    grace = options.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    wanted = options.get("preconditions") or {}
    asked = options.get("propagationPolicy") or query.get("propagationPolicy") or ""
    return Deletion(
        grace_seconds=None if grace is None else int(grace),
        propagation="Orphan" if options.get("orphanDependents") else asked,
        uid=wanted.get("uid") or "",
        revision=wanted.get("resourceVersion") or "",
        dry_run=dry_run(request, options),
    )
