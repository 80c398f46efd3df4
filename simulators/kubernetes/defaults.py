"""The values that the API server fills in, kind by kind, as the real one does."""

import base64
from collections.abc import Callable, Iterable
from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.objects import Object, name_of

STANDARD_CLASS = "standard"
CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def fill(resource: resources.Resource, one: Object) -> None:
    """Set what is left out; the object is the caller's own, fresh from a request."""
    filler = _FILLERS.get(resource)
    if filler is not None:
        filler(one)


def _namespace(one: Object) -> None:
    one.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    one.setdefault("status", {"phase": "Active"})
    one["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name_of(one)


def _secret(one: Object) -> None:
    one.setdefault("type", "Opaque")
    plain = one.pop("stringData", None) or {}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
    if encoded:
        one["data"] = (one.get("data") or {}) | encoded


def _pod(one: Object) -> None:
    pod_spec(one.setdefault("spec", {}))
    one["spec"].setdefault("serviceAccountName", "default")
    one["spec"].setdefault("serviceAccount", one["spec"]["serviceAccountName"])
    one["spec"].setdefault("preemptionPolicy", "PreemptLowerPriority")
    one["spec"].setdefault("priority", 0)
    one.setdefault("status", {"phase": "Pending"})
    one["status"].setdefault("qosClass", _quality(one["spec"]))


def pod_spec(spec: dict[str, Any]) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        _container(container)
    for volume in spec.get("volumes", ()):
        _volume(volume)


def _container(one: dict[str, Any]) -> None:
    untagged = ":" not in one.get("image", "").rpartition("/")[2]
    is_latest = untagged or one["image"].endswith(":latest")
    one.setdefault("imagePullPolicy", "Always" if is_latest else "IfNotPresent")
    limits_become_requests(one.setdefault("resources", {}))
    one.setdefault("terminationMessagePath", "/dev/termination-log")
    one.setdefault("terminationMessagePolicy", "File")
    for port in one.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for variable in one.get("env", ()):
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for kind in _PROBES:
        if kind in one:
            _probe(one[kind])


def limits_become_requests(wanted: dict[str, Any]) -> None:
    """Whoever limits a resource without requesting it requests the limit."""
    for name, quantity in (wanted.get("limits") or {}).items():
        wanted.setdefault("requests", {}).setdefault(name, quantity)


def _probe(one: dict[str, Any]) -> None:
    defaults = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1}
    for key, value in (defaults | {"failureThreshold": 3}).items():
        one.setdefault(key, value)
    if "httpGet" in one:
        one["httpGet"].setdefault("path", "/")
        one["httpGet"].setdefault("scheme", "HTTP")


def _volume(one: dict[str, Any]) -> None:
    if len(one) == 1:
        one["emptyDir"] = {}
    for kind in ("secret", "configMap", "projected", "downwardAPI"):
        if kind in one:
            one[kind].setdefault("defaultMode", 0o644)


def _quality(spec: dict[str, Any]) -> str:
    """Return the quality-of-service class that the resources add up to."""
    wanted = [one.get("resources") or {} for one in spec.get("containers", ())]
    if not any(one.get("limits") or one.get("requests") for one in wanted):
        return "BestEffort"
    equal = all(
        {"cpu", "memory"} <= (one.get("limits") or {}).keys()
        and one.get("requests") == one.get("limits")
        for one in wanted
    )
    return "Guaranteed" if equal else "Burstable"


def _template(one: Object) -> dict[str, Any]:
    spec = one.setdefault("spec", {})
    template = spec.get("template")
    if isinstance(template, dict):
        pod_spec(template.setdefault("spec", {}))
        template.setdefault("metadata", {})
    return spec


def _replica_set(one: Object) -> None:
    _template(one).setdefault("replicas", 1)
    one.setdefault("status", {"replicas": 0})


def _deployment(one: Object) -> None:
    spec = _template(one)
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    spec.setdefault("progressDeadlineSeconds", 600)
    spec.setdefault("revisionHistoryLimit", 10)
    one.setdefault("status", {})


def _service(one: Object) -> None:
    spec = one.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    one.setdefault("status", {"loadBalancer": {}})


def _claim(one: Object) -> None:
    spec = one.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("storageClassName", STANDARD_CLASS)
    limits_become_requests(spec.setdefault("resources", {}))
    if "deletionTimestamp" not in one["metadata"]:
        _add_once(one["metadata"].setdefault("finalizers", []), CLAIM_FINALIZER)
    one.setdefault("status", {"phase": "Pending"})


def _persistent_volume(one: Object) -> None:
    spec = one.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    one.setdefault("status", {"phase": "Available"})


def _network_policy(one: Object) -> None:
    spec = one.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if "egress" in spec else ["Ingress"])
    for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]:
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")


def _limit_range(one: Object) -> None:
    for limit in one.setdefault("spec", {}).get("limits", ()):
        if limit.get("type") != "Container":
            continue
        for name, quantity in (limit.get("max") or {}).items():
            limit.setdefault("default", {}).setdefault(name, quantity)
        for name, quantity in (limit.get("default") or {}).items():
            limit.setdefault("defaultRequest", {}).setdefault(name, quantity)
        for name, quantity in (limit.get("min") or {}).items():
            limit.setdefault("defaultRequest", {}).setdefault(name, quantity)


def _quota(one: Object) -> None:
    one.setdefault("spec", {})
    one.setdefault("status", {})


def _node(one: Object) -> None:
    one.setdefault("spec", {})
    one.setdefault("status", {})


def _job(one: Object) -> None:
    """Fill in a Job; its selector and its pods' labels come from its uid."""
    spec = _template(one)
    spec.setdefault("parallelism", 1)
    if "completions" not in spec and spec["parallelism"] == 1:
        spec["completions"] = 1
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)
    if not spec["manualSelector"] and "template" in spec:
        uid = one["metadata"]["uid"]
        own = {"batch.kubernetes.io/controller-uid": uid}
        labels = spec["template"]["metadata"].setdefault("labels", {})
        labels |= {**own, "controller-uid": uid}
        labels |= {"batch.kubernetes.io/job-name": name_of(one), "job-name": name_of(one)}
        spec.setdefault("selector", {"matchLabels": own})
    one.setdefault("status", {})


def _role_binding(one: Object) -> None:
    group = resources.ROLES.group
    one.setdefault("roleRef", {}).setdefault("apiGroup", group)
    for subject in one.get("subjects") or ():
        is_account = subject.get("kind") == "ServiceAccount"
        if not is_account:
            subject.setdefault("apiGroup", group)


def _add_once(values: list[str], value: str) -> None:
    if value not in values:
        values.append(value)


_FILLERS: dict[resources.Resource, Callable[[Object], None]] = {
    resources.NAMESPACES: _namespace,
    resources.SECRETS: _secret,
    resources.PODS: _pod,
    resources.REPLICA_SETS: _replica_set,
    resources.DEPLOYMENTS: _deployment,
    resources.SERVICES: _service,
    resources.CLAIMS: _claim,
    resources.VOLUMES: _persistent_volume,
    resources.NETWORK_POLICIES: _network_policy,
    resources.LIMIT_RANGES: _limit_range,
    resources.QUOTAS: _quota,
    resources.NODES: _node,
    resources.JOBS: _job,
    resources.ROLE_BINDINGS: _role_binding,
    resources.CLUSTER_ROLE_BINDINGS: _role_binding,
}


def templates_of(resource: resources.Resource, one: Object) -> Iterable[tuple[str, dict[str, Any]]]:
    """Return the pod specs inside an object, with their paths."""
    if resource is resources.PODS:
        yield "spec", one.get("spec") or {}
    elif resource in (resources.DEPLOYMENTS, resources.REPLICA_SETS, resources.JOBS):
        template = (one.get("spec") or {}).get("template") or {}
        yield "spec.template.spec", template.get("spec") or {}
