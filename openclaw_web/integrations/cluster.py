"""Kubernetes: apply, look, watch, scale, delete. Only the worker imports this; the client is large.

The official client does authentication and transport; objects travel as plain documents, because
what we write comes from `boxes/manifests.py` and what we read is a handful of fields.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as kubernetes_config

from openclaw_web.core.errors import SettingsError, VendorError
from openclaw_web.core.pauses import back_off
from openclaw_web.integrations.cluster_objects import (
    ClusterEvent,
    DeploymentView,
    Document,
    NamespaceState,
    NamespaceView,
    PodView,
    event_of,
    listed,
    namespace_view,
    pod_view,
)

logger = logging.getLogger(__name__)

FIELD_MANAGER = "openclaw-cloud"
TIMEOUT_SECONDS = 15.0
PAGE = 500
WATCH_SECONDS = 240  # the server ends a watch then, and we resume where it stopped
LONGEST_PAUSE_SECONDS = 15.0
MANAGED_SELECTOR = "openclaw.cloud/managed=true"
SERVER_ERROR = 500
CODES = {
    401: "unauthorized",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    410: "gone",
    415: "refused",
    422: "invalid",
    429: "busy",
}
FORBIDDEN_MARKS = (
    ("exceeded quota", "quota"),
    ("must specify", "quota"),
    ("because it is being terminated", "namespace_terminating"),
)
CAN_RETRY = frozenset(
    {
        "busy",
        "conflict",
        "gone",
        "namespace_terminating",
        "not_found",
        "quota",
        "server_error",
        "timeout",
        "unauthorized",  # a rotated service-account token is read again
    }
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Where a kind lives in the API."""

    prefix: str
    plural: str
    is_namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        scope = f"/namespaces/{namespace}" if self.is_namespaced and namespace else ""
        return f"{self.prefix}{scope}/{self.plural}" + (f"/{name}" if name else "")


KINDS = {
    "Namespace": Kind(prefix="/api/v1", plural="namespaces", is_namespaced=False),
    "ServiceAccount": Kind(prefix="/api/v1", plural="serviceaccounts"),
    "Secret": Kind(prefix="/api/v1", plural="secrets"),
    "LimitRange": Kind(prefix="/api/v1", plural="limitranges"),
    "ResourceQuota": Kind(prefix="/api/v1", plural="resourcequotas"),
    "PersistentVolumeClaim": Kind(prefix="/api/v1", plural="persistentvolumeclaims"),
    "Pod": Kind(prefix="/api/v1", plural="pods"),
    "Event": Kind(prefix="/api/v1", plural="events"),
    "NetworkPolicy": Kind(prefix="/apis/networking.k8s.io/v1", plural="networkpolicies"),
    "Deployment": Kind(prefix="/apis/apps/v1", plural="deployments"),
}


async def connect(kubeconfig: str = "") -> "Cluster":
    """Open a cluster: by a kubeconfig file, or as the pod that we are.

    Raises:
        SettingsError: neither a file nor a service account is there.
    """
    configuration = kubernetes.Configuration()
    try:
        if kubeconfig:
            await kubernetes_config.load_kube_config(
                config_file=kubeconfig, client_configuration=configuration
            )
        else:
            kubernetes_config.load_incluster_config(client_configuration=configuration)
    except (kubernetes_config.ConfigException, OSError) as error:
        raise SettingsError(f"KUBECONFIG: the cluster cannot be opened: {error}") from error
    return Cluster(kubernetes.ApiClient(configuration))


class Cluster:
    """One cluster, over one connection pool."""

    def __init__(self, api: kubernetes.ApiClient) -> None:
        self._api = api

    async def close(self) -> None:
        await self._api.close()

    async def apply(self, manifest: Document) -> Document:
        """Make an object as its manifest says, whether it exists or not.

        Raises:
            VendorError: the cluster refuses it or does not answer.
        """
        meta = manifest["metadata"]
        path = KINDS[manifest["kind"]].path(meta.get("namespace"), meta["name"])
        return await self._call(
            "PATCH",
            path,
            body=manifest,
            query={"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
            content_type="application/apply-patch+yaml",
        )

    async def find_annotations(self, kind: str, namespace: str, name: str) -> dict[str, str] | None:
        """Return what is noted on an object, or nothing when it does not exist."""
        found = await self._find(KINDS[kind].path(namespace, name))
        return (found["metadata"].get("annotations") or {}) if found else None

    async def list_namespaces(self, selector: str = MANAGED_SELECTOR) -> list[NamespaceView]:
        items, _ = await self._list("Namespace", selector)
        return [namespace_view(one) for one in items]

    async def find_namespace(self, name: str) -> NamespaceView | None:
        found = await self._find(KINDS["Namespace"].path(None, name))
        return namespace_view(found) if found else None

    async def namespace_state(self, name: str) -> NamespaceState:
        view = await self.find_namespace(name)
        return view.state if view else NamespaceState.ABSENT

    async def delete_namespace(self, name: str) -> None:
        """Ask for the end of a namespace and all in it; one that is gone already is fine."""
        try:
            await self._call("DELETE", KINDS["Namespace"].path(None, name))
        except VendorError as error:
            # 409 means that its deletion runs already.
            if error.code not in {"not_found", "conflict"}:
                raise

    async def find_deployment(self, namespace: str, name: str) -> DeploymentView | None:
        found = await self._find(KINDS["Deployment"].path(namespace, name))
        if found is None:
            return None
        meta = found["metadata"]
        return DeploymentView(
            replicas=found["spec"].get("replicas", 1),
            annotations=meta.get("annotations") or {},
            resource_version=meta["resourceVersion"],
        )

    async def scale(self, namespace: str, name: str, replicas: int) -> bool:
        """Set the number of pods; `False` means that there is nothing to scale."""
        try:
            await self._call(
                "PATCH",
                f"{KINDS['Deployment'].path(namespace, name)}/scale",
                body={"spec": {"replicas": replicas}},
                query={"fieldManager": FIELD_MANAGER},
                content_type="application/merge-patch+json",
            )
        except VendorError as error:
            if error.code != "not_found":
                raise
            return False
        return True

    async def pods(self, namespace: str) -> list[PodView]:
        found = await self._call("GET", KINDS["Pod"].path(namespace))
        return [pod_view(one) for one in found["items"]]

    async def warnings(self, namespace: str) -> list[str]:
        """Return what the cluster complains about in a namespace, the newest first."""
        found = await self._call("GET", KINDS["Event"].path(namespace))
        events = [one for one in found["items"] if one.get("type") == "Warning"]
        events.sort(key=lambda one: one.get("lastTimestamp") or "", reverse=True)
        return [f"{one.get('reason', '')}: {one.get('message', '')}" for one in events]

    async def watch(self, selector: str = MANAGED_SELECTOR) -> AsyncGenerator[ClusterEvent]:
        """Yield what happens to our namespaces and pods, for ever.

        Each of the two starts with a complete list, and so does each gap that the server cannot
        fill (410 Gone); otherwise a broken watch resumes where it stopped. Errors are logged and
        waited out.
        """
        events: asyncio.Queue[ClusterEvent] = asyncio.Queue(maxsize=1_000)
        followers = [
            asyncio.create_task(self._follow(kind, selector, events))
            for kind in ("Namespace", "Pod")
        ]
        try:
            while True:
                yield await _next_event(events, followers)
        finally:
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    async def _follow(self, kind: str, selector: str, events: asyncio.Queue[ClusterEvent]) -> None:
        version, failures = "", 0
        while True:
            try:
                if not version:
                    items, version = await self._list(kind, selector)
                    await events.put(listed(kind, items))
                async with aclosing(self._changes(kind, selector, version)) as changes:
                    async for change, seen in changes:
                        version, failures = seen, 0
                        if change is not None:
                            await events.put(change)
            except VendorError as error:
                version = "" if error.code == "gone" else version
                failures += 1
                logger.warning("The watch of %s broke (%s); going on.", kind, error)
                await asyncio.sleep(back_off(failures, longest_seconds=LONGEST_PAUSE_SECONDS))

    async def _list(self, kind: str, selector: str) -> tuple[list[Document], str]:
        items: list[Document] = []
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            found = await self._call("GET", KINDS[kind].path(), query=query)
            items.extend(found["items"])
            meta = found["metadata"]
            if not meta.get("continue"):
                return items, meta["resourceVersion"]
            query["continue"] = meta["continue"]

    async def _changes(
        self, kind: str, selector: str, version: str
    ) -> AsyncGenerator[tuple[ClusterEvent | None, str]]:
        query = {
            "labelSelector": selector,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        silence = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + 30)
        async with self._open("GET", KINDS[kind].path(), query=query, limits=silence) as response:
            async for line in _lines(response):
                change = json.loads(line)
                document = change["object"]
                if change["type"] == "ERROR":
                    raise _refusal(document.get("code", 0), json.dumps(document), f"watch {kind}")
                seen = document["metadata"]["resourceVersion"]
                yield event_of(kind, change["type"], document), seen

    async def _find(self, path: str) -> Document | None:
        try:
            return await self._call("GET", path)
        except VendorError as error:
            if error.code == "not_found":
                return None
            raise

    async def _call(self, method: str, path: str, **options: Any) -> Document:
        text = await self._send(method, path, **options)
        try:
            return json.loads(text)
        except ValueError as error:
            raise VendorError(
                f"The cluster's answer to {method} {path} cannot be read.",
                can_retry=True,
                code="server_error",
            ) from error

    async def _send(self, method: str, path: str, **options: Any) -> bytes:
        limits = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with self._open(method, path, limits=limits, **options) as response:
            return await response.read()

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        limits: aiohttp.ClientTimeout,
        body: Document | None = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._api.call_api(*request, _request_timeout=limits)
            async with answer.response as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise _refusal(response.status, await response.text(), f"{method} {path}")
                yield response
        except TimeoutError as error:
            raise VendorError(
                f"The cluster did not answer {method} {path} in time.",
                can_retry=True,
                code="timeout",
            ) from error
        except (aiohttp.ClientError, OSError, json.JSONDecodeError) as error:
            raise VendorError(
                f"The cluster cannot be reached: {error}", can_retry=True, code="unreachable"
            ) from error


async def _next_event(
    events: asyncio.Queue[ClusterEvent], followers: Iterable[asyncio.Task[None]]
) -> ClusterEvent:
    getter = asyncio.create_task(events.get())
    try:
        await asyncio.wait({getter, *followers}, return_when=asyncio.FIRST_COMPLETED)
        for follower in followers:
            if follower.done():
                follower.result()  # raises: a follower ends by an error only
        return await getter
    finally:
        getter.cancel()


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield whole lines, however large: a pod's document may be longer than the reader's buffer."""
    rest = b""
    async for piece in response.content.iter_any():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield line


def _refusal(status: int, text: str, what: str) -> VendorError:
    """Turn the API's Status object into our error, with a word of our own for each cause."""
    try:
        found = json.loads(text)
    except ValueError:
        found = {}
    message = found.get("message") or text[:500]
    code = CODES.get(status, "server_error" if status >= SERVER_ERROR else "refused")
    if status == HTTPStatus.FORBIDDEN:
        code = next((word for mark, word in FORBIDDEN_MARKS if mark in message), "forbidden")
    return VendorError(
        f"The cluster refused {what}: {message}", can_retry=code in CAN_RETRY, code=code
    )
