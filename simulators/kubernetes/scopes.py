"""A quota's scopes: which of the namespace's pods it counts."""

from collections.abc import Mapping
from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.objects import Object, status_of


def takes(quota: Object, resource: resources.Resource, one: Object) -> bool:
    """Say whether an object falls under a quota; one with scopes counts pods only."""
    named = [
        {"scopeName": name, "operator": "Exists"} for name in quota["spec"].get("scopes") or ()
    ]
    more = (quota["spec"].get("scopeSelector") or {}).get("matchExpressions") or ()
    wanted = [*named, *more]
    if not wanted:
        return True
    return resource is resources.PODS and all(_matches(each, one) for each in wanted)


def _matches(wanted: Mapping[str, Any], pod: Object) -> bool:
    spec = pod["spec"]
    is_terminating = spec.get("activeDeadlineSeconds") is not None
    is_best_effort = status_of(pod).get("qosClass") == "BestEffort"
    known = {
        "Terminating": is_terminating,
        "NotTerminating": not is_terminating,
        "BestEffort": is_best_effort,
        "NotBestEffort": not is_best_effort,
    }
    name = wanted["scopeName"]
    if name != "PriorityClass":
        return known.get(name, False)
    found, values = spec.get("priorityClassName"), wanted.get("values") or ()
    return {
        "In": found in values,
        "NotIn": found not in values,
        "Exists": found is not None,
        "DoesNotExist": found is None,
    }.get(wanted.get("operator", ""), False)
