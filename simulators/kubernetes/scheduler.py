"""Which pods a node has room for, kept as running sums so that thousands of pods cost nothing."""

from decimal import Decimal
from typing import Any

from simulators.kubernetes import quantities, quota, resources, selectors
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.knobs import CAPACITY, Knobs
from simulators.kubernetes.objects import Object, is_finished, labels_of
from simulators.kubernetes.store import DELETED, Change

LOCAL_NODE, RECORDS_NODE = "local", "records"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_NOT_HELPFUL = "Preemption is not helpful for scheduling"


class Scheduler:
    """Says why a pod cannot be placed; nothing is unlimited but what the settings leave out."""

    def __init__(self, cluster: Cluster, knobs: Knobs) -> None:
        self._cluster = cluster
        self._knobs = knobs
        self._used: dict[str, dict[str, Decimal]] = {}
        for pod in cluster.store.objects(resources.PODS):
            self._count(pod, 1)
        cluster.store.listen(self._on_change)

    def refusal(self, pod: Object, node_name: str) -> str | None:
        """Return the real scheduler's sentence, or None where the pod can be placed."""
        node = self._cluster.find(resources.NODES, "", node_name)
        if node is None or node["spec"].get("unschedulable"):
            return _told("1 node(s) were unschedulable", _NOT_HELPFUL)
        if not selectors.matches({"matchLabels": pod["spec"].get("nodeSelector")}, labels_of(node)):
            return _told("1 node(s) didn't match Pod's node affinity/selector", _NOT_HELPFUL)
        lacking = self._lacking(pod, node_name)
        return _told(", ".join(lacking), _NO_VICTIMS) if lacking else None

    def _lacking(self, pod: Object, node_name: str) -> list[str]:
        room, used = self._knobs.now.capacity, self._used.get(node_name, {})
        wanted = _wanted(pod)
        lacking = []
        for name in CAPACITY:
            if name not in room or not wanted.get(name):
                continue
            if used.get(name, Decimal(0)) + wanted[name] > quantities.parse(room[name]):
                lacking.append("Too many pods" if name == "pods" else f"Insufficient {name}")
        return [f"1 {one}" for one in lacking]

    def _on_change(self, change: Change) -> None:
        if change.resource is not resources.PODS:
            return
        if change.before is not None:
            self._count(change.before, -1)
        if change.kind != DELETED:
            self._count(change.obj, 1)

    def _count(self, pod: Object, sign: int) -> None:
        node_name = pod["spec"].get("nodeName")
        if node_name is None or is_finished(pod):
            return
        used = self._used.setdefault(node_name, {})
        for name, amount in _wanted(pod).items():
            used[name] = used.get(name, Decimal(0)) + sign * amount


def _wanted(pod: Object) -> dict[str, Decimal]:
    asked = quota.requests_of(pod["spec"])
    return {"pods": Decimal(1), **{name: asked[name] for name in CAPACITY if name in asked}}


def _told(reason: str, preemption: str) -> str:
    counted = f"0/1 nodes are available: {reason}."
    return f"{counted} preemption: 0/1 nodes are available: 1 {preemption}."


def unschedulable(message: str) -> dict[str, Any]:
    """Return the condition of a pod that has no node."""
    return {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
