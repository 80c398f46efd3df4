"""Events: what happened to an object, for `kubectl describe` and `kubectl get events`."""

import secrets
import time
from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import (
    Object,
    is_terminating,
    name_of,
    namespace_of,
    now,
    seconds_since,
    uid_of,
)

KEPT_SECONDS = 3600  # Kubernetes keeps events for an hour
KEPT_PER_NAMESPACE = 200
SIMILAR_AT_MOST = 10  # as client-go: more of the same reason in ten minutes are combined
SIMILAR_SECONDS = 600.0
COMBINED = "(combined from similar events): "
NORMAL, WARNING = "Normal", "Warning"


class Recorder:
    """Writes events, counting repeats of the same one instead of adding more."""

    def __init__(self, cluster: Cluster, component: str) -> None:
        self._cluster = cluster
        self._component = component
        self._known: dict[tuple[str, ...], str] = {}
        self._similar: dict[tuple[str, ...], dict[str, float]] = {}

    def normal(self, one: Object, reason: str, message: str, part: str = "") -> None:
        self._record(one, NORMAL, reason, message, part)

    def warning(self, one: Object, reason: str, message: str, part: str = "") -> None:
        self._record(one, WARNING, reason, message, part)

    def _record(self, one: Object, kind: str, reason: str, message: str, part: str) -> None:
        namespace = namespace_of(one) or "default"
        inside = self._cluster.find(resources.NAMESPACES, "", namespace)
        if inside is None or is_terminating(inside):
            return
        message, shown = self._combined((uid_of(one), kind, reason), message)
        key = (uid_of(one), kind, reason, message, part)
        name = self._known.get(key, "")
        if (event := self._cluster.find(resources.EVENTS, namespace, name)) is not None:
            again = {**event, "count": event["count"] + 1, "lastTimestamp": now()}
            again["message"] = shown
            self._cluster.store.write(resources.EVENTS, again)
            return
        event = self._event(one, part) | {
            "type": kind,
            "reason": reason,
            "message": shown,
        }
        try:
            made = self._cluster.create(resources.EVENTS, namespace, event)
        except ApiError:
            return  # the namespace went away meanwhile: nobody is left to read it
        self._known[key] = name_of(made)

    def _combined(self, about: tuple[str, ...], message: str) -> tuple[str, str]:
        """Return by what an event is known and what it says; many that are alike become one."""
        moment = time.monotonic()
        known = self._similar.setdefault(about, {})
        for text, seen_at in list(known.items()):
            if moment - seen_at > SIMILAR_SECONDS:
                del known[text]
        if message in known or len(known) < SIMILAR_AT_MOST:
            known[message] = moment
            return message, message
        return COMBINED, f"{COMBINED}{message}"

    def _event(self, one: Object, part: str) -> dict[str, Any]:
        about = {
            "kind": one["kind"],
            "apiVersion": one["apiVersion"],
            "name": name_of(one),
            "namespace": namespace_of(one),
            "uid": uid_of(one),
            "resourceVersion": one["metadata"]["resourceVersion"],
        }
        if part:
            about["fieldPath"] = part
        stamp = now()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name_of(one)[:200]}.{secrets.token_hex(8)}"},
            "involvedObject": {key: value for key, value in about.items() if value},
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }

    def forget_old(self) -> None:
        """Remove events past their hour, and the oldest where a namespace has too many."""
        per_namespace: dict[str, list[Object]] = {}
        for event in self._cluster.store.objects(resources.EVENTS):
            per_namespace.setdefault(namespace_of(event), []).append(event)
        gone: set[str] = set()
        for namespace, events in per_namespace.items():
            events.sort(key=lambda one: one.get("lastTimestamp") or "", reverse=True)
            for place, event in enumerate(events):
                stamp = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
                if place >= KEPT_PER_NAMESPACE or seconds_since(stamp) > KEPT_SECONDS:
                    self._cluster.store.remove(resources.EVENTS, namespace, name_of(event))
                    gone.add(name_of(event))
        self._known = {key: name for key, name in self._known.items() if name not in gone}
        uids = {key[0] for key in self._known}
        self._similar = {about: one for about, one in self._similar.items() if about[0] in uids}
