"""The controllers' loop: a change queues the objects that it concerns, each is put right in turn.

Each reconciler looks at what is there now, never at what happened, so it may be called at any time.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.collector import Collector
from simulators.kubernetes.deployments import Deployments
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.jobs import Jobs
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.namespaces import Namespaces
from simulators.kubernetes.objects import (
    Object,
    controller_of,
    is_terminating,
    name_of,
    namespace_of,
    owners_of,
)
from simulators.kubernetes.quotas import Quotas
from simulators.kubernetes.recorder import Recorder
from simulators.kubernetes.records import Records, is_held_back
from simulators.kubernetes.replicasets import ReplicaSets
from simulators.kubernetes.snapshots import Snapshots
from simulators.kubernetes.store import DELETED, Change
from simulators.kubernetes.volumes import Volumes

logger = logging.getLogger(__name__)
EVENT_SWEEP_SECONDS = 60.0
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 30.0
Item = tuple[str, str, str]  # controller, namespace, name


class Reconciler(Protocol):
    """Puts one object right; returns seconds after which to look again, or None."""

    async def reconcile(self, namespace: str, name: str, /) -> float | None: ...


class Controllers:
    """Queues and runs all reconcilers in one task."""

    def __init__(
        self,
        cluster: Cluster,
        knobs: Knobs,
        *,
        volumes: Volumes,
        records: Records,
        snapshots: Snapshots,
    ) -> None:
        self._cluster = cluster
        self._recorder = Recorder(cluster, "controller-manager")
        self._reconcilers: dict[str, Reconciler] = {
            "deployment": Deployments(cluster, self._recorder),
            "replicaset": ReplicaSets(cluster, self._recorder),
            "namespace": Namespaces(cluster),
            "quota": Quotas(cluster),
            "claim": volumes,
            "snapshot": snapshots,
            "job": Jobs(cluster, self._recorder, knobs),
            "record": records,
            "object": Collector(cluster),
        }
        self._waiting: dict[Item, None] = {}
        self._later: dict[Item, asyncio.TimerHandle] = {}
        self._failures: dict[Item, int] = {}
        self._wake = asyncio.Event()

    def start(self) -> None:
        self._cluster.store.listen(self._on_change)
        for resource, one in self._cluster.store.everything():
            for item in _items(self._cluster, resource, one, is_gone=False):
                self._add(item)
            self._add(("object", resource.qualified, f"{namespace_of(one)}/{name_of(one)}"))

    async def run(self) -> None:
        """Work until cancelled."""
        sweeper = asyncio.ensure_future(self._sweep_events())
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    item = next(iter(self._waiting))
                    del self._waiting[item]
                    await self._reconcile(item)
                    await asyncio.sleep(0)
        finally:
            sweeper.cancel()

    async def _reconcile(self, item: Item) -> None:
        controller, namespace, name = item
        try:
            again = await self._reconcilers[controller].reconcile(namespace, name)
        except ApiError as error:
            logger.info("%s %s/%s: %s", controller, namespace, name, error)
            self._retry(item)
        except (
            Exception
        ):  # the loop is the last to know; one broken object must not stop the others
            logger.exception("%s %s/%s", controller, namespace, name)
            self._retry(item)
        else:
            self._failures.pop(item, None)
            if again is not None:
                self._add_later(item, again)

    def _retry(self, item: Item) -> None:
        failures = self._failures[item] = self._failures.get(item, 0) + 1
        self._add_later(item, min(FIRST_RETRY_SECONDS * 2**failures, LONGEST_RETRY_SECONDS))

    def _add(self, item: Item) -> None:
        self._waiting[item] = None
        self._wake.set()

    def _add_later(self, item: Item, seconds: float) -> None:
        if (before := self._later.pop(item, None)) is not None:
            before.cancel()
        loop = asyncio.get_running_loop()
        self._later[item] = loop.call_later(seconds, self._due, item)

    def _due(self, item: Item) -> None:
        self._later.pop(item, None)
        self._add(item)

    def look_again(self) -> None:
        """Take up changed settings: recorded pods that wait may have room now."""
        for pod in self._cluster.store.objects(resources.PODS):
            if "nodeName" not in pod["spec"]:
                self._add(("record", namespace_of(pod), name_of(pod)))

    def _on_change(self, change: Change) -> None:
        is_gone = change.kind == DELETED
        for item in _items(self._cluster, change.resource, change.obj, is_gone=is_gone):
            self._add(item)

    async def _sweep_events(self) -> None:
        while True:
            await asyncio.sleep(EVENT_SWEEP_SECONDS)
            self._recorder.forget_old()


def _items(
    cluster: Cluster, resource: resources.Resource, one: Object, *, is_gone: bool
) -> Iterator[Item]:
    """Name everything that a change of this object may concern."""
    namespace, name = namespace_of(one), name_of(one)
    if resource is resources.EVENTS:
        return
    if find := _CONCERNED.get(resource):
        yield from find(cluster, one)
    if resource.namespaced:
        yield "quota", namespace, ""
    if is_gone:
        yield "object", "", one["metadata"]["uid"]
        yield from _owners(one)
        if namespace and _is_ending(cluster, namespace):
            yield "namespace", "", namespace
    elif "ownerReferences" in one["metadata"] or is_terminating(one):
        yield "object", resource.qualified, f"{namespace}/{name}"


def _owners(one: Object) -> Iterator[Item]:
    """Name the owners of a gone object: one that waits for its dependents may go now."""
    for owner in owners_of(one):
        resource = resources.BY_KIND.get((owner["apiVersion"], owner["kind"]))
        if resource is not None:
            yield "object", resource.qualified, f"{namespace_of(one)}/{owner['name']}"


def _is_ending(cluster: Cluster, namespace: str) -> bool:
    inside = cluster.find(resources.NAMESPACES, "", namespace)
    return inside is not None and is_terminating(inside)


def _of_deployment(_: Cluster, one: Object) -> Iterator[Item]:
    yield "deployment", namespace_of(one), name_of(one)


def _of_replica_set(_: Cluster, one: Object) -> Iterator[Item]:
    yield "replicaset", namespace_of(one), name_of(one)
    owner = controller_of(one)
    if owner and owner["kind"] == "Deployment":
        yield "deployment", namespace_of(one), owner["name"]


def _of_pod(cluster: Cluster, one: Object) -> Iterator[Item]:
    namespace = namespace_of(one)
    for volume in one["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield "claim", namespace, volume["persistentVolumeClaim"]["claimName"]
    yield "record", namespace, name_of(one)
    owner = controller_of(one)
    if owner is not None and owner["kind"] == "Job":
        yield "job", namespace, owner["name"]
    if owner is None or owner["kind"] != "ReplicaSet":
        return
    yield "replicaset", namespace, owner["name"]
    above = cluster.find(resources.REPLICA_SETS, namespace, owner["name"])
    above_owner = controller_of(above) if above else None
    if above_owner:
        yield "deployment", namespace, above_owner["name"]


def _of_claim(cluster: Cluster, one: Object) -> Iterator[Item]:
    yield "claim", namespace_of(one), name_of(one)
    for pod in cluster.store.objects(resources.PODS, namespace_of(one)):
        if "nodeName" not in pod["spec"]:
            yield "record", namespace_of(one), name_of(pod)


def _of_contents(cluster: Cluster, one: Object) -> Iterator[Item]:
    for pod in cluster.store.objects(resources.PODS, namespace_of(one)):
        if is_held_back(pod):
            yield "record", namespace_of(one), name_of(pod)


def _of_snapshot(cluster: Cluster, one: Object) -> Iterator[Item]:
    yield "snapshot", namespace_of(one), name_of(one)
    for claim in cluster.store.objects(resources.CLAIMS, namespace_of(one)):
        if (claim["spec"].get("dataSource") or {}).get("name") == name_of(one):
            yield "claim", namespace_of(one), name_of(claim)


def _of_job(_: Cluster, one: Object) -> Iterator[Item]:
    yield "job", namespace_of(one), name_of(one)


def _of_volume(_: Cluster, one: Object) -> Iterator[Item]:
    claim = one["spec"].get("claimRef")
    if claim:
        yield "claim", claim["namespace"], claim["name"]


def _of_namespace(_: Cluster, one: Object) -> Iterator[Item]:
    yield "namespace", "", name_of(one)


_CONCERNED: dict[resources.Resource, Callable[[Cluster, Object], Iterator[Item]]] = {
    resources.DEPLOYMENTS: _of_deployment,
    resources.REPLICA_SETS: _of_replica_set,
    resources.PODS: _of_pod,
    resources.CLAIMS: _of_claim,
    resources.SECRETS: _of_contents,
    resources.CONFIG_MAPS: _of_contents,
    resources.VOLUMES: _of_volume,
    resources.NAMESPACES: _of_namespace,
    resources.JOBS: _of_job,
    resources.SNAPSHOTS: _of_snapshot,
}
