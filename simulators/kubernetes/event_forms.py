"""Events have two forms, `v1` and `events.k8s.io/v1`; they are kept in the first."""

from typing import Any

from simulators.kubernetes.objects import Object

_SAME = ("metadata", "type", "reason", "action", "reportingInstance", "related", "eventTime")
# The names in `v1`, and in `events.k8s.io/v1`.
_RENAMED = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
)


def newer(one: Object) -> Object:
    made = _copied(one, _RENAMED)
    made |= {"apiVersion": "events.k8s.io/v1", "kind": "Event"}
    series = one.get("series")
    if series is None and one.get("count", 1) > 1:
        last = one.get("lastTimestamp") or one["metadata"]["creationTimestamp"]
        series = {"count": one["count"], "lastObservedTime": f"{last[:-1]}.000000Z"}
    return made | ({"series": series} if series else {})


def older(one: Object) -> Object:
    made = _copied(one, [(after, before) for before, after in _RENAMED])
    made |= {"apiVersion": "v1", "kind": "Event"}
    return made | ({"series": one["series"]} if "series" in one else {})


def _copied(one: Object, names: Any) -> dict[str, Any]:
    made = {key: one[key] for key in _SAME if key in one}
    return made | {after: one[before] for before, after in names if before in one}
