"""Pod Security Standards: what the labels of a namespace forbid its pods, in the real words.

The rules are those of https://kubernetes.io/docs/concepts/security/pod-security-standards/, named
and worded as the admission plugin does it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from simulators.kubernetes import errors, resources
from simulators.kubernetes.defaults import templates_of
from simulators.kubernetes.objects import Object, labels_of, name_of
from simulators.kubernetes.store import Store

PREFIX = "pod-security.kubernetes.io/"
PRIVILEGED, BASELINE, RESTRICTED = LEVELS = ("privileged", "baseline", "restricted")
_ADDABLE = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
_SAFE_SYSCTLS = frozenset(
    {
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"),
        *("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time"),
        *("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    }
)
_SAFE_SELINUX = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
_VOLUMES = frozenset(
    {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
        *("projected", "secret", "image"),
    }
)
Spec = Mapping[str, Any]
Check = Callable[[Spec], Iterator[str]]


def check_pod(store: Store, pod: Object, warnings: list[str]) -> None:
    """Refuse a pod that its namespace's `enforce` level forbids; note what `warn` says.

    Raises:
        ApiError: 403 with every rule that is broken.
    """
    inside = _labels(store, pod)
    level, version = _level(inside, "enforce")
    if found := violations(level, pod["spec"]):
        why = f'violates PodSecurity "{level}:{version}": {found}'
        raise errors.forbidden(resources.PODS, pod["metadata"].get("name", ""), why)
    _warn(inside, pod["spec"], warnings)


def check_template(
    store: Store, resource: resources.Resource, one: Object, warnings: list[str]
) -> None:
    """Note what the namespace's `warn` level says to the pods that a workload would make."""
    for _, spec in templates_of(resource, one):
        _warn(_labels(store, one), spec, warnings)


def check_namespace(store: Store, namespace: Object, before: Object | None) -> list[str]:
    """Return warnings about pods that are there and that a new `enforce` level forbids.

    Raises:
        ApiError: 422, a level that does not exist.
    """
    causes = []
    for mode in ("enforce", "audit", "warn"):
        value = labels_of(namespace).get(PREFIX + mode, PRIVILEGED)
        if value not in LEVELS:
            path = f"metadata.labels[{PREFIX}{mode}]"
            causes.append(errors.wrong(path, value, f"must be one of {', '.join(LEVELS)}"))
    if causes:
        raise errors.invalid(resources.NAMESPACES, name_of(namespace), causes)
    level, version = _level(labels_of(namespace), "enforce")
    if before is None or _level(labels_of(before), "enforce") == (level, version):
        return []
    return _pods_below(store, name_of(namespace), level, version)


def _pods_below(store: Store, namespace: str, level: str, version: str) -> list[str]:
    broken: dict[str, list[str]] = {}
    for pod in store.objects(resources.PODS, namespace):
        if found := violations(level, pod["spec"], is_short=True):
            broken.setdefault(found, []).append(name_of(pod))
    if not broken:
        return []
    begin = f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level'
    told = [f'{begin} "{level}:{version}"']
    for found, names in sorted(broken.items(), key=lambda one: min(one[1])):
        first, more = min(names), len(names) - 1
        others = f" (and {more} other pod{'s' if more > 1 else ''})" if more else ""
        told.append(f"{first}{others}: {found}")
    return told


def violations(level: str, spec: Spec, *, is_short: bool = False) -> str:
    """Return the broken rules in one line, or nothing; the short form leaves the details out."""
    broken = []
    for title, check in _CHECKS[level]:
        details = list(check(spec))
        if details:
            broken.append(title if is_short else f"{title} ({'; '.join(details)})")
    return ", ".join(broken)


def _labels(store: Store, one: Object) -> Mapping[str, str]:
    namespace = store.find(resources.NAMESPACES, "", one["metadata"]["namespace"])
    return labels_of(namespace) if namespace else {}


def _level(labels: Mapping[str, str], mode: str) -> tuple[str, str]:
    level = labels.get(PREFIX + mode, PRIVILEGED)
    version = labels.get(f"{PREFIX}{mode}-version", "latest")
    return (level if level in LEVELS else RESTRICTED), version


def _warn(labels: Mapping[str, str], spec: Spec, warnings: list[str]) -> None:
    level, version = _level(labels, "warn")
    if found := violations(level, spec):
        warnings.append(f'would violate PodSecurity "{level}:{version}": {found}')


def _containers(spec: Spec) -> list[Spec]:
    groups = ("initContainers", "containers", "ephemeralContainers")
    return [one for group in groups for one in spec.get(group) or ()]


def _context(one: Spec) -> Mapping[str, Any]:
    return one.get("securityContext") or {}


def _named(names: Iterable[str], word: str = "container") -> str:
    listed = list(names)
    quoted = ", ".join(f'"{name}"' for name in listed)
    return f"{word}{'s' if len(listed) > 1 else ''} {quoted}"


def _bad(spec: Spec, test: Callable[[Spec], bool]) -> list[str]:
    return [one.get("name", "") for one in _containers(spec) if test(one)]


def _host_namespaces(spec: Spec) -> Iterator[str]:
    shared = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if shared:
        yield ", ".join(shared)


def _host_path(spec: Spec) -> Iterator[str]:
    names = [one["name"] for one in spec.get("volumes") or () if "hostPath" in one]
    if names:
        yield _named(names, "volume")


def _host_ports(spec: Spec) -> Iterator[str]:
    used: dict[str, list[str]] = {}
    for one in _containers(spec):
        for port in one.get("ports") or ():
            if port.get("hostPort"):
                used.setdefault(one["name"], []).append(str(port["hostPort"]))
    if used:
        ports = sorted({port for many in used.values() for port in many}, key=int)
        verb = "use" if len(used) > 1 else "uses"
        plural = "s" if len(ports) > 1 else ""
        yield f"{_named(used)} {verb} hostPort{plural} {', '.join(ports)}"


def _privileged(spec: Spec) -> Iterator[str]:
    if names := _bad(spec, lambda one: bool(_context(one).get("privileged"))):
        yield f"{_named(names)} must not set securityContext.privileged=true"


def _added(spec: Spec, allowed: frozenset[str]) -> Iterator[str]:
    found: dict[str, set[str]] = {}
    for one in _containers(spec):
        asked: Iterable[str] = (_context(one).get("capabilities") or {}).get("add") or ()
        if wrong := {name for name in asked if name not in allowed}:
            found[one["name"]] = wrong
    if found:
        listed = ", ".join(f'"{one}"' for one in sorted(set().union(*found.values())))
        yield f"{_named(found)} must not include {listed} in securityContext.capabilities.add"


def _baseline_capabilities(spec: Spec) -> Iterator[str]:
    yield from _added(spec, _ADDABLE)


def _capabilities(spec: Spec) -> Iterator[str]:
    def keeps(one: Spec) -> bool:
        return "ALL" not in ((_context(one).get("capabilities") or {}).get("drop") or ())

    if names := _bad(spec, keeps):
        yield f'{_named(names)} must set securityContext.capabilities.drop=["ALL"]'
    yield from _added(spec, frozenset({"NET_BIND_SERVICE"}))


def _proc_mount(spec: Spec) -> Iterator[str]:
    def is_bad(one: Spec) -> bool:
        return _context(one).get("procMount", "Default") != "Default"

    if names := _bad(spec, is_bad):
        yield f'{_named(names)} must not set securityContext.procMount to "Unmasked"'


def _selinux(spec: Spec) -> Iterator[str]:
    def is_bad(one: Spec) -> bool:
        options = _context(one).get("seLinuxOptions") or {}
        wrong = options.get("type", "") not in _SAFE_SELINUX
        return wrong or bool(options.get("user") or options.get("role"))

    where = (["pod"] if is_bad(spec) else []) + (
        [_named(names)] if (names := _bad(spec, is_bad)) else []
    )
    if where:
        yield f"{' and '.join(where)} set forbidden securityContext.seLinuxOptions"


def _sysctls(spec: Spec) -> Iterator[str]:
    names = [one["name"] for one in _context(spec).get("sysctls") or ()]
    if unsafe := [name for name in names if name not in _SAFE_SYSCTLS]:
        yield ", ".join(unsafe)


def _seccomp_type(one: Spec) -> str:
    return (_context(one).get("seccompProfile") or {}).get("type", "")


def _baseline_seccomp(spec: Spec) -> Iterator[str]:
    where = ["pod"] if _seccomp_type(spec) == "Unconfined" else []
    if names := _bad(spec, lambda one: _seccomp_type(one) == "Unconfined"):
        where.append(_named(names))
    if where:
        joined = " and ".join(where)
        yield f'{joined} must not set securityContext.seccompProfile.type to "Unconfined"'


def _seccomp(spec: Spec) -> Iterator[str]:
    yield from _baseline_seccomp(spec)
    if _seccomp_type(spec):
        return
    if names := _bad(spec, lambda one: not _seccomp_type(one)):
        wanted = '"RuntimeDefault" or "Localhost"'
        yield f"pod or {_named(names)} must set securityContext.seccompProfile.type to {wanted}"


def _volume_types(spec: Spec) -> Iterator[str]:
    bad = {
        one["name"]: kind
        for one in spec.get("volumes") or ()
        for kind in one.keys() - {"name"}
        if kind not in _VOLUMES
    }
    if bad:
        plural = "s" if len(bad) > 1 else ""
        verb = "use" if plural else "uses"
        kinds = ", ".join(f'"{one}"' for one in sorted(set(bad.values())))
        types = "types" if len(set(bad.values())) > 1 else "type"
        yield f"{_named(bad, 'volume')} {verb} restricted volume {types} {kinds}"


def _escalation(spec: Spec) -> Iterator[str]:
    def is_bad(one: Spec) -> bool:
        return _context(one).get("allowPrivilegeEscalation") is not False

    if names := _bad(spec, is_bad):
        yield f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false"


def _non_root(spec: Spec) -> Iterator[str]:
    wanted = _context(spec).get("runAsNonRoot")
    if wanted is False:
        yield "pod must not set securityContext.runAsNonRoot=false"
    if names := _bad(spec, lambda one: _context(one).get("runAsNonRoot") is False):
        yield f"{_named(names)} must not set securityContext.runAsNonRoot=false"
    if wanted is None and (
        names := _bad(spec, lambda one: _context(one).get("runAsNonRoot") is None)
    ):
        yield f"pod or {_named(names)} must set securityContext.runAsNonRoot=true"


def _root_user(spec: Spec) -> Iterator[str]:
    where = ["pod"] if _context(spec).get("runAsUser") == 0 else []
    if names := _bad(spec, lambda one: _context(one).get("runAsUser") == 0):
        where.append(_named(names))
    if where:
        yield f"{' and '.join(where)} must not set runAsUser=0"


_COMMON: tuple[tuple[str, Check], ...] = (
    ("host namespaces", _host_namespaces),
    ("hostPort", _host_ports),
    ("privileged", _privileged),
    ("procMount", _proc_mount),
    ("seLinuxOptions", _selinux),
    ("forbidden sysctls", _sysctls),
)
_CHECKS: dict[str, tuple[tuple[str, Check], ...]] = {
    PRIVILEGED: (),
    BASELINE: (
        ("non-default capabilities", _baseline_capabilities),
        _COMMON[0],
        ("hostPath volumes", _host_path),
        *_COMMON[1:5],
        ("seccompProfile", _baseline_seccomp),
        _COMMON[5],
    ),
    RESTRICTED: (
        *_COMMON,
        ("allowPrivilegeEscalation != false", _escalation),
        ("unrestricted capabilities", _capabilities),
        ("restricted volume types", _volume_types),
        ("runAsNonRoot != true", _non_root),
        ("runAsUser=0", _root_user),
        ("seccompProfile", _seccomp),
    ),
}
