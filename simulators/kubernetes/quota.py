"""Resource quotas and limit ranges: what a namespace may hold, what its containers get."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from simulators.kubernetes import quantities, resources, scopes
from simulators.kubernetes.errors import forbidden
from simulators.kubernetes.objects import Object, is_finished, name_of, namespace_of
from simulators.kubernetes.store import Store

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_COUNTED = {
    resources.SECRETS: "secrets",
    resources.CONFIG_MAPS: "configmaps",
    resources.SERVICES: "services",
    resources.CLAIMS: "persistentvolumeclaims",
    resources.QUOTAS: "resourcequotas",
    resources.PODS: "pods",
}
MEASURED = tuple(one for one in resources.ALL if one.namespaced and one is not resources.EVENTS)


def usage(resource: resources.Resource, one: Object) -> dict[str, Decimal]:
    """Return what this object counts for, by the names that quotas use."""
    if resource is resources.PODS and is_finished(one):
        return {}
    used = {f"count/{resource.qualified}": Decimal(1)}
    if resource in _COUNTED:
        used[_COUNTED[resource]] = Decimal(1)
    if resource is resources.CLAIMS:
        used |= _storage(one["spec"])
    if resource is resources.SERVICES:
        used |= _outward(one["spec"])
    if resource is resources.PODS:
        used |= _compute(one["spec"])
    return used


def _storage(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what a claim counts for, in all and in its storage class."""
    size = quantities.parse(spec["resources"]["requests"]["storage"])
    used = {"requests.storage": size}
    if name := spec.get("storageClassName"):
        prefix = f"{name}.storageclass.storage.k8s.io"
        used |= {f"{prefix}/requests.storage": size, f"{prefix}/persistentvolumeclaims": Decimal(1)}
    return used


def _outward(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    ports = Decimal(len(spec.get("ports") or ()))
    kind = spec.get("type")
    if kind == "NodePort":
        return {"services.nodeports": ports}
    if kind != "LoadBalancer":
        return {}
    has_ports = spec.get("allocateLoadBalancerNodePorts", True)
    return {"services.loadbalancers": Decimal(1), "services.nodeports": ports * has_ports}


def _compute(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    used: dict[str, Decimal] = {}
    for field in ("requests", "limits"):
        running = quantities.total(_wanted(spec.get("containers") or (), field))
        for one in _wanted(spec.get("initContainers") or (), field):
            for name, value in one.items():
                running[name] = max(running.get(name, Decimal(0)), quantities.parse(value))
        used |= {f"{field}.{name}": amount for name, amount in running.items()}
    used |= {name: used[f"requests.{name}"] for name in _COMPUTE if f"requests.{name}" in used}
    return used


def requests_of(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what a pod asks a node for, by plain names such as `cpu`."""
    used = _compute(spec)
    return {name: used[name] for name in _COMPUTE if name in used}


def _wanted(containers: Iterable[Mapping[str, Any]], field: str) -> list[Mapping[str, Any]]:
    return [(one.get("resources") or {}).get(field) or {} for one in containers]


def used_in(store: Store, namespace: str, quota: Object | None = None) -> dict[str, Decimal]:
    """Add up a namespace; with a quota, only what its scopes take in."""
    used: dict[str, Decimal] = {}
    for resource in MEASURED:
        for one in store.objects(resource, namespace):
            if quota is None or scopes.takes(quota, resource, one):
                for name, amount in usage(resource, one).items():
                    used[name] = used.get(name, Decimal(0)) + amount
    return used


def enforce(
    store: Store, resource: resources.Resource, one: Object, *, before: Object | None = None
) -> None:
    """Refuse what would exceed a quota of the object's namespace; a change counts by its growth.

    Raises:
        ApiError: 403, exceeded, or a limited resource is not stated.
    """
    if not resource.namespaced or resource is resources.EVENTS:
        return
    quotas = store.objects(resources.QUOTAS, namespace_of(one))
    if not quotas:
        return
    asked = _growth(resource, one, before)
    for each in sorted(quotas, key=name_of):
        if not asked or not scopes.takes(each, resource, one):
            continue
        # A change of the spec is in force once the controller has written it down, as ever.
        said = (each.get("status") or {}).get("hard") or each["spec"].get("hard") or {}
        hard = {name: quantities.parse(most) for name, most in said.items()}
        if resource is resources.PODS:
            _refuse_unstated(one, each, hard)
        used = used_in(store, namespace_of(one), each)
        _refuse_excess(resource, one, each, (asked, used, hard))


def _growth(resource: resources.Resource, one: Object, before: Object | None) -> dict[str, Decimal]:
    asked = usage(resource, one)
    if before is None:
        return asked
    was = usage(resource, before)
    grown = {name: amount - was.get(name, Decimal(0)) for name, amount in asked.items()}
    return {name: amount for name, amount in grown.items() if amount > 0}


def _refuse_unstated(pod: Object, quota: Object, hard: Mapping[str, Decimal]) -> None:
    unstated = []
    for name in sorted(hard):
        field, _, what = name.rpartition(".")
        field = field or "requests"
        if what not in _COMPUTE or field not in {"requests", "limits"}:
            continue
        lacking = [
            container["name"]
            for container in pod["spec"]["containers"]
            if what not in ((container.get("resources") or {}).get(field) or {})
        ]
        if lacking:
            unstated.append(f"{name} for: {','.join(lacking)}")
    if unstated:
        why = f"failed quota: {name_of(quota)}: must specify {'; '.join(unstated)}"
        raise forbidden(resources.PODS, name_of(pod), why)


def _refuse_excess(
    resource: resources.Resource,
    one: Object,
    quota: Object,
    amounts: tuple[Mapping[str, Decimal], Mapping[str, Decimal], Mapping[str, Decimal]],
) -> None:
    asked, used, hard = amounts
    nothing = Decimal(0)
    over = [
        name
        for name in sorted(hard)
        if name in asked and asked[name] and used.get(name, nothing) + asked[name] > hard[name]
    ]
    if over:
        shown = [
            ",".join(f"{name}={quantities.write(values.get(name, nothing), name)}" for name in over)
            for values in (asked, used, hard)
        ]
        why = (
            f"exceeded quota: {name_of(quota)}, requested: {shown[0]}, used: {shown[1]},"
            f" limited: {shown[2]}"
        )
        raise forbidden(resource, name_of(one), why)


def apply_limit_ranges(store: Store, namespace: str, spec: dict[str, Any]) -> None:
    """Give containers their namespace's default limits and requests, in place."""
    for limit in _limits(store, namespace, "Container"):
        for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
            wanted = container.setdefault("resources", {})
            for name, value in (limit.get("default") or {}).items():
                wanted.setdefault("limits", {}).setdefault(name, value)
            for name, value in (limit.get("defaultRequest") or {}).items():
                wanted.setdefault("requests", {}).setdefault(name, value)


def check_limit_ranges(store: Store, pod: Object) -> None:
    """Refuse a pod with a container outside its namespace's limits.

    Raises:
        ApiError: 403 with every bound that does not hold.
    """
    problems = []
    for limit in _limits(store, namespace_of(pod), "Container"):
        for container in pod["spec"]["containers"]:
            problems.extend(_outside(limit, container.get("resources") or {}, "Container"))
    for limit in _limits(store, namespace_of(pod), "Pod"):
        used = _compute(pod["spec"])
        wanted = {
            field: {
                name.partition(".")[2]: str(amount)
                for name, amount in used.items()
                if name.startswith(f"{field}.")
            }
            for field in ("requests", "limits")
        }
        problems.extend(_outside(limit, wanted, "Pod"))
    if problems:
        listed = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise forbidden(resources.PODS, name_of(pod), listed)


def check_claim(store: Store, claim: Object) -> None:
    """Refuse a claim that is larger or smaller than its namespace's limits.

    Raises:
        ApiError: 403.
    """
    wanted = (claim["spec"].get("resources") or {}).get("requests") or {}
    problems: list[str] = []
    for limit in _limits(store, namespace_of(claim), "PersistentVolumeClaim"):
        stated = {"limits": wanted, "requests": wanted}
        problems.extend(_outside(limit, stated, "PersistentVolumeClaim"))
    if problems:
        shown = ", ".join(problems).replace("but limit is", "but request is")
        raise forbidden(resources.CLAIMS, name_of(claim), shown)


def _outside(limit: Mapping[str, Any], wanted: Mapping[str, Any], kind: str) -> list[str]:
    problems = []
    for bound, field, word in (("max", "limit", "maximum"), ("min", "request", "minimum")):
        for name, value in (limit.get(bound) or {}).items():
            edge = quantities.parse(value)
            stated = (wanted.get(f"{field}s") or {}).get(name)
            begin = f"{word} {name} usage per {kind} is {value}"
            if stated is None:
                problems.append(f"{begin}.  No {field} is specified")
                continue
            amount = quantities.parse(stated)
            if (amount > edge) if bound == "max" else (amount < edge):
                shown = quantities.write(amount, name)
                problems.append(f"{begin}, but {field} is {shown}")
    return [*problems, *_unbalanced(limit, wanted, kind)]


def _unbalanced(limit: Mapping[str, Any], wanted: Mapping[str, Any], kind: str) -> list[str]:
    problems = []
    for name, value in (limit.get("maxLimitRequestRatio") or {}).items():
        pair = [
            quantities.parse((wanted.get(one) or {}).get(name, 0)) for one in ("limits", "requests")
        ]
        begin = f"{name} max limit to request ratio per {kind} is {value}"
        if not all(pair):
            problems.append(f"{begin}, but no request is specified or request is 0")
        elif pair[0] / pair[1] > quantities.parse(value):
            problems.append(f"{begin}, but provided ratio is {float(pair[0] / pair[1]):f}")
    return problems


def _limits(store: Store, namespace: str, kind: str) -> list[dict[str, Any]]:
    return [
        limit
        for one in store.objects(resources.LIMIT_RANGES, namespace)
        for limit in one["spec"].get("limits") or ()
        if limit.get("type") == kind
    ]
