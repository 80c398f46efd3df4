"""What must hold for an object to be accepted, beyond having the right types."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from simulators.kubernetes import quantities, resources, selectors
from simulators.kubernetes.defaults import templates_of
from simulators.kubernetes.errors import (
    Cause,
    duplicate,
    forbidden_field,
    invalid,
    required,
    unsupported,
    wrong,
)
from simulators.kubernetes.objects import Object, name_of
from simulators.kubernetes.pod_validation import check_pod_spec

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SECRET_BYTES = 1024 * 1024
HIGHEST_PORT = 65_535
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_QUALIFIED = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LABEL_HINT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
    " start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc')"
)
_SUBDOMAIN_HINT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'example.com')"
)
_STANDARD_FINALIZERS = {"orphan", "foregroundDeletion"}
_NAMED_BY_LABEL = (resources.NAMESPACES, resources.SERVICES)
_SUBJECTS = ("ServiceAccount", "User", "Group")
_ROLES = (
    resources.ROLES,
    resources.CLUSTER_ROLES,
    resources.ROLE_BINDINGS,
    resources.CLUSTER_ROLE_BINDINGS,
)
_PATH_SEGMENT = re.compile(r"(?!\.{1,2}$)[^/%]+")  # what a role may be called, colons included
_CIDR_HINT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_POLICIES = ("Delete", "Retain")
_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def check(resource: resources.Resource, one: Object, missing: Iterable[Cause] = ()) -> None:
    """Refuse an object that the real server would refuse.

    Raises:
        ApiError: 422 with every cause found.
    """
    causes = [*missing, *_metadata(resource, one)]
    if not causes:
        causes.extend(_KINDS.get(resource, _nothing)(one))
        for path, spec in templates_of(resource, one):
            causes.extend(check_pod_spec(spec, path))
    if causes:
        raise invalid(resource, one["metadata"].get("name", ""), causes)


def check_change(resource: resources.Resource, old: Object, new: Object) -> None:
    """Refuse a change of what may never change.

    Raises:
        ApiError: 422 with every cause found.
    """
    causes = list(_CHANGES.get(resource, _no_change)(old, new))
    if causes:
        raise invalid(resource, name_of(old), causes)


def _nothing(_: Object) -> Iterator[Cause]:
    yield from ()


def _no_change(_old: Object, _new: Object) -> Iterator[Cause]:
    yield from ()


def _metadata(resource: resources.Resource, one: Object) -> Iterator[Cause]:
    metadata = one["metadata"]
    name = metadata.get("name")
    is_label = resource in _NAMED_BY_LABEL
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif resource in _ROLES:
        if not _PATH_SEGMENT.fullmatch(name):
            yield wrong("metadata.name", name, "may not contain '/' or '%'")
    elif not (_LABEL if is_label else _SUBDOMAIN).fullmatch(name):
        yield wrong("metadata.name", name, _LABEL_HINT if is_label else _SUBDOMAIN_HINT)
    yield from _notes(metadata)
    for key in metadata.get("finalizers") or ():
        if "/" not in key and key not in _STANDARD_FINALIZERS:
            hint = "name is neither a standard finalizer name nor is it fully qualified"
            yield wrong("metadata.finalizers", key, hint)


def _notes(metadata: Mapping[str, Any]) -> Iterator[Cause]:
    for key, value in (metadata.get("labels") or {}).items():
        if not _QUALIFIED.fullmatch(key):
            yield wrong("metadata.labels", key, "name part must consist of alphanumeric characters")
        if not _LABEL_VALUE.fullmatch(value):
            hint = "a valid label must be an empty string or consist of alphanumeric characters"
            yield wrong("metadata.labels", value, hint)
    for key in metadata.get("annotations") or {}:
        if not _QUALIFIED.fullmatch(key.lower()):
            yield wrong("metadata.annotations", key, "name part must be a qualified name")


def _workload(one: Object) -> Iterator[Cause]:
    spec = one["spec"]
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    selector = spec.get("selector") or {}
    if spec["replicas"] < 0:
        yield wrong("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        hint = "empty selector is invalid for deployment"
        yield wrong("spec.selector", "{}", hint)
    elif not selectors.matches(selector, labels):
        hint = "`selector` does not match template `labels`"
        yield wrong("spec.template.metadata.labels", str(labels), hint)
    if (policy := (template.get("spec") or {}).get("restartPolicy")) != "Always":
        yield unsupported("spec.template.spec.restartPolicy", policy, ["Always"])


def _job(one: Object) -> Iterator[Cause]:
    spec = one["spec"]
    for field in ("parallelism", "completions", "backoffLimit", "ttlSecondsAfterFinished"):
        if spec.get(field, 0) < 0:
            hint = "must be greater than or equal to 0"
            yield wrong(f"spec.{field}", spec[field], hint)
    if spec["completionMode"] != "NonIndexed":
        hint = "this development cluster runs NonIndexed jobs only"
        yield wrong("spec.completionMode", spec["completionMode"], hint)
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy not in {"Never", "OnFailure"}:
        yield unsupported("spec.template.spec.restartPolicy", policy, ["OnFailure", "Never"])


def _role(one: Object) -> Iterator[Cause]:
    for index, rule in enumerate(one.get("rules") or ()):
        here = f"rules[{index}]"
        if not rule.get("verbs"):
            yield required(f"{here}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            continue
        if not rule.get("apiGroups"):
            hint = "resource rules must supply at least one api group"
            yield required(f"{here}.apiGroups", hint)
        if not rule.get("resources"):
            hint = "resource rules must supply at least one resource"
            yield required(f"{here}.resources", hint)


def _binding(one: Object) -> Iterator[Cause]:
    reference = one.get("roleRef") or {}
    if not reference.get("name"):
        yield required("roleRef.name")
    kinds = ["Role", "ClusterRole"] if one["kind"] == "RoleBinding" else ["ClusterRole"]
    if reference.get("kind") not in kinds:
        yield unsupported("roleRef.kind", reference.get("kind", ""), kinds)
    for index, subject in enumerate(one.get("subjects") or ()):
        here = f"subjects[{index}]"
        if subject.get("kind") not in _SUBJECTS:
            yield unsupported(f"{here}.kind", subject.get("kind", ""), _SUBJECTS)
        if not subject.get("name"):
            yield required(f"{here}.name")
        lacks_namespace = subject.get("kind") == "ServiceAccount" and not subject.get("namespace")
        if lacks_namespace and one["kind"] == "ClusterRoleBinding":
            yield required(f"{here}.namespace")


def _binding_change(old: Object, new: Object) -> Iterator[Cause]:
    if old["roleRef"] != new["roleRef"]:
        yield wrong("roleRef", str(new["roleRef"]), "cannot change roleRef")


def _job_change(old: Object, new: Object) -> Iterator[Cause]:
    for field in ("selector", "template", "completions", "completionMode"):
        yield from _immutable(f"spec.{field}", old["spec"], new["spec"], field)


def _deployment(one: Object) -> Iterator[Cause]:
    yield from _workload(one)
    strategy = one["spec"]["strategy"]
    if strategy["type"] not in {"Recreate", "RollingUpdate"}:
        allowed = ["Recreate", "RollingUpdate"]
        yield unsupported("spec.strategy.type", strategy["type"], allowed)
    if strategy["type"] == "Recreate" and "rollingUpdate" in strategy:
        hint = "may not be specified when strategy `type` is 'Recreate'"
        yield forbidden_field("spec.strategy.rollingUpdate", hint)


def _data(one: Object) -> Iterator[Cause]:
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (one.get(field) or {}).items():
            size += len(value)
            if not _DATA_KEY.fullmatch(key) or key in {".", ".."}:
                hint = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                yield wrong(f"{field}[{key}]", key, hint)
    if size > SECRET_BYTES * 4 // 3:
        hint = f"Too long: may not be more than {SECRET_BYTES} bytes"
        yield Cause("data", "FieldValueTooLong", hint)


def _quota(one: Object) -> Iterator[Cause]:
    for name, value in (one["spec"].get("hard") or {}).items():
        yield from _quantity(f"spec.hard[{name}]", value)


def _quantity(path: str, value: object) -> Iterator[Cause]:
    try:
        if quantities.parse(value) < 0:
            yield wrong(path, value, "must be greater than or equal to 0")
    except ValueError:
        hint = (
            "quantities must match the regular expression"
            " '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
        yield wrong(path, value, hint)


def _limit_range(one: Object) -> Iterator[Cause]:
    for index, limit in enumerate(one["spec"].get("limits") or ()):
        for field in ("default", "defaultRequest", "max", "min"):
            for name, value in (limit.get(field) or {}).items():
                yield from _quantity(f"spec.limits[{index}].{field}[{name}]", value)


def _claim(one: Object) -> Iterator[Cause]:
    spec = one["spec"]
    modes = spec.get("accessModes") or []
    if not modes:
        yield required("spec.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in _ACCESS_MODES:
            yield unsupported("spec.accessModes", mode, _ACCESS_MODES)
    wanted = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in wanted:
        yield required("spec.resources[storage]")
    else:
        yield from _quantity("spec.resources[storage]", wanted["storage"])


def _service(one: Object) -> Iterator[Cause]:
    spec = one["spec"]
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        yield required("spec.ports")
    names = [port.get("name", "") for port in ports]
    for index, port in enumerate(ports):
        if not 1 <= port["port"] <= HIGHEST_PORT:
            hint = f"must be between 1 and {HIGHEST_PORT}, inclusive"
            yield wrong(f"spec.ports[{index}].port", port["port"], hint)
        if len(ports) > 1 and not port.get("name"):
            yield required(f"spec.ports[{index}].name")
        elif names.count(port.get("name", "")) > 1:
            yield duplicate(f"spec.ports[{index}].name", port.get("name"))


def _immutable(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], field: str
) -> Iterator[Cause]:
    if old.get(field) != new.get(field):
        yield wrong(path, str(new.get(field)), "field is immutable")


def _workload_change(old: Object, new: Object) -> Iterator[Cause]:
    yield from _immutable("spec.selector", old["spec"], new["spec"], "selector")


def _network_policy(one: Object) -> Iterator[Cause]:
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(one["spec"].get(field) or ()):
            for index, peer in enumerate(rule.get(peers) or ()):
                if block := peer.get("ipBlock"):
                    yield from _ip_block(block, f"spec.{field}[{number}].{peers}[{index}].ipBlock")


def _ip_block(block: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if (whole := _network(block["cidr"])) is None:
        yield wrong(f"{path}.cidr", block["cidr"], _CIDR_HINT)
        return
    for index, text in enumerate(block.get("except") or ()):
        here = f"{path}.except[{index}]"
        if (part := _network(text)) is None:
            yield wrong(here, text, _CIDR_HINT)
        elif not _is_strict_subset(part, whole):
            yield wrong(here, text, "must be a strict subset of `cidr`")


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_strict_subset(part: Network, whole: Network) -> bool:
    """Judge as the server's Go does, which takes a mapped address for an IPv4 one."""
    first = part.network_address
    seen = getattr(first, "ipv4_mapped", None) or first
    return seen in whole and part.prefixlen > whole.prefixlen


def _secret_change(old: Object, new: Object) -> Iterator[Cause]:
    yield from _immutable("type", old, new, "type")
    yield from _data_change(old, new)


def _data_change(old: Object, new: Object) -> Iterator[Cause]:
    if not old.get("immutable"):
        return
    hint = "field is immutable when `immutable` is set"
    if any(old.get(field) != new.get(field) for field in ("data", "binaryData")):
        yield forbidden_field("data", hint)
    if not new.get("immutable"):
        yield forbidden_field("immutable", hint)


def _pod_change(old: Object, new: Object) -> Iterator[Cause]:
    if _fixed_part(old["spec"]) != _fixed_part(new["spec"]):
        yield forbidden_field(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only"
            " additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to"
            " be set to 1 if it was previously negative)",
        )


def _fixed_part(spec: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {
        key: one
        for key, one in spec.items()
        if key not in {"activeDeadlineSeconds", "tolerations", "nodeName"}
    }
    for group in ("containers", "initContainers"):
        fixed[group] = [
            {key: one for key, one in container.items() if key != "image"}
            for container in spec.get(group) or ()
        ]
    return fixed


def _claim_change(old: Object, new: Object) -> Iterator[Cause]:
    free = {"resources", "volumeName", "volumeAttributesClassName"}
    before, after = (
        {key: one for key, one in each["spec"].items() if key not in free} for each in (old, new)
    )
    if before != after:
        hint = (
            "spec is immutable after creation except resources.requests and"
            " volumeAttributesClassName for bound claims"
        )
        yield forbidden_field("spec", hint)
    was, asked = (each["spec"]["resources"]["requests"]["storage"] for each in (old, new))
    if quantities.parse(asked) < quantities.parse(was):
        hint = "field can not be less than status.capacity"
        yield forbidden_field("spec.resources.requests.storage", hint)


def _service_change(old: Object, new: Object) -> Iterator[Cause]:
    if old["spec"].get("clusterIP"):
        yield from _immutable("spec.clusterIP", old["spec"], new["spec"], "clusterIP")


def _snapshot_class(one: Object) -> Iterator[Cause]:
    if (policy := one["deletionPolicy"]) not in _POLICIES:
        yield unsupported("deletionPolicy", policy, _POLICIES)


def _snapshot(one: Object) -> Iterator[Cause]:
    source = one["spec"]["source"]
    if len(source) != 1:
        hint = "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"
        yield wrong("spec.source", str(source), hint)


def _snapshot_change(old: Object, new: Object) -> Iterator[Cause]:
    yield from _immutable("spec.source", old["spec"], new["spec"], "source")


_KINDS: dict[resources.Resource, Callable[[Object], Iterator[Cause]]] = {
    resources.DEPLOYMENTS: _deployment,
    resources.REPLICA_SETS: _workload,
    resources.SECRETS: _data,
    resources.CONFIG_MAPS: _data,
    resources.QUOTAS: _quota,
    resources.LIMIT_RANGES: _limit_range,
    resources.NETWORK_POLICIES: _network_policy,
    resources.CLAIMS: _claim,
    resources.SERVICES: _service,
    resources.JOBS: _job,
    resources.ROLES: _role,
    resources.CLUSTER_ROLES: _role,
    resources.ROLE_BINDINGS: _binding,
    resources.CLUSTER_ROLE_BINDINGS: _binding,
    resources.SNAPSHOT_CLASSES: _snapshot_class,
    resources.SNAPSHOTS: _snapshot,
}
_CHANGES: dict[resources.Resource, Callable[[Object, Object], Iterator[Cause]]] = {
    resources.DEPLOYMENTS: _workload_change,
    resources.REPLICA_SETS: _workload_change,
    resources.SECRETS: _secret_change,
    resources.CONFIG_MAPS: _data_change,
    resources.PODS: _pod_change,
    resources.CLAIMS: _claim_change,
    resources.SERVICES: _service_change,
    resources.JOBS: _job_change,
    resources.ROLE_BINDINGS: _binding_change,
    resources.CLUSTER_ROLE_BINDINGS: _binding_change,
    resources.SNAPSHOTS: _snapshot_change,
}
