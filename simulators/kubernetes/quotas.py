"""Keeps a quota's status: what its namespace uses of what it may."""

from decimal import Decimal

from simulators.kubernetes import quantities, quota, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.objects import Object


class Quotas:
    """Reconciles all quotas of one namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def reconcile(self, namespace: str, _: str) -> float | None:
        for each in self._cluster.store.objects(resources.QUOTAS, namespace):
            used = quota.used_in(self._cluster.store, namespace, each)
            self._cluster.write_status(resources.QUOTAS, each, _status(each, used))
        return None


def _status(one: Object, used: dict[str, Decimal]) -> dict[str, dict[str, str]]:
    hard = one["spec"].get("hard") or {}
    shown = {name: quantities.write(used.get(name, Decimal(0)), name) for name in hard}
    return {"hard": hard, "used": shown}
