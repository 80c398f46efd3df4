"""The verbs of the API: what each request does to the cluster and what it is answered."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from simulators.kubernetes import (
    errors,
    event_forms,
    merge,
    ownership,
    requests,
    resources,
    selectors,
    tables,
)
from simulators.kubernetes.access import Access, Act
from simulators.kubernetes.answers import answer, listed, present, shaped, success
from simulators.kubernetes.cluster import Cluster, Write
from simulators.kubernetes.decoding import Decoded, decode
from simulators.kubernetes.faults import Faults, verb_of
from simulators.kubernetes.identity import User
from simulators.kubernetes.objects import Object, name_of, namespace_of, uid_of
from simulators.kubernetes.paging import Pages
from simulators.kubernetes.requests import Target
from simulators.kubernetes.watch import LONGEST_SECONDS, Watch, stream

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
_NOT_ALLOWED = "the server does not allow this method on the requested resource"
Handler = Callable[[Request, Target], Awaitable[Response]]


class Parts(Protocol):
    """The subresources that are not simply a part of the object."""

    def find(self, target: Target) -> Handler | None: ...


class Questioned(Protocol):
    """What answers the kinds that are questions."""

    def answer(self, user: User, target: Target, body: Any) -> dict[str, Any]: ...


class Logs(Protocol):
    """Where a container's output is read."""

    def read(self, pod: Object, options: Mapping[str, str]) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Handles every request below `/api` and `/apis` that means objects."""

    cluster: Cluster
    parts: Parts
    access: Access
    questions: Questioned
    faults: Faults
    pages: Pages = field(default_factory=Pages)

    async def handle(self, request: Request, user: User) -> Response:
        """Answer one request.

        Raises:
            ApiError: whatever is refused.
        """
        target = requests.target(request.url.path)
        is_watch = requests.flag(request, "watch")
        verb = verb_of(request.method, target, is_watch=is_watch)
        self.access.check(user, act_of(verb, target))
        request.scope["cluster.user"] = user
        handler = self._handler(request, target)
        return await self.faults.around(verb, target, lambda: handler(request, target))

    def _handler(self, request: Request, target: Target) -> Handler:
        if target.subresource in _INTERACTIVE and target.resource is resources.PODS:
            raise errors.not_allowed(
                f"pods/{target.subresource} is not offered by this development cluster: its pods"
                " are local processes; use 'kubectl logs', or the pod's own address"
            )
        if target.subresource not in ("", *target.resource.subresources):
            raise errors.unknown_resource()
        return self.parts.find(target) or self._verb(request, target)

    def _verb(self, request: Request, target: Target) -> Handler:
        verbs: dict[str, Handler] = {
            "GET": self._get,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        if not target.name:
            verbs = {"GET": self._list, "POST": self._create, "DELETE": self._delete_collection}
        if target.resource in resources.QUESTIONS:
            verbs = {"POST": self._ask} if not target.name else {}
        found = verbs.get(request.method)
        lacks_namespace = target.resource.namespaced and not target.namespace
        if found is None or (lacks_namespace and request.method != "GET"):
            raise errors.not_allowed(_NOT_ALLOWED)
        return found

    async def _ask(self, request: Request, target: Target) -> Response:
        user: User = request.scope["cluster.user"]
        body = await requests.body(request)
        return answer(self.questions.answer(user, target, body), HTTPStatus.CREATED)

    async def _get(self, request: Request, target: Target) -> Response:
        if requests.flag(request, "watch"):
            return await self._list(request, target)
        one = self.cluster.get(target.resource, target.namespace, target.name)
        return present(request, target, one)

    async def _list(self, request: Request, target: Target) -> Response:
        if requests.flag(request, "watch"):
            return self._watch(request, target)
        store = self.cluster.store
        asked = requests.number(request, "resourceVersion")
        if asked > store.revision:
            raise errors.too_large_revision(asked, store.revision)
        token, limit = request.query_params.get("continue", ""), requests.number(request, "limit")
        ordered: list[Object] = []
        if not self.pages.knows(token):
            test = requests.selected(request, target)
            found = [one for one in store.objects(target.resource, target.namespace) if test(one)]
            ordered = selectors.in_order(found)
        page, metadata = self.pages.cut(ordered, store.revision, limit=limit, token=token)
        return listed(request, target, page, metadata)

    def _watch(self, request: Request, target: Target) -> Response:
        form, query = requests.form(request), request.query_params

        def shown(one: Object) -> Any:
            if form.kind == "Table":
                metadata = {"resourceVersion": one["metadata"]["resourceVersion"]}
                return tables.table(target.resource, [one], metadata, form.include)
            return tables.partial(one) if form.kind == "Metadata" else shaped(target, one)

        revision = query.get("resourceVersion", "")
        if revision and not revision.isdigit():
            raise errors.bad_request(f'resourceVersion: Invalid value: "{revision}"')
        wanted = Watch(
            resource=target.resource,
            namespace=target.namespace,
            test=requests.selected(request, target),
            present=shown,
            revision=revision,
            timeout_seconds=requests.number(request, "timeoutSeconds") or LONGEST_SECONDS,
            bookmarks=requests.flag(request, "allowWatchBookmarks"),
            initial_events=requests.flag(request, "sendInitialEvents"),
        )
        lines = stream(self.cluster.store, wanted)
        return StreamingResponse(lines, media_type="application/json")

    async def _create(self, request: Request, target: Target) -> Response:
        decoded = self._decoded(request, target, await requests.body(request))
        asked = decoded.body["metadata"].get("namespace") or target.namespace
        if target.namespace and asked != target.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the"
                " request"
            )
        self._check_grant(request, target, decoded.body)
        write = self._write(request, target, decoded, is_apply=False)
        made = self.cluster.create(target.resource, target.namespace, decoded.body, write)
        return present(request, target, made, HTTPStatus.CREATED, write.warnings)

    async def _put(self, request: Request, target: Target) -> Response:
        return self._replace(request, target, await requests.body(request))

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
        old = shaped(target, old)
        return self._replace(request, target, self._patched(kind, target.shown, old, patch))

    def _replace(self, request: Request, target: Target, body: Any) -> Response:
        decoded = self._decoded(request, target, body)
        requests.check_names(target, decoded.body)
        self._check_grant(request, target, decoded.body)
        write = self._write(request, target, decoded, is_apply=False)
        made = self.cluster.replace(
            target.resource, decoded.body, write, subresource=target.subresource
        )
        return present(request, target, made, warnings=write.warnings)

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
        decoded = self._decoded(request, target, patch)
        wanted = decoded.body
        if wanted["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        requests.check_names(target, wanted)
        self._check_grant(request, target, wanted)
        write = self._write(request, target, decoded, is_apply=True)
        live = self.cluster.find(resource, target.namespace, target.name)
        if live is None and target.subresource:
            raise errors.not_found(resource, target.name)
        schemas = self.cluster.schemas
        schema = schemas.definition(resource.definition)
        if write.manager is None:
            raise errors.bad_request("an apply needs a manager")
        revision = wanted["metadata"].pop("resourceVersion", None)
        merged = ownership.apply(schemas, schema, live, wanted, write.manager)
        if live is None:
            self.access.check(request.scope["cluster.user"], act_of("create", target))
            made = self.cluster.create(resource, target.namespace, merged, write)
            return present(request, target, made, HTTPStatus.CREATED, write.warnings)
        merged = {**merged, "metadata": {**merged["metadata"]}}
        merged["metadata"]["resourceVersion"] = revision or live["metadata"]["resourceVersion"]
        made = self.cluster.replace(resource, merged, write, subresource=target.subresource)
        return present(request, target, made, warnings=write.warnings)

    async def _delete(self, request: Request, target: Target) -> Response:
        how = await requests.deletion(request)
        one, gone = self.cluster.delete(target.resource, target.namespace, target.name, how)
        if not gone or target.resource in _RETURNED_WHEN_DELETED:
            return present(request, target, one)
        details = {**errors.about(target.resource, target.name), "uid": uid_of(one)}
        return answer(success(details))

    async def _delete_collection(self, request: Request, target: Target) -> Response:
        how = await requests.deletion(request)
        test = requests.selected(request, target)
        found = self.cluster.store.objects(target.resource, target.namespace)
        deleted = [
            self.cluster.delete(target.resource, namespace_of(one), name_of(one), how)[0]
            for one in selectors.in_order(found)
            if test(one)
        ]
        metadata = {"resourceVersion": str(self.cluster.store.revision)}
        return listed(request, target, deleted, metadata)

    def _check_grant(self, request: Request, target: Target, body: Object) -> None:
        user: User = request.scope["cluster.user"]
        if not user.is_master and ("roleRef" in body or "rules" in body):
            self.access.check_grant(user, target.resource, target.namespace, body)

    def _decoded(self, request: Request, target: Target, body: Any) -> Decoded:
        strict = request.query_params.get("fieldValidation") == "Strict"
        decoded = decode(self.cluster.schemas, target.shown, body, strict=strict)
        if target.shown is resources.NEWER_EVENTS:
            decoded.body = event_forms.older(decoded.body)
        return decoded

    def _write(
        self, request: Request, target: Target, decoded: Decoded, *, is_apply: bool
    ) -> Write:
        is_warned = request.query_params.get("fieldValidation", "Warn") == "Warn"
        return Write(
            manager=requests.manager(request, target.subresource, is_apply=is_apply),
            dry_run=requests.dry_run(request),
            applied=is_apply,
            missing=tuple(decoded.missing),
            warnings=decoded.warnings() if is_warned else [],
        )


def act_of(verb: str, target: Target) -> Act:
    part = f"/{target.subresource}" if target.subresource else ""
    namespace = target.namespace
    if target.resource is resources.NAMESPACES:
        namespace = target.name  # a role inside a namespace may speak of the namespace itself
    return Act(
        verb=verb,
        group=target.shown.group,
        resource=target.shown.plural + part,
        namespace=namespace,
        name=target.name,
    )
