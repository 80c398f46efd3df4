"""Pods without processes: records that become Ready by themselves, for tests with thousands.

A pod is a record when it says so (`simulator/record: "true"` on itself or on its namespace), or
when the setting `records` was on as it was made. It belongs to a node of its own, waits for what
its environment refers to as any container does, and its state changes on request.
"""

import time
from collections.abc import Callable
from typing import Any

from simulators.kubernetes import environment, resources
from simulators.kubernetes.cluster import RECORD, Cluster, Deletion
from simulators.kubernetes.images import Image
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.objects import (
    Object,
    annotations_of,
    is_finished,
    is_terminating,
    merged_conditions,
    name_of,
    namespace_of,
    now,
    status_of,
    uid_of,
)
from simulators.kubernetes.probes import Place
from simulators.kubernetes.recorder import Recorder
from simulators.kubernetes.scheduler import RECORDS_NODE, Scheduler, unschedulable

HOST_ADDRESS = "192.0.2.1"  # reserved for documentation: nothing can be there
RETRY_SECONDS = 5.0
STATES = (
    "Running",
    "Unready",
    "CrashLoopBackOff",
    "OOMKilled",
    "ImagePullBackOff",
    "Evicted",
    "Succeeded",
    "Failed",
)
_NETWORK, _FIRST_HALF, _ADDRESSES = 198, 18, 1 << 17
_HELD_BACK = "CreateContainerConfigError"
_WAITING = ("CrashLoopBackOff", "ImagePullBackOff", _HELD_BACK)
_PENDING = ("ImagePullBackOff", _HELD_BACK)
_NO_IMAGE, _NO_PLACE = Image((), {}), Place("", {}, {})
_ENDED = {"Succeeded": (0, "Completed"), "Failed": (1, "Error"), "OOMKilled": (137, "OOMKilled")}


class Records:
    """Reconciles one recorded pod."""

    def __init__(
        self, cluster: Cluster, scheduler: Scheduler, knobs: Knobs, node: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._scheduler = scheduler
        self._knobs = knobs
        self._recorder = Recorder(cluster, "kubelet")
        self._make_node = node
        self._placed_at: dict[str, float] = {}
        given = [_number_of(pod) for pod in cluster.store.objects(resources.PODS)]
        self._last_address = max(given, default=0)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        pod = self._cluster.find(resources.PODS, namespace, name)
        if pod is None or not self.takes(pod):
            return None
        if is_terminating(pod):
            how = Deletion(grace_seconds=0, uid=uid_of(pod))
            self._cluster.delete(resources.PODS, namespace, name, how)
            self._placed_at.pop(uid_of(pod), None)
            return None
        if is_finished(pod) or (status_of(pod).get("containerStatuses") and not is_held_back(pod)):
            return None
        if "nodeName" not in pod["spec"]:
            return self._place(pod)
        return self._start(pod)

    def _start(self, pod: Object) -> float | None:
        began = self._placed_at.setdefault(uid_of(pod), time.monotonic())
        left = began + self._knobs.now.record_ready_seconds - time.monotonic()
        if left > 0:
            return left
        if problem := self._lacks(pod):
            self._hold_back(pod, problem)
            return None  # a Secret or a ConfigMap brings it here again
        self._placed_at.pop(uid_of(pod), None)
        wanted = annotations_of(pod).get(RECORD, "")
        self.put(pod, wanted if wanted in STATES else "Running")
        return None

    def takes(self, pod: Object) -> bool:
        place = pod["spec"].get("nodeName")
        if place is not None:
            return place == RECORDS_NODE
        namespace = self._cluster.find(resources.NAMESPACES, "", namespace_of(pod))
        return RECORD in annotations_of(pod) or bool(
            namespace and RECORD in annotations_of(namespace)
        )

    def put(self, pod: Object, state: str) -> bool:
        """Bring a recorded pod into a state; say whether it is one, and still there."""
        current = self._cluster.find(resources.PODS, namespace_of(pod), name_of(pod))
        if current is None or is_terminating(current) or not self.takes(current):
            return False
        status = self._status(current, state)
        self._cluster.write_status(resources.PODS, current, status)
        if state in {"CrashLoopBackOff", "OOMKilled"}:
            message = f"Back-off restarting failed container in pod {name_of(pod)}"
            self._recorder.warning(current, "BackOff", message)
        return True

    def _place(self, pod: Object) -> float | None:
        if self._cluster.find(resources.NODES, "", RECORDS_NODE) is None:
            self._make_node(RECORDS_NODE)
        problem = self._unbound(pod) or self._scheduler.refusal(pod, RECORDS_NODE)
        if problem is not None:
            self._recorder.warning(pod, "FailedScheduling", problem)
            before = status_of(pod)
            conditions = merged_conditions(before.get("conditions") or [], [unschedulable(problem)])
            status = {**before, "phase": "Pending", "conditions": conditions}
            self._cluster.write_status(resources.PODS, pod, status)
            return RETRY_SECONDS
        self._cluster.edit(
            resources.PODS,
            pod,
            lambda one: {**one, "spec": {**one["spec"], "nodeName": RECORDS_NODE}},
        )
        return None  # the change brings it here again

    def _unbound(self, pod: Object) -> str | None:
        for volume in pod["spec"].get("volumes") or ():
            name = volume.get("persistentVolumeClaim", {}).get("claimName")
            if name is None:
                continue
            claim = self._cluster.find(resources.CLAIMS, namespace_of(pod), name)
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if status_of(claim).get("phase") != "Bound":
                return "pod has unbound immediate PersistentVolumeClaims"
        return None

    def _lacks(self, pod: Object) -> str:
        """Say what of its environment is not there; nothing when all is."""
        spec = pod["spec"]
        try:
            for container in (*spec.get("initContainers", ()), *spec["containers"]):
                environment.build(self._cluster, pod, container, _NO_IMAGE, _NO_PLACE)
        except environment.Unresolved as problem:
            return str(problem)
        return ""

    def _hold_back(self, pod: Object, problem: str) -> None:
        self._recorder.warning(pod, "Failed", f"Error: {problem}")
        self._cluster.write_status(resources.PODS, pod, self._status(pod, _HELD_BACK, problem))

    def _address(self, pod: Object) -> str:
        """Return an address from 198.18.0.0/15, which is reserved for tests of benches."""
        known = status_of(pod).get("podIP")
        if known:
            return known
        self._last_address += 1
        number = self._last_address % _ADDRESSES
        half = _FIRST_HALF + (number >> 16)
        return f"{_NETWORK}.{half}.{(number >> 8) & 255}.{number & 255}"

    def _status(self, pod: Object, state: str, why: str = "") -> dict[str, Any]:
        before = status_of(pod)
        phase = {"Succeeded": "Succeeded", "Failed": "Failed", "Evicted": "Failed"}.get(
            state, "Pending" if state in _PENDING else "Running"
        )
        said = why or f"{state} was asked for"
        containers = [_container(pod, spec, state, said) for spec in pod["spec"]["containers"]]
        address = self._address(pod)
        ready = "True" if state == "Running" else "False"
        unready = {} if state == "Running" else {"reason": "ContainersNotReady"}
        found = [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": ready, **unready},
            {"type": "Ready", "status": ready, **unready},
        ]
        kept = {key: before[key] for key in ("qosClass", "startTime") if key in before}
        more = (
            {"reason": "Evicted", "message": "The node was low on resource: memory."}
            if state == "Evicted"
            else {"containerStatuses": containers}
        )
        return {
            "startTime": now(),
            **kept,
            "phase": phase,
            "conditions": merged_conditions(before.get("conditions") or [], found),
            "hostIP": HOST_ADDRESS,
            "podIP": address,
            "podIPs": [{"ip": address}],
            **more,
        }


def _number_of(pod: Object) -> int:
    """Return the number behind a record's address, 0 for other pods."""
    parts = [int(part) for part in status_of(pod).get("podIP", "0.0.0.0").split(".")]  # noqa: S104
    if parts[0] != _NETWORK:
        return 0
    return ((parts[1] - _FIRST_HALF) << 16) + (parts[2] << 8) + parts[3]


def is_held_back(pod: Object) -> bool:
    """Say whether a pod waits for a Secret or a ConfigMap of its environment."""
    found = status_of(pod).get("containerStatuses") or ()
    return any(one["state"].get("waiting", {}).get("reason") == _HELD_BACK for one in found)


def _container(pod: Object, spec: dict[str, Any], state: str, said: str) -> dict[str, Any]:
    known = {one["name"]: one for one in status_of(pod).get("containerStatuses") or ()}
    before = known.get(spec["name"], {})
    count = before.get("restartCount", 0)
    began = (before.get("state") or {}).get("running", {}).get("startedAt", now())
    shown: dict[str, Any] = {"running": {"startedAt": began}}
    last: dict[str, Any] = before.get("lastState") or {}
    if state in _WAITING:
        shown = {"waiting": {"reason": state, "message": said}}
        count += state == "CrashLoopBackOff"
    elif state in _ENDED:
        code, reason = _ENDED[state]
        times = {"startedAt": began, "finishedAt": now()}
        shown = ended = {"terminated": {"exitCode": code, "reason": reason, **times}}
        if state == "OOMKilled":  # the next try waits already
            shown, last = {"waiting": {"reason": "CrashLoopBackOff"}}, ended
            count += 1
    is_up = "running" in shown
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": f"list://{spec['image']}",
        "ready": is_up and state == "Running",
        "started": is_up,
        "restartCount": count,
        "state": shown,
        "lastState": last,
    }
