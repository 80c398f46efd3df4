"""The verbs of the API: what each request does to the cluster and what it is answered."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from simulators.kubernetes import (
    errors,
    merge,
    ownership,
    requests,
    resources,
    scale,
    selectors,
    tables,
)
from simulators.kubernetes.cluster import Cluster, Deletion, Write
from simulators.kubernetes.decoding import Decoded, decode
from simulators.kubernetes.objects import Object, name_of, namespace_of, uid_of
from simulators.kubernetes.requests import Target
from simulators.kubernetes.watch import LONGEST_SECONDS, Watch, stream

_PLAIN_SUBRESOURCES = ("", "status", "finalize")
# Deleting one of these answers with the object, of all others with a Status (as the real server).
_RETURNED_WHEN_DELETED = (
    resources.PODS,
    resources.SERVICES,
    resources.CLAIMS,
    resources.VOLUMES,
    resources.QUOTAS,
    resources.SERVICE_ACCOUNTS,
)
_INTERACTIVE = ("exec", "attach", "portforward", "proxy")


class Logs(Protocol):
    """Where a container's output is read."""

    def read(self, pod: Object, options: Mapping[str, str]) -> AsyncIterator[bytes]: ...


def answer(content: Any, code: int = HTTPStatus.OK, warnings: list[str] | None = None) -> Response:
    made = Response(orjson.dumps(content), code, media_type="application/json")
    for warning in warnings or ():
        made.headers.append("warning", f"299 - {json.dumps(warning)}")
    return made


@dataclass(frozen=True)
class Rest:
    """Handles every request below `/api` and `/apis` that means objects."""

    cluster: Cluster
    logs: Logs

    async def handle(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            ApiError: whatever is refused.
        """
        target = requests.target(request.url.path)
        if target.subresource in _INTERACTIVE and target.resource is resources.PODS:
            raise errors.not_allowed(
                f"pods/{target.subresource} is not offered by this development cluster: its pods"
                " are local processes; use 'kubectl logs', or the pod's own address"
            )
        if target.subresource not in ("", *target.resource.subresources):
            raise errors.unknown_resource()
        if target.subresource == "log":
            return self._log(request, target)
        if target.subresource == "scale":
            return await self._scale(request, target)
        return await self._verb(request, target)(request, target)

    def _verb(
        self, request: Request, target: Target
    ) -> Callable[[Request, Target], Awaitable[Response]]:
        verbs = {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}
        if not target.name:
            verbs = {"GET": self._list, "POST": self._create, "DELETE": self._delete_collection}
        found = verbs.get(request.method)
        lacks_namespace = target.resource.namespaced and not target.namespace
        if found is None or (lacks_namespace and request.method != "GET"):
            raise errors.not_allowed(
                "the server does not allow this method on the requested resource"
            )
        return found

    async def _get(self, request: Request, target: Target) -> Response:
        one = self.cluster.get(target.resource, target.namespace, target.name)
        return _present(request, target, one)

    async def _list(self, request: Request, target: Target) -> Response:
        if requests.flag(request, "watch"):
            return self._watch(request, target)
        test = _test(request, target)
        found = [
            one
            for one in self.cluster.store.objects(target.resource, target.namespace)
            if test(one)
        ]
        ordered = selectors.in_order(found)
        metadata: dict[str, Any] = {"resourceVersion": str(self.cluster.store.revision)}
        page, metadata = _page(request, ordered, metadata)
        form = requests.form(request)
        if form.kind == "Table":
            return answer(tables.table(target.resource, page, metadata, form.include))
        items = [tables.partial(one) for one in page] if form.kind == "Metadata" else page
        kind = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.api_version}
        if form.kind == "Metadata":
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        return answer({**kind, "metadata": metadata, "items": items})

    def _watch(self, request: Request, target: Target) -> Response:
        form, query = requests.form(request), request.query_params

        def present(one: Object) -> Any:
            if form.kind == "Table":
                metadata = {"resourceVersion": one["metadata"]["resourceVersion"]}
                return tables.table(target.resource, [one], metadata, form.include)
            return tables.partial(one) if form.kind == "Metadata" else one

        revision = query.get("resourceVersion", "")
        if revision and not revision.isdigit():
            raise errors.bad_request(f'resourceVersion: Invalid value: "{revision}"')
        wanted = Watch(
            resource=target.resource,
            namespace=target.namespace,
            test=_test(request, target),
            present=present,
            revision=revision,
            timeout_seconds=_number(request, "timeoutSeconds") or LONGEST_SECONDS,
            bookmarks=requests.flag(request, "allowWatchBookmarks"),
            initial_events=requests.flag(request, "sendInitialEvents"),
        )
        lines = stream(self.cluster.store, wanted)
        return StreamingResponse(lines, media_type="application/json")

    async def _create(self, request: Request, target: Target) -> Response:
        body = await requests.body(request)
        decoded = self._decoded(request, target.resource, body)
        asked = decoded.body["metadata"].get("namespace") or target.namespace
        if target.namespace and asked != target.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the"
                " request"
            )
        write = self._write(request, "", decoded, is_apply=False)
        made = self.cluster.create(target.resource, target.namespace, decoded.body, write)
        return _present(request, target, made, HTTPStatus.CREATED, self._warnings(request, decoded))

    async def _put(self, request: Request, target: Target) -> Response:
        body = await requests.body(request)
        decoded = self._decoded(request, target.resource, body)
        _check_names(target, decoded.body)
        write = self._write(request, target.subresource, decoded, is_apply=False)
        made = self.cluster.replace(
            target.resource, decoded.body, write, subresource=target.subresource
        )
        return _present(request, target, made, warnings=self._warnings(request, decoded))

    async def _patch(self, request: Request, target: Target) -> Response:
        kind = requests.content_type(request)
        if kind not in requests.PATCHES:
            accepted = ", ".join(requests.PATCHES)
            raise errors.unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include:"
                f" {accepted}"
            )
        patch = await requests.body(request)
        if kind == requests.APPLY_PATCH:
            return self._apply(request, target, patch)
        old = self.cluster.get(target.resource, target.namespace, target.name)
        patched = self._patched(kind, target.resource, old, patch)
        decoded = self._decoded(request, target.resource, patched)
        _check_names(target, decoded.body)
        write = self._write(request, target.subresource, decoded, is_apply=False)
        made = self.cluster.replace(
            target.resource, decoded.body, write, subresource=target.subresource
        )
        return _present(request, target, made, warnings=self._warnings(request, decoded))

    def _patched(self, kind: str, resource: resources.Resource, old: Object, patch: Any) -> Any:
        if kind == requests.JSON_PATCH:
            return merge.json_patch(old, patch)
        if not isinstance(patch, dict):
            raise errors.bad_request("the body of a merge patch is an object")
        if kind == requests.MERGE_PATCH:
            return merge.merge_patch(old, patch)
        schema = self.cluster.schemas.definition(resource.definition)
        return merge.strategic_merge(self.cluster.schemas, old, patch, schema)

    def _apply(self, request: Request, target: Target, patch: Any) -> Response:
        resource = target.resource
        decoded = self._decoded(request, resource, patch)
        wanted = decoded.body
        if wanted["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        _check_names(target, wanted)
        write = self._write(request, target.subresource, decoded, is_apply=True)
        live = self.cluster.find(resource, target.namespace, target.name)
        if live is None and target.subresource:
            raise errors.not_found(resource, target.name)
        schemas = self.cluster.schemas
        schema = schemas.definition(resource.definition)
        if write.manager is None:
            raise errors.bad_request("an apply needs a manager")
        revision = wanted["metadata"].pop("resourceVersion", None)
        merged = ownership.apply(schemas, schema, live, wanted, write.manager)
        warnings = self._warnings(request, decoded)
        if live is None:
            made = self.cluster.create(resource, target.namespace, merged, write)
            return _present(request, target, made, HTTPStatus.CREATED, warnings)
        merged = {**merged, "metadata": {**merged["metadata"]}}
        merged["metadata"]["resourceVersion"] = revision or live["metadata"]["resourceVersion"]
        made = self.cluster.replace(resource, merged, write, subresource=target.subresource)
        return _present(request, target, made, warnings=warnings)

    async def _delete(self, request: Request, target: Target) -> Response:
        how = await _deletion(request)
        one, gone = self.cluster.delete(target.resource, target.namespace, target.name, how)
        if not gone or target.resource in _RETURNED_WHEN_DELETED:
            return _present(request, target, one)
        details = {**errors.about(target.resource, target.name), "uid": uid_of(one)}
        return answer(_success(details))

    async def _delete_collection(self, request: Request, target: Target) -> Response:
        how = await _deletion(request)
        test = _test(request, target)
        found = self.cluster.store.objects(target.resource, target.namespace)
        deleted = [
            self.cluster.delete(target.resource, namespace_of(one), name_of(one), how)[0]
            for one in selectors.in_order(found)
            if test(one)
        ]
        kind = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.api_version}
        metadata = {"resourceVersion": str(self.cluster.store.revision)}
        return answer({**kind, "metadata": metadata, "items": deleted})

    async def _scale(self, request: Request, target: Target) -> Response:
        one = self.cluster.get(target.resource, target.namespace, target.name)
        if request.method == "GET":
            return answer(scale.scale_of(one))
        body = await requests.body(request)
        if request.method == "PATCH":
            kind = requests.content_type(request)
            if kind == requests.JSON_PATCH:
                body = merge.json_patch(scale.scale_of(one), body)
            else:
                body = merge.merge_patch(scale.scale_of(one), body)
        elif request.method != "PUT":
            raise errors.not_allowed("the server does not allow this method on a scale")
        wanted = scale.scaled(target.resource, one, body)
        manager = requests.manager(request, "scale", is_apply=False)
        write = Write(manager=manager, dry_run=requests.dry_run(request))
        return answer(scale.scale_of(self.cluster.replace(target.resource, wanted, write)))

    def _log(self, request: Request, target: Target) -> Response:
        if request.method != "GET":
            raise errors.not_allowed("the server does not allow this method on pods/log")
        pod = self.cluster.get(target.resource, target.namespace, target.name)
        text = self.logs.read(pod, dict(request.query_params))
        return StreamingResponse(text, media_type="text/plain")

    def _decoded(self, request: Request, resource: resources.Resource, body: Any) -> Decoded:
        strict = request.query_params.get("fieldValidation") == "Strict"
        return decode(self.cluster.schemas, resource, body, strict=strict)

    def _warnings(self, request: Request, decoded: Decoded) -> list[str]:
        wanted = request.query_params.get("fieldValidation", "Warn") == "Warn"
        return decoded.warnings() if wanted else []

    def _write(
        self, request: Request, subresource: str, decoded: Decoded, *, is_apply: bool
    ) -> Write:
        return Write(
            manager=requests.manager(request, subresource, is_apply=is_apply),
            dry_run=requests.dry_run(request),
            applied=is_apply,
            missing=tuple(decoded.missing),
        )


def _present(
    request: Request,
    target: Target,
    one: Object,
    code: int = HTTPStatus.OK,
    warnings: list[str] | None = None,
) -> Response:
    form = requests.form(request)
    if form.kind == "Table":
        metadata = {"resourceVersion": one["metadata"].get("resourceVersion", "")}
        return answer(tables.table(target.resource, [one], metadata, form.include), code, warnings)
    return answer(tables.partial(one) if form.kind == "Metadata" else one, code, warnings)


def _test(request: Request, target: Target) -> selectors.Test:
    query = request.query_params
    labels = selectors.by_labels(query.get("labelSelector"))
    fields = selectors.by_fields(target.resource, query.get("fieldSelector"))
    is_named = target.name
    return lambda one: labels(one) and fields(one) and (not is_named or name_of(one) == is_named)


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name) or "0"
    if not text.isdigit():
        raise errors.bad_request(f'{name}: Invalid value: "{text}"')
    return int(text)


def _page(
    request: Request, ordered: list[Object], metadata: dict[str, Any]
) -> tuple[list[Object], dict[str, Any]]:
    """Cut out the page that `limit` and `continue` ask for."""
    token = request.query_params.get("continue")
    if token:
        after = _position(token)
        ordered = [one for one in ordered if (namespace_of(one), name_of(one)) > after]
    limit = _number(request, "limit")
    if not limit or len(ordered) <= limit:
        return ordered, metadata
    last = ordered[limit - 1]
    position = orjson.dumps([namespace_of(last), name_of(last)])
    more = {
        "continue": base64.urlsafe_b64encode(position).decode(),
        "remainingItemCount": len(ordered) - limit,
    }
    return ordered[:limit], metadata | more


def _position(token: str) -> tuple[str, str]:
    try:
        namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError) as error:
        raise errors.bad_request("continue key is not valid") from error
    return namespace, name


def _check_names(target: Target, body: Object) -> None:
    metadata = body["metadata"]
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


async def _deletion(request: Request) -> Deletion:
    options = await requests.body(request)
    options = options if isinstance(options, dict) else {}
    query = request.query_params
    grace = options.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    wanted = options.get("preconditions") or {}
    how = Deletion(
        grace_seconds=None if grace is None else int(grace),
        propagation=options.get("propagationPolicy") or query.get("propagationPolicy") or "",
        uid=wanted.get("uid") or "",
        revision=wanted.get("resourceVersion") or "",
        dry_run=requests.dry_run(request, options),
    )
    orphan = options.get("orphanDependents")
    return replace(how, propagation="Orphan") if orphan else how


def _success(details: dict[str, Any]) -> dict[str, Any]:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**status, "details": details}
