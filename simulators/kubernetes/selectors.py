"""Label and field selectors: which objects a list, a watch or a controller means."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from simulators.kubernetes.errors import bad_request
from simulators.kubernetes.objects import Object, labels_of, name_of
from simulators.kubernetes.resources import EVENTS, NODES, PODS, SECRETS, Resource

Test = Callable[[Object], bool]
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)")
_EQUAL = re.compile(r"([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)")
_KEY = re.compile(r"(!?)\s*([^\s=!(),]+)")
_BETWEEN_TERMS = re.compile(r",(?![^(]*\))")
_FIELD = re.compile(r"([^=!]+)(==|=|!=)(.*)")
_ALWAYS = ("metadata.name", "metadata.namespace")
_EVENT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS = {
    PODS: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    EVENTS: (
        *(f"involvedObject.{one}" for one in _EVENT_FIELDS),
        "reason",
        "type",
        "source",
        "reportingComponent",
    ),
    SECRETS: ("type",),
    NODES: ("spec.unschedulable",),
}


def by_labels(selector: str | None) -> Test:
    """Read a selector as a query parameter writes it: `app=box,tier in (a, b),!old`."""
    terms = [_label_term(part.strip()) for part in _BETWEEN_TERMS.split(selector or "") if part]
    return lambda one: all(term(labels_of(one)) for term in terms)


def _label_term(text: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.fullmatch(text):
        key, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda labels: (labels.get(key) in values) == (operator == "in")
    if match := _EQUAL.fullmatch(text):
        key, operator, value = match.groups()
        return lambda labels: (labels.get(key) == value) != (operator == "!=")
    if match := _KEY.fullmatch(text):
        negated, key = match.groups()
        return lambda labels: (key in labels) != bool(negated)
    raise bad_request(f'unable to parse requirement: found "{text}"')


def by_fields(resource: Resource, selector: str | None) -> Test:
    """Read a field selector.

    Raises:
        ApiError: 400, this kind cannot be selected by that field.
    """
    terms = [_field_term(resource, part) for part in (selector or "").split(",") if part]
    return lambda one: all(term(one) for term in terms)


def _field_term(resource: Resource, text: str) -> Test:
    match = _FIELD.fullmatch(text.strip())
    if match is None:
        raise bad_request(f'invalid selector: "{text}"; can\'t understand "{text}"')
    path, operator, value = (part.strip() for part in match.groups())
    if path not in (*_ALWAYS, *_FIELDS.get(resource, ())) and (
        resource.kind != "Namespace" or path != "status.phase"
    ):
        raise bad_request(f"field label not supported: {path}")
    return lambda one: (_field(one, path) == value) != (operator == "!=")


def _field(one: Object, path: str) -> str:
    found: Any = one
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, bool):
        return str(found).lower()
    return "" if found is None else str(found)


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Say whether a LabelSelector object (matchLabels, matchExpressions) takes these labels."""
    wanted = selector or {}
    exact = all(
        labels.get(key) == value for key, value in (wanted.get("matchLabels") or {}).items()
    )
    return exact and all(_expression(one, labels) for one in wanted.get("matchExpressions") or [])


def _expression(one: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = one["key"], one.get("values") or []
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }.get(one["operator"], False)


def as_text(selector: Mapping[str, Any] | None) -> str:
    """Write a LabelSelector the way the scale subresource and kubectl's columns show it."""
    wanted = selector or {}
    parts = [f"{key}={value}" for key, value in sorted((wanted.get("matchLabels") or {}).items())]
    for one in wanted.get("matchExpressions") or []:
        listed = ",".join(one.get("values") or [])
        parts.append(
            {
                "In": f"{one['key']} in ({listed})",
                "NotIn": f"{one['key']} notin ({listed})",
                "Exists": one["key"],
            }.get(one["operator"], f"!{one['key']}")
        )
    return ",".join(parts)


def in_order(objects: list[Object]) -> list[Object]:
    """Sort as Kubernetes lists: by namespace, then name."""
    return sorted(objects, key=lambda one: (one["metadata"].get("namespace", ""), name_of(one)))
