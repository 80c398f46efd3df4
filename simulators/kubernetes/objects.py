"""Small questions that everyone asks about an object, and the pieces objects are made of.

A stored object is never changed in place: a new version shares what stayed the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from simulators.kubernetes.resources import Resource

Object = dict[str, Any]


def now() -> str:
    """Return the time as Kubernetes writes it, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def copied(value: Any) -> Any:
    """Copy plain data, several times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, list):
        return [copied(one) for one in value]
    return value


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(stamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()


def name_of(one: Mapping[str, Any]) -> str:
    return one["metadata"]["name"]


def namespace_of(one: Mapping[str, Any]) -> str:
    return one["metadata"].get("namespace", "")


def uid_of(one: Mapping[str, Any]) -> str:
    return one["metadata"]["uid"]


def labels_of(one: Mapping[str, Any]) -> dict[str, str]:
    return one["metadata"].get("labels") or {}


def annotations_of(one: Mapping[str, Any]) -> dict[str, str]:
    return one["metadata"].get("annotations") or {}


def status_of(one: Mapping[str, Any]) -> dict[str, Any]:
    return one.get("status") or {}


def is_terminating(one: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in one["metadata"]


def owners_of(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    return one["metadata"].get("ownerReferences") or []


def controller_of(one: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((owner for owner in owners_of(one) if owner.get("controller")), None)


def is_controlled_by(one: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    found = controller_of(one)
    return found is not None and found["uid"] == uid_of(owner)


def owner_reference(resource: Resource, owner: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def with_metadata(one: Object, **changes: Any) -> Object:
    """Return a copy with these metadata fields set, or dropped where the value is None."""
    metadata = {**one["metadata"], **changes}
    return {**one, "metadata": {key: one for key, one in metadata.items() if one is not None}}


def without_finalizer(one: Object, finalizer: str) -> Object:
    left = [each for each in one["metadata"].get("finalizers", []) if each != finalizer]
    return with_metadata(one, finalizers=left or None)


def condition(one: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    conditions: Iterable[dict[str, Any]] = status_of(one).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), None)


def is_true(one: Mapping[str, Any], kind: str) -> bool:
    found = condition(one, kind)
    return found is not None and found["status"] == "True"


def merged_conditions(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the new conditions, each with the moment its status last turned.

    Conditions of other types (a client may add its own) are kept.
    """
    before = {each["type"]: each for each in old}
    result: list[dict[str, Any]] = []
    for each in new:
        known = before.pop(each["type"], None)
        same = known is not None and known["status"] == each["status"]
        since = known.get("lastTransitionTime") if known and same else None
        result.append({**each, "lastTransitionTime": since or now()})
    return [*(dict(each) for each in before.values()), *result]


def is_ready(pod: Mapping[str, Any]) -> bool:
    return is_true(pod, "Ready") and not is_terminating(pod)


def is_finished(pod: Mapping[str, Any]) -> bool:
    return status_of(pod).get("phase") in {"Succeeded", "Failed"}
