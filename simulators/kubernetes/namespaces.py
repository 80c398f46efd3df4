"""Namespaces: a new one gets its service account, an ending one is emptied and then let go."""

import contextlib
from collections import Counter

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import Object, is_terminating, merged_conditions, name_of
from simulators.kubernetes.resources import Resource

_SETTLED = (
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
)
_NO_FINALIZERS = (
    "NamespaceFinalizersRemaining",
    "ContentHasNoFinalizers",
    "All content-preserving finalizers finished",
)
_LAST = (resources.PODS, resources.EVENTS)  # their owners go first, so that nothing makes new ones


class Namespaces:
    """Reconciles one namespace by name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def reconcile(self, _: str, name: str) -> float | None:
        namespace = self._cluster.find(resources.NAMESPACES, "", name)
        if namespace is None:
            return None
        if not is_terminating(namespace):
            self._cluster.ensure_account(name)
        else:
            self._empty(namespace)
        return None

    def _empty(self, namespace: Object) -> None:
        name = name_of(namespace)
        for resource in self._in_order():
            for one in self._cluster.store.objects(resource, name):
                if not is_terminating(one):
                    with contextlib.suppress(ApiError):
                        self._cluster.delete(resource, name, name_of(one))
        left = [
            (resource, found)
            for resource in self._in_order()
            if (found := self._cluster.store.objects(resource, name))
        ]
        if left:
            self._report(namespace, left)
        else:
            self._cluster.edit(resources.NAMESPACES, namespace, _without_hold)

    def _in_order(self) -> list[Resource]:
        first = [one for one in resources.ALL if one.namespaced and one not in _LAST]
        return [*first, *_LAST]

    def _report(self, namespace: Object, left: list[tuple[Resource, list[Object]]]) -> None:
        """Say what still holds the namespace, in the conditions of the real controller."""
        status = namespace.get("status", {})
        conditions = merged_conditions(status.get("conditions") or [], _conditions(left))
        self._cluster.write_status(
            resources.NAMESPACES,
            namespace,
            {**status, "phase": "Terminating", "conditions": conditions},
        )


def _conditions(left: list[tuple[Resource, list[Object]]]) -> list[dict[str, str]]:
    listed = ", ".join(
        f"{_qualified(resource)} has {len(found)} resource instances" for resource, found in left
    )
    holding: Counter[str] = Counter(
        finalizer
        for _, found in left
        for one in found
        for finalizer in one["metadata"].get("finalizers") or ()
    )
    conditions = [_settled(*each) for each in _SETTLED]
    conditions.append(
        {
            "type": "NamespaceContentRemaining",
            "status": "True",
            "reason": "SomeResourcesRemain",
            "message": f"Some resources are remaining: {listed}",
        }
    )
    if not holding:
        return [*conditions, _settled(*_NO_FINALIZERS)]
    held = ", ".join(
        f"{finalizer} in {count} resource instances" for finalizer, count in sorted(holding.items())
    )
    found = {
        "type": "NamespaceFinalizersRemaining",
        "status": "True",
        "reason": "SomeFinalizersRemain",
        "message": f"Some content in the namespace has finalizers remaining: {held}",
    }
    return [*conditions, found]


def _settled(kind: str, reason: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": "False", "reason": reason, "message": message}


def _qualified(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}"


def _without_hold(namespace: Object) -> Object:
    kept = [one for one in namespace["spec"].get("finalizers", ()) if one != "kubernetes"]
    return {**namespace, "spec": {**namespace["spec"], "finalizers": kept}}
