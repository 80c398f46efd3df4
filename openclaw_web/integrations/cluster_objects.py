"""What we know of a cluster's objects, and how that is read from its documents."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

Document = dict[str, Any]
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
DEFAULT_SNAPSHOTS = "snapshot.storage.kubernetes.io/is-default-class"
SHARED_ADDRESS = "127.0.0.1"  # of all pods of an embedded cluster outside Linux, and of no other
REAL_PORTS = "simulator/ports"  # there its kubelet notes on each pod where its ports really are


class NamespaceState(StrEnum):
    ABSENT = "absent"
    ACTIVE = "active"
    TERMINATING = "terminating"


@dataclass(frozen=True, kw_only=True)
class NamespaceView:
    name: str
    uid: str
    state: NamespaceState
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    ending_since: datetime | None = None  # real time, by the cluster's clock
    remains: tuple[str, ...] = ()  # what keeps it from ending, in the cluster's words
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ObjectView:
    """What is noted on an object, and which version of it that is."""

    annotations: dict[str, str]
    resource_version: str


@dataclass(frozen=True, kw_only=True)
class ClaimView:
    """A volume as it was asked for and as it is, in Kubernetes quantities."""

    requested: str
    capacity: str
    storage_class: str = ""
    driver: str = ""  # whoever made the volume


@dataclass(frozen=True, kw_only=True)
class SnapshotClassView:
    """A way to make snapshots of volumes; `outlives` says that nobody deletes what it made."""

    name: str
    driver: str
    is_default: bool
    outlives: bool


@dataclass(frozen=True, kw_only=True)
class SnapshotView:
    """A volume at one moment; `size` is the least that a new volume from it must have."""

    is_ready: bool
    error: str
    size: str
    made_at: datetime | None = None  # real time, by the storage's clock


@dataclass(frozen=True, kw_only=True)
class DeploymentView:
    replicas: int
    annotations: dict[str, str]
    resource_version: str


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A Job of the cluster; `reason` says why it failed."""

    name: str
    is_complete: bool
    is_failed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class PodView:
    """What we want to know of a pod; `reason` is Kubernetes' word for what is wrong, or empty."""

    name: str
    namespace: str
    phase: str
    is_ready: bool
    is_terminating: bool
    restarts: int
    reason: str
    message: str
    address: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    def real_port(self, port: int) -> int | None:
        """Return where a port of the pod is met at its address; None when nobody says.

        What is noted counts at the shared address only, which no pod of a real cluster has, and
        without it nobody is asked there: that port may be any other program's.
        """
        if self.address != SHARED_ADDRESS:
            return port
        try:
            return int(json.loads(self.annotations[REAL_PORTS])[str(port)])
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, kw_only=True)
class EventView:
    """What the cluster says that it did, or could not do; `at` is its own time, or empty."""

    at: str
    is_warning: bool
    reason: str
    message: str
    subject: str
    count: int


@dataclass(frozen=True, kw_only=True)
class NamespaceChanged:
    view: NamespaceView


@dataclass(frozen=True, kw_only=True)
class PodChanged:
    view: PodView
    is_gone: bool = False


@dataclass(frozen=True, kw_only=True)
class NamespacesListed:
    """All of our namespaces: what is not in the list does not exist."""

    views: tuple[NamespaceView, ...]


@dataclass(frozen=True, kw_only=True)
class PodsListed:
    views: tuple[PodView, ...]


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The watch of this kind is alive, and nothing happened."""

    kind: str


@dataclass(frozen=True, kw_only=True)
class Broken:
    """The watch of a kind broke, and is tried again all the time."""

    why: str


ClusterEvent = NamespaceChanged | PodChanged | NamespacesListed | PodsListed | Heard | Broken


def listed(kind: str, views: list[Any]) -> ClusterEvent:
    if kind == "Namespace":
        return NamespacesListed(views=tuple(views))
    return PodsListed(views=tuple(views))


def event_of(kind: str, change: str, document: Document) -> ClusterEvent:
    if change == "BOOKMARK":
        return Heard(kind=kind)
    if kind == "Pod":
        return PodChanged(view=pod_view(document), is_gone=change == "DELETED")
    view = namespace_view(document)
    if change == "DELETED":
        view = replace(view, state=NamespaceState.ABSENT)
    return NamespaceChanged(view=view)


def namespace_view(document: Document) -> NamespaceView:
    meta, status = document["metadata"], document.get("status") or {}
    is_ending = bool(meta.get("deletionTimestamp")) or status.get("phase") == "Terminating"
    finalizers = (document.get("spec") or {}).get("finalizers") or ()
    return NamespaceView(
        name=meta["name"],
        uid=meta["uid"],
        state=NamespaceState.TERMINATING if is_ending else NamespaceState.ACTIVE,
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
        ending_since=_time(meta.get("deletionTimestamp")),
        remains=tuple(
            one.get("message") or one["type"]
            for one in status.get("conditions") or ()
            if one.get("status") == "True"
        ),
        finalizers=(*(meta.get("finalizers") or ()), *finalizers),
    )


def claim_view(document: Document) -> ClaimView:
    spec, notes = document["spec"], document["metadata"].get("annotations") or {}
    requested = spec["resources"]["requests"]["storage"]
    capacity = (document.get("status") or {}).get("capacity") or {}
    return ClaimView(
        requested=requested,
        capacity=capacity.get("storage", requested),
        storage_class=spec.get("storageClassName") or "",
        driver=notes.get(PROVISIONER, ""),
    )


def snapshot_class_view(document: Document) -> SnapshotClassView:
    notes = document["metadata"].get("annotations") or {}
    return SnapshotClassView(
        name=document["metadata"]["name"],
        driver=document["driver"],
        is_default=notes.get(DEFAULT_SNAPSHOTS) == "true",
        outlives=document["deletionPolicy"] != "Delete",
    )


def snapshot_view(document: Document) -> SnapshotView:
    status = document.get("status") or {}
    return SnapshotView(
        is_ready=bool(status.get("readyToUse")),
        error=(status.get("error") or {}).get("message") or "",
        size=str(status.get("restoreSize") or "0"),
        made_at=_time(status.get("creationTime")),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def job_view(document: Document) -> JobView:
    conditions = {
        one["type"]: one
        for one in (document.get("status") or {}).get("conditions") or ()
        if one["status"] == "True"
    }
    failed = conditions.get("Failed", {})
    return JobView(
        name=document["metadata"]["name"],
        is_complete="Complete" in conditions,
        is_failed=bool(failed),
        reason=failed.get("reason", ""),
    )


def pod_view(document: Document) -> PodView:
    meta, status = document["metadata"], document.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    # These start first: what keeps one of them from its end keeps all others waiting.
    first = status.get("initContainerStatuses") or ()
    reason, message = _trouble(status, conditions, [*first, *containers])
    return PodView(
        name=meta["name"],
        namespace=meta["namespace"],
        phase=status.get("phase", "Pending"),
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_terminating=bool(meta.get("deletionTimestamp")),
        restarts=sum(one.get("restartCount", 0) for one in (*first, *containers)),
        reason=reason,
        message=message,
        address=status.get("podIP", ""),
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
    )


def cluster_event_view(document: Document) -> EventView:
    """Read an Event; those of the newer API keep their times and counts elsewhere."""
    about, series = document.get("involvedObject") or {}, document.get("series") or {}
    moments = (
        document.get("lastTimestamp"),
        series.get("lastObservedTime"),
        document.get("eventTime"),
        document["metadata"].get("creationTimestamp"),
    )
    return EventView(
        at=next((one for one in moments if one), ""),
        is_warning=document.get("type") == "Warning",
        reason=document.get("reason") or "",
        message=document.get("message") or "",
        subject=about.get("kind") or "",
        count=document.get("count") or series.get("count") or 1,
    )


def _trouble(
    status: Document, conditions: Document, containers: Iterable[Document]
) -> tuple[str, str]:
    """Return the most telling reason and message of a pod that does not run well."""
    scheduled = conditions.get("PodScheduled", {})
    found = [(status.get("reason", ""), status.get("message", ""))]
    for one in containers:
        last = one.get("lastState", {}).get("terminated") or {}
        waiting = one.get("state", {}).get("waiting") or {}
        ended = one.get("state", {}).get("terminated") or {}
        if last.get("reason") == "OOMKilled" and not one.get("ready"):
            found.append(("OOMKilled", last.get("message", "")))
        found.extend((each.get("reason", ""), each.get("message", "")) for each in (waiting, ended))
    if scheduled.get("status") == "False":
        found.append((scheduled.get("reason", ""), scheduled.get("message", "")))
    quiet = {"", "ContainerCreating", "PodInitializing", "Completed"}
    return next(((reason, text) for reason, text in found if reason not in quiet), ("", ""))
