"""The cluster's nodes: this machine, and one that only recorded pods belong to."""

import os
import platform
from typing import Any

from simulators.kubernetes import addresses, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.objects import now, status_of
from simulators.kubernetes.resources import SERVER_VERSION
from simulators.kubernetes.scheduler import LOCAL_NODE, RECORDS_NODE

HOST_IP = addresses.LOOPBACK
_PLENTY = {"cpu": "10k", "memory": "100Ti", "ephemeral-storage": "1Pi", "pods": "100k"}
_LABELS = {
    "kubernetes.io/os": platform.system().lower(),
    "kubernetes.io/arch": platform.machine(),
}
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def register(cluster: Cluster, knobs: Knobs, name: str = LOCAL_NODE) -> None:
    """Announce a node, or say anew how large it is."""
    node = cluster.find(resources.NODES, "", name)
    if node is None:
        labels = {"kubernetes.io/hostname": name, **_LABELS}
        if name == LOCAL_NODE:
            labels["node-role.kubernetes.io/control-plane"] = ""
        node = cluster.create(resources.NODES, "", {"metadata": {"name": name, "labels": labels}})
    size = {**(_PLENTY if name == RECORDS_NODE else _machine()), **knobs.now.capacity}
    if status_of(node).get("capacity") != size:
        cluster.write_status(resources.NODES, node, _status(name, size))


def _machine() -> dict[str, str]:
    """Return what this machine has; the number of pods is Kubernetes' usual one."""
    return {"cpu": str(os.cpu_count() or 1), "memory": _memory(), "pods": "110"}


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size // 1024}Ki"


def _status(name: str, size: dict[str, str]) -> dict[str, Any]:
    stamp = now()
    times = {"lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
    return {
        "capacity": size,
        "allocatable": size,
        "conditions": [
            {"type": kind, "status": status, "reason": reason, "message": message, **times}
            for kind, status, reason, message in _CONDITIONS
        ],
        "addresses": [
            {"type": "InternalIP", "address": HOST_IP},
            {"type": "Hostname", "address": name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "architecture": platform.machine(),
            "bootID": "",
            "containerRuntimeVersion": "process://1",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": f"{SERVER_VERSION}+simulator",
            "machineID": "",
            "operatingSystem": platform.system().lower(),
            "osImage": f"{platform.system()} {platform.release()}",
            "systemUUID": "",
        },
    }
