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
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as kubernetes_config

from openclaw_web.core.errors import SettingsError, VendorError
from openclaw_web.core.pauses import back_off
from openclaw_web.integrations.cluster_objects import (
    Broken,
    ClaimView,
    ClusterEvent,
    DeploymentView,
    Document,
    EventView,
    JobView,
    NamespaceState,
    NamespaceView,
    ObjectView,
    PodView,
    SnapshotClassView,
    SnapshotView,
    claim_view,
    cluster_event_view,
    event_of,
    job_view,
    listed,
    namespace_view,
    pod_view,
    snapshot_class_view,
    snapshot_view,
)

logger = logging.getLogger(__name__)

FIELD_MANAGER = "openclaw-cloud"
TIMEOUT_SECONDS = 15.0
PAGE = 500
WATCH_SECONDS = 240  # the server ends a watch then, and we resume where it stopped
LONGEST_PAUSE_SECONDS = 15.0
LOG_BYTES = 512 * 1024
FEWEST_LINES = 8  # of a log whose lines are very long
# A server that knows better answers with metadata alone, so that no secret travels.
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
METADATA_OF_MANY = METADATA_ONLY.replace("Metadata;", "MetadataList;")
MANAGED_SELECTOR = "openclaw.cloud/managed=true"
SERVER_ERROR = 500
CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    410: "gone",
    415: "refused",
    422: "invalid",
    429: "busy",
}
NOTHING_TO_READ = frozenset({"bad_request", "not_found"})
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


SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1"
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
    "VolumeSnapshot": Kind(prefix=SNAPSHOTS, plural="volumesnapshots"),
    "VolumeSnapshotClass": Kind(
        prefix=SNAPSHOTS, plural="volumesnapshotclasses", is_namespaced=False
    ),
    "Job": Kind(prefix="/apis/batch/v1", plural="jobs"),
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
    # Left to itself, the client has threads read .netrc and the proxies anew for each call.
    _use_proxy(configuration, configuration.proxy or _proxy_of_environment(configuration.host))
    configuration.client_session_kwargs = {"trust_env": False}
    return Cluster(kubernetes.ApiClient(configuration))


def _use_proxy(configuration: kubernetes.Configuration, address: str | None) -> None:
    """Go through a proxy; its password goes into a header, for errors tell its address."""
    if not address:
        return
    url = urlsplit(address)
    configuration.proxy = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    if url.username is not None:
        name, password = unquote(url.username), unquote(url.password or "")
        credentials = aiohttp.encode_basic_auth(name, password)
        configuration.proxy_headers = {"Proxy-Authorization": credentials}


def _proxy_of_environment(url: str) -> str | None:
    address = urlsplit(url)
    if not address.hostname or proxy_bypass(address.hostname):
        return None
    return getproxies().get(address.scheme)


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

    async def find_object(self, kind: str, namespace: str, name: str) -> ObjectView | None:
        """Return what is noted on an object and which version it is; its contents stay there."""
        found = await self._find(KINDS[kind].path(namespace, name), accept=METADATA_ONLY)
        if found is None:
            return None
        meta = found["metadata"]
        return ObjectView(
            annotations=meta.get("annotations") or {}, resource_version=meta["resourceVersion"]
        )

    async def merge(self, kind: str, namespace: str, name: str, change: Document) -> None:
        """Change what the document names and nothing else; it may name the version it is made for.

        Raises:
            VendorError: there is no such object, it is another version, or the cluster refuses.
        """
        await self._call(
            "PATCH",
            KINDS[kind].path(namespace, name),
            body=change,
            query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
            content_type="application/merge-patch+json",
        )

    async def annotate_pod(self, namespace: str, name: str, notes: dict[str, str]) -> bool:
        """Note something on a pod, whose kubelet looks at it at once; `False`: it is gone."""
        try:
            await self.merge("Pod", namespace, name, {"metadata": {"annotations": notes}})
        except VendorError as error:
            if error.code != "not_found":
                raise
            return False
        return True

    async def list_namespaces(self, selector: str = MANAGED_SELECTOR) -> list[NamespaceView]:
        views, _ = await self._list("Namespace", selector)
        return views

    async def list_pods(self, selector: str = MANAGED_SELECTOR) -> list[PodView]:
        views, _ = await self._list("Pod", selector)
        return views

    async def pages(
        self, kind: str, selector: str = MANAGED_SELECTOR, *, only_metadata: bool = False
    ) -> AsyncGenerator[list[Document]]:
        """Yield all of our objects of a kind, some hundreds at a time, as they are.

        `only_metadata` asks for labels and annotations alone: a Secret's content stays there.

        Raises:
            VendorError: a page did not come; what was seen until then is not all.
        """
        query = {"labelSelector": selector, "limit": str(PAGE)}
        options = {"accept": METADATA_OF_MANY} if only_metadata else {}
        while True:
            found = await self._call("GET", KINDS[kind].path(), query=query, **options)
            yield found["items"]
            if not found["metadata"].get("continue"):
                return
            query["continue"] = found["metadata"]["continue"]

    async def annotate_namespace(self, name: str, notes: dict[str, str | None]) -> None:
        """Note something on a namespace, or take it off with `None`; nothing else is touched."""
        await self.merge("Namespace", "", name, {"metadata": {"annotations": notes}})

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
            if error.code == "not_found":
                return
            # 409 may mean that its deletion runs already; if not, nobody would ever delete it.
            is_there = error.code != "conflict" or (
                await self.namespace_state(name) is NamespaceState.ACTIVE
            )
            if is_there:
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

    async def find_claim(self, namespace: str, name: str) -> ClaimView | None:
        found = await self._find(KINDS["PersistentVolumeClaim"].path(namespace, name))
        return claim_view(found) if found else None

    async def snapshot_classes(self) -> list[SnapshotClassView]:
        """Return the ways to make snapshots; none where the cluster has no such thing at all."""
        found = await self._find(KINDS["VolumeSnapshotClass"].path())
        return [snapshot_class_view(one) for one in found["items"]] if found else []

    async def find_snapshot(self, namespace: str, name: str) -> SnapshotView | None:
        found = await self._find(KINDS["VolumeSnapshot"].path(namespace, name))
        return snapshot_view(found) if found else None

    async def create(self, manifest: Document) -> str:
        """Make an object that does not exist yet, and return its version.

        Raises:
            VendorError: `conflict` when it exists already, or the cluster refuses it.
        """
        made = await self._call(
            "POST",
            KINDS[manifest["kind"]].path(manifest["metadata"].get("namespace")),
            body=manifest,
            query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
        )
        return made["metadata"]["resourceVersion"]

    async def jobs(self, namespace: str) -> list[JobView]:
        found = await self._call("GET", KINDS["Job"].path(namespace))
        return [job_view(one) for one in found["items"]]

    async def delete(
        self, kind: str, namespace: str, name: str, *, resource_version: str = ""
    ) -> None:
        """Delete an object and what it owns; one that is gone already is fine.

        Raises:
            VendorError: `conflict` when it is another version than the one named.
        """
        body: Document = {"propagationPolicy": "Background"}
        if resource_version:
            body["preconditions"] = {"resourceVersion": resource_version}
        try:
            await self._call("DELETE", KINDS[kind].path(namespace, name), body=body)
        except VendorError as error:
            if error.code != "not_found":
                raise

    async def scale(
        self, namespace: str, name: str, replicas: int, *, resource_version: str = ""
    ) -> bool:
        """Set the number of pods; `False` means that there is nothing to scale.

        Raises:
            VendorError: `conflict` when it is another version than the one named.
        """
        meta = {"metadata": {"resourceVersion": resource_version}} if resource_version else {}
        try:
            await self._call(
                "PATCH",
                f"{KINDS['Deployment'].path(namespace, name)}/scale",
                body={**meta, "spec": {"replicas": replicas}},
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

    async def events(self, namespace: str) -> list[EventView]:
        """Return what the cluster did in a namespace, the newest first."""
        found = await self._call("GET", KINDS["Event"].path(namespace))
        views = [cluster_event_view(one) for one in found["items"]]
        return sorted(views, key=lambda one: one.at, reverse=True)

    async def warnings(self, namespace: str) -> list[str]:
        """Return what the cluster complains about in a namespace, the newest first."""
        events = await self.events(namespace)
        return [f"{one.reason}: {one.message}" for one in events if one.is_warning]

    async def logs(
        self,
        namespace: str,
        pod: str,
        *,
        container: str = "",
        tail_lines: int = 200,
        is_previous: bool = False,
    ) -> str:
        """Return the end of what a container wrote, each line after its time.

        `is_previous` asks for the run before this one. Nothing is returned while there is nothing
        to read: the pod is gone, or its container has not started yet.
        """
        query = {
            "tailLines": str(tail_lines),
            "limitBytes": str(LOG_BYTES),
            "timestamps": "true",
            "previous": "true" if is_previous else "false",
        }
        if container:
            query["container"] = container
        try:
            found = await self._send("GET", f"{KINDS['Pod'].path(namespace, pod)}/log", query=query)
        except VendorError as error:
            if error.code in NOTHING_TO_READ:
                return ""
            raise
        text = found.decode("utf-8", "replace")
        if len(found) < LOG_BYTES:
            return text
        if tail_lines > FEWEST_LINES:  # the limit keeps the older end of what it cuts
            return await self.logs(
                namespace,
                pod,
                container=container,
                tail_lines=max(FEWEST_LINES, tail_lines // 5),
                is_previous=is_previous,
            )
        # A line that the limit cut in two could hold a part of a secret that nobody recognises.
        return text.rpartition("\n")[0]

    async def watch(self, selector: str = MANAGED_SELECTOR) -> AsyncGenerator[ClusterEvent]:
        """Yield what happens to our namespaces and pods, for ever.

        Each of the two starts with a complete list, and so does each gap that the server cannot
        fill (410 Gone); otherwise a broken watch resumes where it stopped. Errors are told and
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
                    views, version = await self._list(kind, selector)
                    await events.put(listed(kind, views))
                async with aclosing(self._changes(kind, selector, version)) as changes:
                    async for change, seen in changes:
                        version, failures = seen, 0
                        await events.put(change)
            except VendorError as error:
                failures += 1
                logger.warning("The watch of %s broke (%s); going on.", kind, error)
                if error.code == "gone":
                    version = ""
                else:
                    await events.put(Broken(why=str(error)))
                await asyncio.sleep(back_off(failures, longest_seconds=LONGEST_PAUSE_SECONDS))

    async def _list(self, kind: str, selector: str) -> tuple[list[Any], str]:
        """Return what we know of all of a kind: whole documents of thousands would not fit."""
        view = {"Namespace": namespace_view, "Pod": pod_view}[kind]
        views: list[Any] = []
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            found = await self._call("GET", KINDS[kind].path(), query=query)
            views.extend(view(one) for one in found["items"])
            meta = found["metadata"]
            if not meta.get("continue"):
                return views, meta["resourceVersion"]
            query["continue"] = meta["continue"]

    async def _changes(
        self, kind: str, selector: str, version: str
    ) -> AsyncGenerator[tuple[ClusterEvent, str]]:
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

    async def _find(self, path: str, *, accept: str = "application/json") -> Document | None:
        try:
            return await self._call("GET", path, accept=accept)
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
        accept: str = "application/json",
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        try:
            method, url, headers, *_ = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": accept, "Content-Type": content_type},
                auth_settings=["BearerToken"],
            )
            # The body is a plain document: nothing of it has to be made one.
            answer = await self._api.call_api(
                method, url, headers, body=body, _request_timeout=limits
            )
            async with answer.response as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    waits = response.headers.get("Retry-After", "")
                    raise _refusal(
                        response.status, await response.text(), f"{method} {path}", waits=waits
                    )
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


def _refusal(status: int, text: str, what: str, *, waits: str = "") -> VendorError:
    """Turn the API's Status object into our error, with a word of our own for each cause."""
    try:
        found = json.loads(text)
    except ValueError:
        found = {}
    message = found.get("message") or text[:500]
    code = CODES.get(status, "server_error" if status >= SERVER_ERROR else "refused")
    if status == HTTPStatus.FORBIDDEN:
        code = next((word for mark, word in FORBIDDEN_MARKS if mark in message), "forbidden")
    asked = (found.get("details") or {}).get("retryAfterSeconds") or 0
    return VendorError(
        f"The cluster refused {what}: {message}",
        can_retry=code in CAN_RETRY,
        code=code,
        retry_after_seconds=float(waits) if waits.isdecimal() else float(asked),
    )
