"""ReplicaSets: keep the wanted number of pods, and say how many there are."""

from typing import Any

from simulators.kubernetes import resources, selectors
from simulators.kubernetes.cluster import Cluster, Deletion
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import (
    Object,
    condition,
    copied,
    is_controlled_by,
    is_finished,
    is_ready,
    is_terminating,
    labels_of,
    merged_conditions,
    name_of,
    namespace_of,
    owner_reference,
    seconds_since,
    status_of,
    uid_of,
)
from simulators.kubernetes.recorder import Recorder

REFUSED_RETRY_SECONDS = 5.0  # a quota may have room again


class ReplicaSets:
    """Reconciles one ReplicaSet."""

    def __init__(self, cluster: Cluster, recorder: Recorder) -> None:
        self._cluster = cluster
        self._recorder = recorder

    async def reconcile(self, namespace: str, name: str) -> float | None:
        owner = self._cluster.find(resources.REPLICA_SETS, namespace, name)
        if owner is None or is_terminating(owner):
            return None
        refusal = self._adjust(owner)
        pods = active_pods(self._cluster, owner)
        delay = owner["spec"].get("minReadySeconds", 0)
        status = _status(owner, pods, delay, refusal)
        self._cluster.write_status(resources.REPLICA_SETS, owner, status)
        if refusal is not None:
            return REFUSED_RETRY_SECONDS
        ready = sum(is_ready(pod) for pod in pods)
        return 0.5 if status.get("availableReplicas", 0) < ready else None

    def _adjust(self, owner: Object) -> ApiError | None:
        """Create or delete pods; return why a creation was refused."""
        pods = active_pods(self._cluster, owner)
        wanted = owner["spec"]["replicas"]
        for _ in range(wanted - len(pods)):
            try:
                self._create(owner)
            except ApiError as refusal:
                self._recorder.warning(owner, "FailedCreate", f"Error creating: {refusal}")
                return refusal
        for pod in sorted(pods, key=_worth_keeping)[: max(0, len(pods) - wanted)]:
            how = Deletion(uid=uid_of(pod))
            self._cluster.delete(resources.PODS, namespace_of(pod), name_of(pod), how)
            self._recorder.normal(owner, "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")
        return None

    def _create(self, owner: Object) -> None:
        template = copied(owner["spec"]["template"])
        metadata = {
            key: template["metadata"][key]
            for key in ("labels", "annotations", "finalizers")
            if key in template["metadata"]
        }
        metadata |= {
            "generateName": f"{name_of(owner)}-",
            "ownerReferences": [owner_reference(resources.REPLICA_SETS, owner)],
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": template["spec"],
        }
        made = self._cluster.create(resources.PODS, namespace_of(owner), body)
        self._recorder.normal(owner, "SuccessfulCreate", f"Created pod: {name_of(made)}")


def pods_of(cluster: Cluster, owner: Object) -> list[Object]:
    """Return all pods that a ReplicaSet made, those that are ending included."""
    pods = cluster.store.objects(resources.PODS, namespace_of(owner))
    return [pod for pod in pods if is_controlled_by(pod, owner)]


def active_pods(cluster: Cluster, owner: Object) -> list[Object]:
    return [
        pod
        for pod in pods_of(cluster, owner)
        if not is_terminating(pod)
        and not is_finished(pod)
        and selectors.matches(owner["spec"]["selector"], labels_of(pod))
    ]


def is_available(pod: Object, min_ready_seconds: int) -> bool:
    found = condition(pod, "Ready")
    if not is_ready(pod) or found is None:
        return False
    return not min_ready_seconds or seconds_since(found["lastTransitionTime"]) >= min_ready_seconds


def _worth_keeping(pod: Object) -> tuple[bool, bool, str]:
    """Order pods so that those to delete first come first: unstarted, unready, youngest."""
    is_running = status_of(pod).get("phase") == "Running"
    age = pod["metadata"]["creationTimestamp"]
    youngest_first = "".join(chr(0x10FFFF - ord(letter)) for letter in age)
    return is_running, is_ready(pod), youngest_first


def _status(
    owner: Object, pods: list[Object], delay: int, refusal: ApiError | None
) -> dict[str, Any]:
    counts = {
        "fullyLabeledReplicas": len(pods),
        "readyReplicas": sum(is_ready(pod) for pod in pods),
        "availableReplicas": sum(is_available(pod, delay) for pod in pods),
    }
    status: dict[str, Any] = {
        "replicas": len(pods),
        "observedGeneration": owner["metadata"]["generation"],
        **{key: count for key, count in counts.items() if count},
    }
    if refusal is not None:
        failure = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": str(refusal),
        }
        before = status_of(owner).get("conditions") or []
        status["conditions"] = merged_conditions(before, [failure])
    return status
