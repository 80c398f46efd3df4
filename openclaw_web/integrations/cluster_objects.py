"""What we know of a cluster's objects, and how that is read from its documents."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

Document = dict[str, Any]


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


@dataclass(frozen=True, kw_only=True)
class DeploymentView:
    replicas: int
    annotations: dict[str, str]
    resource_version: str


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


ClusterEvent = NamespaceChanged | PodChanged | NamespacesListed | PodsListed


def listed(kind: str, items: list[Document]) -> ClusterEvent:
    if kind == "Namespace":
        return NamespacesListed(views=tuple(namespace_view(one) for one in items))
    return PodsListed(views=tuple(pod_view(one) for one in items))


def event_of(kind: str, change: str, document: Document) -> ClusterEvent | None:
    if change == "BOOKMARK":
        return None
    if kind == "Pod":
        return PodChanged(view=pod_view(document), is_gone=change == "DELETED")
    view = namespace_view(document)
    if change == "DELETED":
        view = replace(view, state=NamespaceState.ABSENT)
    return NamespaceChanged(view=view)


def namespace_view(document: Document) -> NamespaceView:
    meta = document["metadata"]
    is_ending = (
        bool(meta.get("deletionTimestamp"))
        or document.get("status", {}).get("phase") == "Terminating"
    )
    return NamespaceView(
        name=meta["name"],
        uid=meta["uid"],
        state=NamespaceState.TERMINATING if is_ending else NamespaceState.ACTIVE,
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
    )


def pod_view(document: Document) -> PodView:
    meta, status = document["metadata"], document.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    reason, message = _trouble(status, conditions, containers)
    return PodView(
        name=meta["name"],
        namespace=meta["namespace"],
        phase=status.get("phase", "Pending"),
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_terminating=bool(meta.get("deletionTimestamp")),
        restarts=sum(one.get("restartCount", 0) for one in containers),
        reason=reason,
        message=message,
        address=status.get("podIP", ""),
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
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
