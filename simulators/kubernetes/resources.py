"""The kinds this cluster knows, and the addresses they have."""

from dataclasses import dataclass

SERVER_MINOR = "33"
SERVER_VERSION = f"v1.{SERVER_MINOR}.0"
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One kind: where it lives in the API and what kubectl may call it."""

    group: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    in_all: bool = False
    version: str = "v1"
    verbs: tuple[str, ...] = VERBS
    stored_as: str = ""  # the qualified name of the kind under which its objects are kept

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The plural with its group, as error messages say it: `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def definition(self) -> str:
        """The name of its schema in Kubernetes' OpenAPI document."""
        package = self.group.partition(".")[0] or "core"
        return f"io.k8s.api.{package}.{self.version}.{self.kind}"

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources


def _core(
    plural: str,
    kind: str,
    *short: str,
    sub: tuple[str, ...] = (),
    namespaced: bool = True,
    in_all: bool = False,
) -> Resource:
    return Resource(
        group="",
        plural=plural,
        kind=kind,
        short=short,
        subresources=sub,
        namespaced=namespaced,
        in_all=in_all,
    )


_STATUS = ("status",)
NAMESPACES = _core("namespaces", "Namespace", "ns", sub=("status", "finalize"), namespaced=False)
NODES = _core("nodes", "Node", "no", sub=_STATUS, namespaced=False)
SECRETS = _core("secrets", "Secret")
CONFIG_MAPS = _core("configmaps", "ConfigMap", "cm")
PODS = _core("pods", "Pod", "po", sub=("status", "log", "eviction"), in_all=True)
SERVICES = _core("services", "Service", "svc", sub=_STATUS, in_all=True)
VOLUMES = _core("persistentvolumes", "PersistentVolume", "pv", sub=_STATUS, namespaced=False)
CLAIMS = _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", sub=_STATUS)
QUOTAS = _core("resourcequotas", "ResourceQuota", "quota", sub=_STATUS)
LIMIT_RANGES = _core("limitranges", "LimitRange", "limits")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount", "sa", sub=("token",))
EVENTS = _core("events", "Event", "ev")
DEPLOYMENTS = Resource(
    group="apps",
    plural="deployments",
    kind="Deployment",
    short=("deploy",),
    subresources=("status", "scale"),
    in_all=True,
)
REPLICA_SETS = Resource(
    group="apps",
    plural="replicasets",
    kind="ReplicaSet",
    short=("rs",),
    subresources=("status", "scale"),
    in_all=True,
)
NETWORK_POLICIES = Resource(
    group="networking.k8s.io", plural="networkpolicies", kind="NetworkPolicy", short=("netpol",)
)
JOBS = Resource(group="batch", plural="jobs", kind="Job", subresources=_STATUS, in_all=True)
_RBAC = "rbac.authorization.k8s.io"
ROLES = Resource(group=_RBAC, plural="roles", kind="Role")
CLUSTER_ROLES = Resource(group=_RBAC, plural="clusterroles", kind="ClusterRole", namespaced=False)
ROLE_BINDINGS = Resource(group=_RBAC, plural="rolebindings", kind="RoleBinding")
CLUSTER_ROLE_BINDINGS = Resource(
    group=_RBAC, plural="clusterrolebindings", kind="ClusterRoleBinding", namespaced=False
)
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
SNAPSHOT_CLASSES = Resource(
    group=SNAPSHOT_GROUP,
    plural="volumesnapshotclasses",
    kind="VolumeSnapshotClass",
    short=("vsclass", "vsclasses"),
    namespaced=False,
)
SNAPSHOTS = Resource(
    group=SNAPSHOT_GROUP,
    plural="volumesnapshots",
    kind="VolumeSnapshot",
    short=("vs",),
    subresources=_STATUS,
)
SNAPSHOT_CONTENTS = Resource(
    group=SNAPSHOT_GROUP,
    plural="volumesnapshotcontents",
    kind="VolumeSnapshotContent",
    short=("vsc", "vscs"),
    subresources=_STATUS,
    namespaced=False,
)
# The same events in the newer form: kept once, shown in two groups.
NEWER_EVENTS = Resource(
    group="events.k8s.io", plural="events", kind="Event", short=("ev",), stored_as="events"
)

ALL = (
    NAMESPACES,
    NODES,
    SECRETS,
    CONFIG_MAPS,
    PODS,
    SERVICES,
    VOLUMES,
    CLAIMS,
    QUOTAS,
    LIMIT_RANGES,
    SERVICE_ACCOUNTS,
    EVENTS,
    DEPLOYMENTS,
    REPLICA_SETS,
    JOBS,
    NETWORK_POLICIES,
    ROLES,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLE_BINDINGS,
    SNAPSHOT_CLASSES,
    SNAPSHOTS,
    SNAPSHOT_CONTENTS,
)


def _asked(group: str, plural: str, kind: str, *, namespaced: bool = False) -> Resource:
    """Describe a kind that is a question: it is created, answered, and not kept."""
    whole = f"{group}.k8s.io"
    return Resource(group=whole, plural=plural, kind=kind, namespaced=namespaced, verbs=("create",))


ACCESS_REVIEWS = _asked("authorization", "subjectaccessreviews", "SubjectAccessReview")
LOCAL_ACCESS_REVIEWS = _asked(
    "authorization", "localsubjectaccessreviews", "LocalSubjectAccessReview", namespaced=True
)
OWN_ACCESS_REVIEWS = _asked("authorization", "selfsubjectaccessreviews", "SelfSubjectAccessReview")
OWN_RULES_REVIEWS = _asked("authorization", "selfsubjectrulesreviews", "SelfSubjectRulesReview")
OWN_REVIEWS = _asked("authentication", "selfsubjectreviews", "SelfSubjectReview")
TOKEN_REVIEWS = _asked("authentication", "tokenreviews", "TokenReview")
QUESTIONS = (
    ACCESS_REVIEWS,
    LOCAL_ACCESS_REVIEWS,
    OWN_ACCESS_REVIEWS,
    OWN_RULES_REVIEWS,
    OWN_REVIEWS,
    TOKEN_REVIEWS,
)
OFFERED = (*ALL, NEWER_EVENTS, *QUESTIONS)
GROUP_VERSIONS = tuple(sorted({(one.group, one.version) for one in OFFERED}))
BY_ADDRESS = {(one.group, one.version, one.plural): one for one in OFFERED}
BY_QUALIFIED = {one.qualified: one for one in ALL}
BY_KIND = {(one.api_version, one.kind): one for one in ALL}
