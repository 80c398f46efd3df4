"""The roles that every cluster begins with, cut down to the kinds of this one."""

from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.access import ANY, RBAC_GROUP
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.identity import AUTHENTICATED, MASTERS

_READ = ["get", "list", "watch"]
_CHANGE = ["create", "delete", "deletecollection", "patch", "update"]
_LABEL = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_DISCOVERED = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"]
_HEALTH = ["/healthz", "/livez", "/readyz", "/version", "/version/"]


def _rule(group: str, names: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": names, "verbs": verbs}


_SEEN = [
    _rule(
        "",
        [
            *("configmaps", "events", "limitranges", "namespaces", "persistentvolumeclaims"),
            *("pods", "pods/log", "pods/status", "resourcequotas", "serviceaccounts", "services"),
        ],
        _READ,
    ),
    _rule("apps", ["deployments", "deployments/scale", "replicasets", "replicasets/scale"], _READ),
    _rule("batch", ["jobs"], _READ),
    _rule("networking.k8s.io", ["networkpolicies"], _READ),
]
_CHANGED = [
    _rule("", ["configmaps", "persistentvolumeclaims", "pods", "secrets", "services"], _CHANGE),
    _rule("", ["secrets"], _READ),
    _rule("", ["serviceaccounts", "serviceaccounts/token", "pods/eviction"], _CHANGE),
    _rule("apps", ["deployments", "deployments/scale", "replicasets"], _CHANGE),
    _rule("batch", ["jobs"], _CHANGE),
    _rule("networking.k8s.io", ["networkpolicies"], _CHANGE),
]
_RULED = [_rule(RBAC_GROUP, ["roles", "rolebindings"], [*_READ, *_CHANGE])]
_OWN = [
    _rule("authorization.k8s.io", ["selfsubjectaccessreviews"], ["create"]),
    _rule("authorization.k8s.io", ["selfsubjectrulesreviews"], ["create"]),
    _rule("authentication.k8s.io", ["selfsubjectreviews"], ["create"]),
]
ROLES: dict[str, list[dict[str, Any]]] = {
    "cluster-admin": [_rule(ANY, [ANY], [ANY]), {"nonResourceURLs": [ANY], "verbs": [ANY]}],
    "admin": [*_SEEN, *_CHANGED, *_RULED],
    "edit": [*_SEEN, *_CHANGED],
    "view": _SEEN,
    "system:basic-user": _OWN,
    "system:discovery": [{"nonResourceURLs": [*_DISCOVERED, *_HEALTH], "verbs": ["get"]}],
}
BOUND = {
    "cluster-admin": MASTERS,
    "system:basic-user": AUTHENTICATED,
    "system:discovery": AUTHENTICATED,
}


def ensure(cluster: Cluster) -> None:
    """Make the roles and bindings that are missing; what somebody changed stays changed."""
    for name, rules in ROLES.items():
        if cluster.find(resources.CLUSTER_ROLES, "", name) is None:
            body = {"metadata": {"name": name, "labels": _LABEL}, "rules": rules}
            cluster.create(resources.CLUSTER_ROLES, "", body)
    for name, group in BOUND.items():
        if cluster.find(resources.CLUSTER_ROLE_BINDINGS, "", name) is None:
            body = {
                "metadata": {"name": name, "labels": _LABEL},
                "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": RBAC_GROUP, "kind": "Group", "name": group}],
            }
            cluster.create(resources.CLUSTER_ROLE_BINDINGS, "", body)
