"""Subresources with a life of their own: a log, an eviction, a scale, an account's token."""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from simulators.kubernetes import errors, merge, requests, scale
from simulators.kubernetes.answers import answer, success
from simulators.kubernetes.cluster import Cluster, Write
from simulators.kubernetes.identity import (
    AUDIENCE,
    DEFAULT_TOKEN_SECONDS,
    SHORTEST_TOKEN_SECONDS,
    Identities,
)
from simulators.kubernetes.objects import in_seconds, now
from simulators.kubernetes.requests import Target
from simulators.kubernetes.rest import Handler, Logs


class Subresources:
    """Finds the handler of a subresource; None where it is simply a part of the object."""

    def __init__(self, cluster: Cluster, logs: Logs, identities: Identities) -> None:
        self._cluster = cluster
        self._logs = logs
        self._identities = identities
        self._handlers: dict[str, Handler] = {
            "log": self._log,
            "scale": self._scale,
            "token": self._token,
            "eviction": self._evict,
        }

    def find(self, target: Target) -> Handler | None:
        return self._handlers.get(target.subresource)

    async def _log(self, request: Request, target: Target) -> Response:
        if request.method != "GET":
            raise errors.not_allowed("the server does not allow this method on pods/log")
        pod = self._cluster.get(target.resource, target.namespace, target.name)
        text = self._logs.read(pod, dict(request.query_params))
        return StreamingResponse(text, media_type="text/plain")

    async def _scale(self, request: Request, target: Target) -> Response:
        one = self._cluster.get(target.resource, target.namespace, target.name)
        if request.method == "GET":
            return answer(scale.scale_of(one))
        body = await requests.body(request)
        if request.method == "PATCH":
            patch = requests.content_type(request) == requests.JSON_PATCH
            before = scale.scale_of(one)
            body = merge.json_patch(before, body) if patch else merge.merge_patch(before, body)
        elif request.method != "PUT":
            raise errors.not_allowed("the server does not allow this method on a scale")
        wanted = scale.scaled(target.resource, one, body)
        manager = requests.manager(request, "scale", is_apply=False)
        write = Write(manager=manager, dry_run=requests.dry_run(request))
        return answer(scale.scale_of(self._cluster.replace(target.resource, wanted, write)))

    async def _token(self, request: Request, target: Target) -> Response:
        _only_post(request, "serviceaccounts/token")
        account = self._cluster.get(target.resource, target.namespace, target.name)
        body = await requests.body(request)
        spec: dict[str, Any] = (body.get("spec") if isinstance(body, dict) else None) or {}
        seconds = int(spec.get("expirationSeconds") or DEFAULT_TOKEN_SECONDS)
        if seconds < SHORTEST_TOKEN_SECONDS:
            hint = "may not specify a duration less than 10 minutes"
            cause = errors.wrong("spec.expirationSeconds", seconds, hint)
            raise errors.invalid(target.resource, target.name, [cause])
        token = self._identities.issue_for_account(account, seconds)
        made = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": target.name, "namespace": target.namespace},
            "spec": {"audiences": [AUDIENCE], "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": in_seconds(seconds)},
        }
        made["metadata"] |= {"creationTimestamp": now()}
        return answer(made, HTTPStatus.CREATED)

    async def _evict(self, request: Request, target: Target) -> Response:
        """Delete a pod as `kubectl drain` asks; there are no disruption budgets here."""
        _only_post(request, "pods/eviction")
        body = await requests.body(request)
        options = (body.get("deleteOptions") if isinstance(body, dict) else None) or {}
        how = await requests.deletion(request, options)
        self._cluster.delete(target.resource, target.namespace, target.name, how)
        return answer(success({}), HTTPStatus.CREATED)


def _only_post(request: Request, what: str) -> None:
    if request.method != "POST":
        raise errors.not_allowed(f"the server does not allow this method on {what}")
