"""The scale subresource: the number of replicas as an object of its own."""

from typing import Any

from simulators.kubernetes import errors, selectors
from simulators.kubernetes.objects import Object, name_of, status_of
from simulators.kubernetes.resources import Resource

_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(one: Object) -> dict[str, Any]:
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: one["metadata"][key] for key in _METADATA},
        "spec": {"replicas": one["spec"]["replicas"]},
        "status": {
            "replicas": status_of(one).get("replicas", 0),
            "selector": selectors.as_text(one["spec"].get("selector")),
        },
    }


def scaled(resource: Resource, one: Object, wanted: Any) -> Object:
    """Return the object with the replicas that a Scale asks for.

    Raises:
        ApiError: 400 or 422.
    """
    if not isinstance(wanted, dict):
        raise errors.bad_request("the body is not a Scale")
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int):
        raise errors.bad_request("json: cannot unmarshal into ScaleSpec.replicas of type int32")
    if replicas < 0:
        cause = errors.wrong("spec.replicas", replicas, "must be greater than or equal to 0")
        raise errors.invalid(resource, name_of(one), [cause])
    metadata = dict(one["metadata"])
    metadata.pop("resourceVersion")
    if revision := (wanted.get("metadata") or {}).get("resourceVersion"):
        metadata["resourceVersion"] = revision
    return {**one, "metadata": metadata, "spec": {**one["spec"], "replicas": replicas}}
