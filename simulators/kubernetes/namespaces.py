"""Namespaces: a new one gets its service account, an ending one is emptied and then let go."""

import contextlib

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import Object, is_terminating, merged_conditions, name_of
from simulators.kubernetes.resources import Resource

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
        left = {
            resource.plural: count
            for resource in self._in_order()
            if (count := len(self._cluster.store.objects(resource, name)))
        }
        if left:
            self._report(namespace, left)
        else:
            self._cluster.edit(resources.NAMESPACES, namespace, _without_hold)

    def _in_order(self) -> list[Resource]:
        first = [one for one in resources.ALL if one.namespaced and one not in _LAST]
        return [*first, *_LAST]

    def _report(self, namespace: Object, left: dict[str, int]) -> None:
        listed = ", ".join(
            f"{plural}. has {count} resource instances" for plural, count in left.items()
        )
        condition = {
            "type": "NamespaceContentRemaining",
            "status": "True",
            "reason": "SomeResourcesRemain",
            "message": f"Some resources are remaining: {listed}",
        }
        status = namespace.get("status", {})
        conditions = merged_conditions(status.get("conditions") or [], [condition])
        self._cluster.write_status(
            resources.NAMESPACES,
            namespace,
            {**status, "phase": "Terminating", "conditions": conditions},
        )


def _without_hold(namespace: Object) -> Object:
    kept = [one for one in namespace["spec"].get("finalizers", ()) if one != "kubernetes"]
    return {**namespace, "spec": {**namespace["spec"], "finalizers": kept}}
