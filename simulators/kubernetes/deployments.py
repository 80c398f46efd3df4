"""Deployments: one ReplicaSet per version of the template, changed over as the strategy says."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import orjson

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.objects import (
    Object,
    annotations_of,
    condition,
    copied,
    is_controlled_by,
    is_terminating,
    merged_conditions,
    name_of,
    namespace_of,
    now,
    owner_reference,
    seconds_since,
    status_of,
    with_metadata,
)
from simulators.kubernetes.recorder import Recorder
from simulators.kubernetes.replicasets import active_pods, is_available, pods_of

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
HASH = "pod-template-hash"
_NOT_COPIED = {REVISION, DESIRED, MOST, "kubectl.kubernetes.io/last-applied-configuration"}
_HASH_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True)
class _Bounds:
    """How many pods a rolling update may have too many, and how many too few."""

    surge: int
    unavailable: int


class Deployments:
    """Reconciles one Deployment."""

    def __init__(self, cluster: Cluster, recorder: Recorder) -> None:
        self._cluster = cluster
        self._recorder = recorder

    async def reconcile(self, namespace: str, name: str) -> float | None:
        one = self._cluster.find(resources.DEPLOYMENTS, namespace, name)
        if one is None or is_terminating(one):
            return None
        if not one["spec"].get("paused"):
            self._roll(one)
        return self._report(one)

    def _roll(self, one: Object) -> None:
        new, old = self._sets(one)
        if one["spec"]["strategy"]["type"] == "Recreate":
            for each in old:
                self._scale(one, each, 0)
            if any(pods_of(self._cluster, each) for each in old):
                return  # the next version starts when the last pod of this one is really gone
            self._scale(one, new or self._create_set(one, old, 0), one["spec"]["replicas"])
        else:
            new = new or self._create_set(one, old, 0)
            self._roll_gradually(one, new, old)
        self._tidy(one, old)

    def _sets(self, one: Object) -> tuple[Object | None, list[Object]]:
        """Return the ReplicaSet of the present template, and the others, oldest first."""
        owned = [
            each
            for each in self._cluster.store.objects(resources.REPLICA_SETS, namespace_of(one))
            if is_controlled_by(each, one)
        ]
        owned.sort(key=_revision)
        wanted = _template_without_hash(one)
        new = next((each for each in owned if _template_without_hash(each) == wanted), None)
        if new is not None:
            self._mark_newest(one, new, owned)
        return new, [each for each in owned if each is not new]

    def _mark_newest(self, one: Object, new: Object, owned: list[Object]) -> None:
        """Give the present version the highest revision (a roll back makes an old one new)."""
        highest = max(_revision(each) for each in owned)
        revision = highest if _revision(new) == highest else highest + 1
        if revision != _revision(new):
            self._annotate(resources.REPLICA_SETS, new, {REVISION: str(revision)})
        self._annotate(resources.DEPLOYMENTS, one, {REVISION: str(revision)})

    def _annotate(self, resource: resources.Resource, one: Object, notes: dict[str, str]) -> None:
        self._cluster.edit(
            resource,
            one,
            lambda each: with_metadata(each, annotations={**annotations_of(each), **notes}),
        )

    def _create_set(self, one: Object, old: list[Object], replicas: int) -> Object:
        revision = str(max((_revision(each) for each in old), default=0) + 1)
        template = copied(one["spec"]["template"])
        digest = self._hash(one)
        labels = {**template["metadata"].get("labels", {}), HASH: digest}
        template["metadata"]["labels"] = labels
        selector = copied(one["spec"]["selector"])
        selector.setdefault("matchLabels", {})[HASH] = digest
        notes = {key: text for key, text in annotations_of(one).items() if key not in _NOT_COPIED}
        body = {
            "metadata": {
                "name": f"{name_of(one)}-{digest}",
                "labels": labels,
                "annotations": {**notes, REVISION: revision},
                "ownerReferences": [owner_reference(resources.DEPLOYMENTS, one)],
            },
            "spec": {
                "replicas": replicas,
                "selector": selector,
                "template": template,
                "minReadySeconds": one["spec"].get("minReadySeconds", 0),
            },
        }
        made = self._cluster.create(resources.REPLICA_SETS, namespace_of(one), body)
        self._annotate(resources.DEPLOYMENTS, one, {REVISION: revision})
        return made

    def _hash(self, one: Object) -> str:
        """Name a template; when another Deployment's set has that name, take the next one."""
        for collision in range(100):
            text = orjson.dumps(
                [one["spec"]["template"], collision, name_of(one)], option=orjson.OPT_SORT_KEYS
            )
            number = int.from_bytes(hashlib.sha256(text).digest()[:6])
            digest = ""
            for _ in range(9):
                number, place = divmod(number, len(_HASH_LETTERS))
                digest += _HASH_LETTERS[place]
            name = f"{name_of(one)}-{digest}"
            if self._cluster.find(resources.REPLICA_SETS, namespace_of(one), name) is None:
                return digest
        raise RuntimeError("no free name for a ReplicaSet")

    def _scale(self, one: Object, replica_set: Object, replicas: int) -> None:
        before = replica_set["spec"]["replicas"]
        most = one["spec"]["replicas"] + _bounds(one).surge
        notes = {DESIRED: str(one["spec"]["replicas"]), MOST: str(most)}

        def change(each: Object) -> Object:
            noted = with_metadata(each, annotations={**annotations_of(each), **notes})
            return {**noted, "spec": {**each["spec"], "replicas": replicas}}

        self._cluster.edit(resources.REPLICA_SETS, replica_set, change)
        if before != replicas:
            direction = "up" if replicas > before else "down"
            message = (
                f"Scaled {direction} replica set {name_of(replica_set)} from {before} to {replicas}"
            )
            self._recorder.normal(one, "ScalingReplicaSet", message)

    def _roll_gradually(self, one: Object, new: Object, old: list[Object]) -> None:
        wanted, bounds = one["spec"]["replicas"], _bounds(one)
        delay = one["spec"].get("minReadySeconds", 0)
        total = new["spec"]["replicas"] + sum(each["spec"]["replicas"] for each in old)
        current = new["spec"]["replicas"]
        room = wanted + bounds.surge - total
        if current > wanted:
            current = wanted
        elif current < wanted and room > 0:
            current = min(wanted, current + room)
        self._scale(one, new, current)
        pods = {name_of(each): active_pods(self._cluster, each) for each in [new, *old]}
        available = sum(is_available(pod, delay) for many in pods.values() for pod in many)
        spare = available - (wanted - bounds.unavailable)
        for each in old:
            healthy = sum(is_available(pod, delay) for pod in pods[name_of(each)])
            count = each["spec"]["replicas"]
            broken = max(0, count - healthy)
            down = min(count, broken + max(0, min(spare, healthy)))
            spare -= max(0, down - broken)
            self._scale(one, each, count - down)

    def _tidy(self, one: Object, old: list[Object]) -> None:
        """Forget old versions beyond the limit."""
        done = [each for each in old if not status_of(each).get("replicas")]
        done = [each for each in done if not each["spec"]["replicas"]]
        limit = one["spec"]["revisionHistoryLimit"]
        for each in done[: max(0, len(done) - limit)]:
            self._cluster.delete(resources.REPLICA_SETS, namespace_of(each), name_of(each))

    def _report(self, one: Object) -> float | None:
        current = self._cluster.get(resources.DEPLOYMENTS, namespace_of(one), name_of(one))
        new, old = self._sets(current)
        delay = current["spec"].get("minReadySeconds", 0)
        everyone = [*old, *([new] if new else [])]
        pods = [pod for each in everyone for pod in active_pods(self._cluster, each)]
        updated = active_pods(self._cluster, new) if new else []
        counts = {
            "replicas": len(pods),
            "updatedReplicas": len(updated),
            "readyReplicas": sum(is_available(pod, 0) for pod in pods),
            "availableReplicas": sum(is_available(pod, delay) for pod in pods),
        }
        counts["unavailableReplicas"] = max(
            0, current["spec"]["replicas"] - counts["availableReplicas"]
        )
        status: dict[str, Any] = {
            "observedGeneration": current["metadata"]["generation"],
            **{key: count for key, count in counts.items() if count},
        }
        status["conditions"] = self._conditions(current, new, counts)
        self._cluster.write_status(resources.DEPLOYMENTS, current, status)
        is_complete = _is_complete(current, counts)
        return None if is_complete else float(current["spec"]["progressDeadlineSeconds"])

    def _conditions(
        self, one: Object, new: Object | None, counts: dict[str, int]
    ) -> list[dict[str, Any]]:
        least = one["spec"]["replicas"] - _bounds(one).unavailable
        enough = counts["availableReplicas"] >= least
        available = {
            "type": "Available",
            "status": "True" if enough else "False",
            "reason": f"MinimumReplicas{'Available' if enough else 'Unavailable'}",
            "message": f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        }
        made = [available, self._progress(one, new, counts)]
        failure = condition(new, "ReplicaFailure") if new else None
        if failure:
            made.append({key: failure[key] for key in ("type", "status", "reason", "message")})
        before = status_of(one).get("conditions") or []
        kept = [each for each in before if each["type"] != "ReplicaFailure" or failure]
        return [_with_update_time(each, before) for each in merged_conditions(kept, made)]

    def _progress(self, one: Object, new: Object | None, counts: dict[str, int]) -> dict[str, Any]:
        name = name_of(new) if new else name_of(one)
        before = condition(one, "Progressing") or {}
        moved = {key: status_of(one).get(key, 0) for key in counts} != counts
        is_late = (
            bool(before)
            and before.get("reason") != "NewReplicaSetAvailable"
            and not moved
            and seconds_since(before["lastUpdateTime"]) > one["spec"]["progressDeadlineSeconds"]
        )
        if _is_complete(one, counts):
            reason = "NewReplicaSetAvailable"
            message = f'ReplicaSet "{name}" has successfully progressed.'
        elif is_late or (before.get("reason") == "ProgressDeadlineExceeded" and not moved):
            return {
                "type": "Progressing",
                "status": "False",
                "reason": "ProgressDeadlineExceeded",
                "message": f'ReplicaSet "{name}" has timed out progressing.',
            }
        else:
            reason, message = "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'
        made = {"type": "Progressing", "status": "True", "reason": reason, "message": message}
        return made | ({"lastUpdateTime": now()} if moved else {})


def _with_update_time(one: dict[str, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
    if "lastUpdateTime" in one:
        return one
    same = next((each for each in before if each["type"] == one["type"]), None)
    fields = ("status", "reason", "message")
    if same is not None and all(same.get(key) == one.get(key) for key in fields):
        return {**one, "lastUpdateTime": same.get("lastUpdateTime") or now()}
    return {**one, "lastUpdateTime": now()}


def _is_complete(one: Object, counts: dict[str, int]) -> bool:
    wanted = one["spec"]["replicas"]
    return (
        counts["updatedReplicas"] == wanted
        and counts["replicas"] == wanted
        and counts["availableReplicas"] >= wanted
    )


def _bounds(one: Object) -> _Bounds:
    rolling = one["spec"]["strategy"].get("rollingUpdate")
    if rolling is None:
        return _Bounds(0, 0)
    wanted = one["spec"]["replicas"]
    surge = _share(rolling["maxSurge"], wanted, up=True)
    unavailable = _share(rolling["maxUnavailable"], wanted, up=False)
    return _Bounds(surge, unavailable if surge or unavailable else 1)


def _share(value: int | str, whole: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    part = int(value.rstrip("%")) * whole / 100
    return math.ceil(part) if up else math.floor(part)


def _revision(one: Object) -> int:
    return int(annotations_of(one).get(REVISION, "0"))


def _template_without_hash(one: Object) -> dict[str, Any]:
    template = one["spec"]["template"]
    labels = {key: value for key, value in _labels(template).items() if key != HASH}
    return {**template, "metadata": {**template["metadata"], "labels": labels}}


def _labels(template: dict[str, Any]) -> dict[str, str]:
    return template["metadata"].get("labels") or {}
