"""Tables: the columns that kubectl prints."""

from collections.abc import Callable, Sequence
from typing import Any

from simulators.kubernetes import resources, selectors
from simulators.kubernetes.objects import (
    Object,
    is_terminating,
    is_true,
    name_of,
    seconds_since,
    status_of,
)
from simulators.kubernetes.resources import Resource

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_ALWAYS_SHOWN, _WIDE = 0, 1


def table(
    resource: Resource, objects: Sequence[Object], metadata: dict[str, Any], include: str
) -> dict[str, Any]:
    """Return a Table; `include` says what of each object goes along: None, Metadata or Object."""
    titles, cells = _COLUMNS.get(resource, _PLAIN)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [_definition(title) for title in titles],
        "rows": [{"cells": cells(one), "object": _included(one, include)} for one in objects],
    }


def partial(one: Object) -> dict[str, Any]:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": one["metadata"],
    }


def _included(one: Object, include: str) -> dict[str, Any] | None:
    if include == "None":
        return None
    return one if include == "Object" else partial(one)


def _definition(title: str) -> dict[str, Any]:
    """Describe a column; a title in parentheses is shown with `-o wide` only."""
    name = title.strip("()") if title.startswith("(") else title
    return {
        "name": name,
        "type": "string",
        "format": "name" if name == "Name" else "",
        "description": name,
        "priority": _WIDE if title.startswith("(") else _ALWAYS_SHOWN,
    }


def age(stamp: str | None) -> str:
    """Say how long ago, in kubectl's short form."""
    if not stamp:
        return "<unknown>"
    return _short(seconds_since(stamp))


def _short(span: float) -> str:
    seconds = max(0, int(span))
    if seconds < 2 * _MINUTE:
        return f"{seconds}s"
    if seconds < 10 * _MINUTE:
        rest = seconds % _MINUTE
        return f"{seconds // _MINUTE}m{rest}s" if rest else f"{seconds // _MINUTE}m"
    if seconds < 3 * _HOUR:
        return f"{seconds // _MINUTE}m"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR}h"
    return f"{seconds // _DAY}d"


def _age(one: Object) -> str:
    return age(one["metadata"]["creationTimestamp"])


def pod_phase(pod: Object) -> str:
    """Return what kubectl shows as a pod's status: the reason that matters most."""
    status = status_of(pod)
    shown = status.get("reason") or status.get("phase", "Unknown")
    for one in reversed(status.get("containerStatuses") or []):
        state = one.get("state") or {}
        if reason := (state.get("waiting") or {}).get("reason"):
            shown = reason
        elif "terminated" in state:
            ended = state["terminated"]
            shown = ended.get("reason") or f"ExitCode:{ended['exitCode']}"
    shown = _init_phase(pod) or shown
    return "Terminating" if is_terminating(pod) else shown


def _init_phase(pod: Object) -> str:
    containers = pod["spec"].get("initContainers") or []
    for index, one in enumerate(status_of(pod).get("initContainerStatuses") or []):
        state = one.get("state") or {}
        ended = state.get("terminated")
        if ended and ended["exitCode"] == 0:
            continue
        reason = (ended or state.get("waiting") or {}).get("reason", "")
        if reason and reason != "PodInitializing":
            return f"Init:{reason}"
        return f"Init:{index}/{len(containers)}"
    return ""


def _restarts(pod: Object) -> str:
    statuses = status_of(pod).get("containerStatuses") or []
    count = sum(one.get("restartCount", 0) for one in statuses)
    ends = [
        one["lastState"]["terminated"]["finishedAt"]
        for one in statuses
        if (one.get("lastState") or {}).get("terminated")
    ]
    return f"{count} ({age(max(ends))} ago)" if count and ends else str(count)


def _pod(one: Object) -> list[Any]:
    status = status_of(one)
    ready = sum(bool(each.get("ready")) for each in status.get("containerStatuses") or [])
    return [
        name_of(one),
        f"{ready}/{len(one['spec']['containers'])}",
        pod_phase(one),
        _restarts(one),
        _age(one),
        status.get("podIP", "<none>"),
        one["spec"].get("nodeName", "<none>"),
        "<none>",
        "<none>",
    ]


def _templates(one: Object) -> list[str]:
    containers = one["spec"]["template"]["spec"]["containers"]
    return [
        ",".join(each["name"] for each in containers),
        ",".join(each["image"] for each in containers),
        selectors.as_text(one["spec"].get("selector")),
    ]


def _deployment(one: Object) -> list[Any]:
    status = status_of(one)
    return [
        name_of(one),
        f"{status.get('readyReplicas', 0)}/{one['spec']['replicas']}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(one),
        *_templates(one),
    ]


def _replica_set(one: Object) -> list[Any]:
    status = status_of(one)
    counts = [one["spec"]["replicas"], status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name_of(one), *counts, _age(one), *_templates(one)]


def _namespace(one: Object) -> list[Any]:
    return [name_of(one), status_of(one).get("phase", ""), _age(one)]


def _node(one: Object) -> list[Any]:
    info = status_of(one).get("nodeInfo") or {}
    ready = "Ready" if is_true(one, "Ready") else "NotReady"
    version = info.get("kubeletVersion", "")
    return [name_of(one), ready, "control-plane", _age(one), version, *_node_details(one, info)]


def _node_details(one: Object, info: dict[str, Any]) -> list[str]:
    addresses = status_of(one).get("addresses") or []
    inside = next((each["address"] for each in addresses if each["type"] == "InternalIP"), "<none>")
    keys = ("osImage", "kernelVersion", "containerRuntimeVersion")
    return [inside, *(info.get(key, "<unknown>") for key in keys)]


def _secret(one: Object) -> list[Any]:
    return [name_of(one), one.get("type", ""), len(one.get("data") or {}), _age(one)]


def _config_map(one: Object) -> list[Any]:
    count = len(one.get("data") or {}) + len(one.get("binaryData") or {})
    return [name_of(one), count, _age(one)]


def _service(one: Object) -> list[Any]:
    spec = one["spec"]
    ports = ",".join(
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}"
        f"/{port['protocol']}"
        for port in spec.get("ports") or []
    )
    external = spec.get("externalName") or "<none>"
    address = spec.get("clusterIP", "<none>")
    selector = selectors.as_text({"matchLabels": spec.get("selector") or {}}) or "<none>"
    return [name_of(one), spec["type"], address, external, ports or "<none>", _age(one), selector]


def _claim(one: Object) -> list[Any]:
    status, spec = status_of(one), one["spec"]
    phase = "Terminating" if is_terminating(one) else status.get("phase", "")
    capacity = (status.get("capacity") or {}).get("storage", "")
    modes = _modes(status.get("accessModes"))
    kind = spec.get("storageClassName", "")
    volume = spec.get("volumeName", "")
    mode = spec["volumeMode"]
    return [name_of(one), phase, volume, capacity, modes, kind, "<unset>", _age(one), mode]


def _modes(modes: Sequence[str] | None) -> str:
    return ",".join(_MODES.get(mode, mode) for mode in modes or ())


def _volume(one: Object) -> list[Any]:
    spec = one["spec"]
    claim = spec.get("claimRef") or {}
    return [
        name_of(one),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec["persistentVolumeReclaimPolicy"],
        "Terminating" if is_terminating(one) else status_of(one).get("phase", ""),
        f"{claim['namespace']}/{claim['name']}" if claim else "",
        spec.get("storageClassName", ""),
        "<unset>",
        status_of(one).get("reason", ""),
        _age(one),
        spec["volumeMode"],
    ]


def _snapshot_class(one: Object) -> list[Any]:
    return [name_of(one), one["driver"], one["deletionPolicy"], _age(one)]


def _snapshot(one: Object) -> list[Any]:
    status, spec = status_of(one), one["spec"]
    made = status.get("creationTime")
    return [
        name_of(one),
        str(status.get("readyToUse", False)).lower(),
        spec["source"].get("persistentVolumeClaimName", ""),
        spec["source"].get("volumeSnapshotContentName", ""),
        status.get("restoreSize", ""),
        spec.get("volumeSnapshotClassName", ""),
        status.get("boundVolumeSnapshotContentName", ""),
        age(made) if made else "",
        _age(one),
    ]


def _snapshot_content(one: Object) -> list[Any]:
    status, spec = status_of(one), one["spec"]
    return [
        name_of(one),
        str(status.get("readyToUse", False)).lower(),
        status.get("restoreSize", ""),
        spec["deletionPolicy"],
        spec["driver"],
        spec.get("volumeSnapshotClassName", ""),
        spec["volumeSnapshotRef"]["name"],
        spec["volumeSnapshotRef"]["namespace"],
        _age(one),
    ]


def _quota(one: Object) -> list[Any]:
    hard = one["spec"].get("hard") or {}
    used = status_of(one).get("used") or {}
    shown: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(hard):
        entry = f"{name}: {used.get(name, '0')}/{hard[name]}"
        shown[name.startswith("limits.")].append(entry)
    return [name_of(one), ", ".join(shown[False]), ", ".join(shown[True]), _age(one)]


def _network_policy(one: Object) -> list[Any]:
    selector = selectors.as_text(one["spec"].get("podSelector")) or "<none>"
    return [name_of(one), selector, _age(one)]


def _event(one: Object) -> list[Any]:
    about = one.get("involvedObject") or {}
    last = one.get("lastTimestamp") or one.get("eventTime") or one["metadata"]["creationTimestamp"]
    return [
        age(last),
        one.get("type", ""),
        one.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        about.get("fieldPath", ""),
        (one.get("source") or {}).get("component", ""),
        (one.get("message") or "").strip(),
        age(one.get("firstTimestamp") or last),
        one.get("count", 1),
        name_of(one),
    ]


def _account(one: Object) -> list[Any]:
    return [name_of(one), len(one.get("secrets") or []), _age(one)]


def _limit_range(one: Object) -> list[Any]:
    return [name_of(one), one["metadata"]["creationTimestamp"]]


def _job(one: Object) -> list[Any]:
    status, spec = status_of(one), one["spec"]
    word = "Running"
    for kind, shown in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if is_true(one, kind):
            word = shown
            break
    began, ended = status.get("startTime"), status.get("completionTime")
    took = age(began) if began else ""
    if began and ended:
        took = _short(seconds_since(began) - seconds_since(ended))
    wanted = spec.get("completions", f"1 of {spec['parallelism']}")
    done = f"{status.get('succeeded', 0)}/{wanted}"
    return [name_of(one), word, done, took, _age(one), *_templates(one)]


def _role(one: Object) -> list[Any]:
    return [name_of(one), one["metadata"]["creationTimestamp"]]


def _binding(one: Object) -> list[Any]:
    reference = one["roleRef"]
    named: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in one.get("subjects") or ():
        place = f"{subject['namespace']}/" if subject.get("namespace") else ""
        named.setdefault(subject["kind"], []).append(place + subject["name"])
    listed = [", ".join(names) for names in named.values()]
    return [name_of(one), f"{reference['kind']}/{reference['name']}", _age(one), *listed]


def _plain(one: Object) -> list[Any]:
    return [name_of(one), _age(one)]


_Columns = tuple[tuple[str, ...], Callable[[Object], list[Any]]]
_PLAIN: _Columns = (("Name", "Age"), _plain)
_TEMPLATE_TITLES = ("(Containers)", "(Images)", "(Selector)")
_SUBJECT_TITLES = ("(Users)", "(Groups)", "(ServiceAccounts)")
_CLAIM_TITLES = ("Status", "Volume", "Capacity", "Access Modes", "StorageClass")
_POD_WIDE = ("(IP)", "(Node)", "(Nominated Node)", "(Readiness Gates)")
_NODE_WIDE = ("(Internal-IP)", "(OS-Image)", "(Kernel-Version)", "(Container-Runtime)")
_COLUMNS: dict[Resource, _Columns] = {
    resources.PODS: (("Name", "Ready", "Status", "Restarts", "Age", *_POD_WIDE), _pod),
    resources.DEPLOYMENTS: (
        ("Name", "Ready", "Up-to-date", "Available", "Age", *_TEMPLATE_TITLES),
        _deployment,
    ),
    resources.REPLICA_SETS: (
        ("Name", "Desired", "Current", "Ready", "Age", *_TEMPLATE_TITLES),
        _replica_set,
    ),
    resources.NAMESPACES: (("Name", "Status", "Age"), _namespace),
    resources.NODES: (("Name", "Status", "Roles", "Age", "Version", *_NODE_WIDE), _node),
    resources.SECRETS: (("Name", "Type", "Data", "Age"), _secret),
    resources.CONFIG_MAPS: (("Name", "Data", "Age"), _config_map),
    resources.SERVICES: (
        ("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "(Selector)"),
        _service,
    ),
    resources.CLAIMS: (
        ("Name", *_CLAIM_TITLES, "VolumeAttributesClass", "Age", "(VolumeMode)"),
        _claim,
    ),
    resources.VOLUMES: (
        (
            *("Name", "Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim"),
            *("StorageClass", "VolumeAttributesClass", "Reason", "Age", "(VolumeMode)"),
        ),
        _volume,
    ),
    resources.SNAPSHOT_CLASSES: (("Name", "Driver", "DeletionPolicy", "Age"), _snapshot_class),
    resources.SNAPSHOTS: (
        (
            *("Name", "ReadyToUse", "SourcePVC", "SourceSnapshotContent", "RestoreSize"),
            *("SnapshotClass", "SnapshotContent", "CreationTime", "Age"),
        ),
        _snapshot,
    ),
    resources.SNAPSHOT_CONTENTS: (
        (
            *("Name", "ReadyToUse", "RestoreSize", "DeletionPolicy", "Driver"),
            *("VolumeSnapshotClass", "VolumeSnapshot", "VolumeSnapshotNamespace", "Age"),
        ),
        _snapshot_content,
    ),
    resources.QUOTAS: (("Name", "Request", "Limit", "Age"), _quota),
    resources.NETWORK_POLICIES: (("Name", "Pod-Selector", "Age"), _network_policy),
    resources.EVENTS: (
        (
            *("Last Seen", "Type", "Reason", "Object", "(Subobject)", "(Source)"),
            *("Message", "(First Seen)", "(Count)", "(Name)"),
        ),
        _event,
    ),
    resources.SERVICE_ACCOUNTS: (("Name", "Secrets", "Age"), _account),
    resources.LIMIT_RANGES: (("Name", "Created At"), _limit_range),
    resources.JOBS: (
        ("Name", "Status", "Completions", "Duration", "Age", *_TEMPLATE_TITLES),
        _job,
    ),
    resources.ROLES: (("Name", "Created At"), _role),
    resources.CLUSTER_ROLES: (("Name", "Created At"), _role),
    resources.ROLE_BINDINGS: (("Name", "Role", "Age", *_SUBJECT_TITLES), _binding),
    resources.CLUSTER_ROLE_BINDINGS: (("Name", "Role", "Age", *_SUBJECT_TITLES), _binding),
}
