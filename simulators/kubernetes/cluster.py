"""What may be done to objects: create, replace, delete, with the bookkeeping that the API promises.

The HTTP side and the controllers write through here; only reading goes past it, to the store.
"""

import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from simulators.kubernetes import (
    defaults,
    errors,
    ownership,
    pod_security,
    quota,
    resources,
    validation,
)
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.objects import (
    Object,
    copied,
    is_finished,
    is_terminating,
    name_of,
    namespace_of,
    now,
    uid_of,
    with_metadata,
)
from simulators.kubernetes.ownership import Manager
from simulators.kubernetes.resources import Resource
from simulators.kubernetes.schemas import Schemas
from simulators.kubernetes.store import Store

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, no words
_SUFFIX_LENGTH = 5
_WITH_GENERATION = (
    resources.JOBS,
    resources.DEPLOYMENTS,
    resources.REPLICA_SETS,
    resources.PODS,
    resources.NETWORK_POLICIES,
)
_KEPT_METADATA = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generateName",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_SERVER_METADATA = (
    "resourceVersion",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
RECORD = "simulator/record"  # marks a pod that is only a record: see `records`
_UNDELETABLE = ("default", "kube-system")
_PROPAGATION_FINALIZERS = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}


@dataclass(frozen=True, kw_only=True)
class Write:
    """Who writes and how. Without a manager it is one of the cluster's own controllers."""

    manager: Manager | None = None
    dry_run: bool = False
    applied: bool = False  # the body's managed fields are the outcome of a server-side apply
    missing: tuple[errors.Cause, ...] = ()  # required fields that decoding did not find
    warnings: list[str] = field(default_factory=list)  # for the one who writes


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """How to delete. Propagation is `Background`, `Foreground` or `Orphan`."""

    grace_seconds: int | None = None
    propagation: str = "Background"
    uid: str = ""
    revision: str = ""
    dry_run: bool = False


OWN = Write()
BACKGROUND = Deletion()


class Cluster:
    """The objects and the rules for changing them."""

    def __init__(self, store: Store, schemas: Schemas, knobs: Knobs | None = None) -> None:
        self.store = store
        self.schemas = schemas
        self._knobs = knobs or Knobs()

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self.store.find(resource, namespace if resource.namespaced else "", name)

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Return the object.

        Raises:
            ApiError: 404.
        """
        found = self.find(resource, namespace, name)
        if found is None:
            raise errors.not_found(resource, name)
        return found

    def create(
        self, resource: Resource, namespace: str, body: Object, write: Write = OWN
    ) -> Object:
        """Create an object: defaults, admission, validation, quota, and only then the store.

        Raises:
            ApiError: 403, 404 (no such namespace), 409 or 422.
        """
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        one = {**copied(body), **kind}
        one["metadata"] = self._new_metadata(resource, namespace, one)
        self._check_namespace(resource, one)
        if write.manager is not None and resource.has_status:
            one.pop("status", None)
        self._admit(resource, one)
        defaults.fill(resource, one)
        validation.check(resource, one, write.missing)
        self._review(resource, one, write)
        quota.enforce(self.store, resource, one)
        if self.find(resource, namespace, name_of(one)) is not None:
            raise errors.already_exists(resource, name_of(one))
        if write.manager is not None and not write.applied:
            schema = self.schemas.definition(resource.definition)
            one = ownership.record_update(self.schemas, schema, None, one, write.manager)
        if write.dry_run:
            return one
        made = self.store.write(resource, one)
        if resource is resources.NAMESPACES:
            self.ensure_account(name_of(made))
        return made

    def _review(self, resource: Resource, one: Object, write: Write) -> None:
        """Do what the validating admission plugins of a usual cluster do to a new object."""
        if resource is resources.PODS:
            quota.check_limit_ranges(self.store, one)
            pod_security.check_pod(self.store, one, write.warnings)
        elif resource is resources.CLAIMS:
            quota.check_claim(self.store, one)
        elif resource is resources.NAMESPACES:
            pod_security.check_namespace(self.store, one, None)
        else:
            pod_security.check_template(self.store, resource, one, write.warnings)

    def ensure_account(self, namespace: str) -> None:
        """Give a namespace the service account that its pods run as."""
        if self.find(resources.SERVICE_ACCOUNTS, namespace, "default") is None:
            self.create(resources.SERVICE_ACCOUNTS, namespace, {"metadata": {"name": "default"}})

    def replace(
        self,
        resource: Resource,
        body: Object,
        write: Write = OWN,
        *,
        subresource: str = "",
    ) -> Object:
        """Put a new version in the place of the object with this namespace and name.

        Raises:
            ApiError: 404, 409 (changed since it was read) or 422.
        """
        old = self.get(resource, namespace_of(body), name_of(body))
        revision = body["metadata"].get("resourceVersion")
        if revision and revision != old["metadata"]["resourceVersion"]:
            raise errors.stale(resource, name_of(old))
        if body["metadata"].get("uid", uid_of(old)) != uid_of(old):
            why = (
                f"Precondition failed: UID in precondition: {body['metadata']['uid']},"
                f" UID in object meta: {uid_of(old)}"
            )
            raise errors.conflict(resource, name_of(old), why)
        new = _next_version(resource, old, copied(body), subresource)
        if not subresource:
            validation.check(resource, new, write.missing)
            validation.check_change(resource, old, new)
            self._review_change(resource, old, new, write)
        new = self._with_managers(resource, old, new, write, body)
        if new == old or write.dry_run:
            return new
        return self._settle(resource, self.store.write(resource, new))

    def _review_change(self, resource: Resource, old: Object, new: Object, write: Write) -> None:
        if resource is resources.NAMESPACES:
            told = pod_security.check_namespace(self.store, new, old)
            write.warnings.extend(told)
        elif resource in (resources.CLAIMS, resources.SERVICES):
            quota.enforce(self.store, resource, new, before=old)
        elif resource is not resources.PODS and new.get("spec") != old.get("spec"):
            pod_security.check_template(self.store, resource, new, write.warnings)

    def write_status(
        self, resource: Resource, one: Object, status: dict[str, Any]
    ) -> Object | None:
        """Let a controller write what it sees; a gone object, or the same status, is no error."""
        current = self.find(resource, namespace_of(one), name_of(one))
        if current is None or uid_of(current) != uid_of(one) or current.get("status") == status:
            return current
        return self.store.write(resource, {**current, "status": status})

    def edit(
        self, resource: Resource, one: Object, change: Callable[[Object], Object]
    ) -> Object | None:
        """Let a controller change an object's newest version; nothing happens when it is gone."""
        current = self.find(resource, namespace_of(one), name_of(one))
        if current is None or uid_of(current) != uid_of(one):
            return None
        changed = change(current)
        if changed == current:
            return current
        if resource in _WITH_GENERATION and changed.get("spec") != current.get("spec"):
            changed = with_metadata(changed, generation=changed["metadata"]["generation"] + 1)
        return self._settle(resource, self.store.write(resource, changed))

    def delete(
        self, resource: Resource, namespace: str, name: str, how: Deletion = BACKGROUND
    ) -> tuple[Object, bool]:
        """Delete an object or begin to; say whether it is gone at once.

        Raises:
            ApiError: 403, 404 or 409 (a precondition does not hold).
        """
        one = self.get(resource, namespace, name)
        _check_preconditions(resource, one, how)
        if resource is resources.NAMESPACES and name in _UNDELETABLE:
            raise errors.forbidden(resource, name, "this namespace may not be deleted")
        marked = _marked(resource, one, how)
        if how.dry_run:
            return marked, False
        if _may_go(resource, marked):
            self.store.remove(resource, namespace_of(one), name)
            return one, True
        return (one if marked == one else self.store.write(resource, marked)), False

    def _settle(self, resource: Resource, one: Object) -> Object:
        """Remove an object whose last finalizer has gone."""
        if is_terminating(one) and _may_go(resource, one):
            self.store.remove(resource, namespace_of(one), name_of(one))
        return one

    def _with_managers(
        self, resource: Resource, old: Object, new: Object, write: Write, body: Object
    ) -> Object:
        if write.applied:
            return with_metadata(new, managedFields=body["metadata"].get("managedFields"))
        if write.manager is None:
            return new
        schema = self.schemas.definition(resource.definition)
        return ownership.record_update(self.schemas, schema, old, new, write.manager)

    def _new_metadata(self, resource: Resource, namespace: str, one: Object) -> dict[str, Any]:
        metadata = {
            key: value
            for key, value in (one.get("metadata") or {}).items()
            if key not in _SERVER_METADATA
        }
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generated_name(resource, namespace, metadata["generateName"])
        if resource.namespaced:
            metadata["namespace"] = namespace
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        if resource in _WITH_GENERATION:
            metadata["generation"] = 1
        return metadata

    def _generated_name(self, resource: Resource, namespace: str, prefix: str) -> str:
        while True:
            letters = "".join(secrets.choice(_NAME_LETTERS) for _ in range(_SUFFIX_LENGTH))
            if self.find(resource, namespace, prefix + letters) is None:
                return prefix + letters

    def _check_namespace(self, resource: Resource, one: Object) -> None:
        if not resource.namespaced:
            return
        namespace = namespace_of(one)
        inside = self.get(resources.NAMESPACES, "", namespace)
        if is_terminating(inside):
            why = (
                f"unable to create new content in namespace {namespace} because it is being"
                " terminated"
            )
            error = errors.forbidden(resource, one["metadata"].get("name", ""), why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details["causes"] = [cause]
            raise error

    def _admit(self, resource: Resource, one: Object) -> None:
        """Do what the mutating admission plugins of a usual cluster do."""
        if resource is resources.PODS:
            if self._knobs.now.records:
                one["metadata"].setdefault("annotations", {}).setdefault(RECORD, "true")
            spec = one.setdefault("spec", {})
            for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
                defaults.limits_become_requests(container.setdefault("resources", {}))
            quota.apply_limit_ranges(self.store, namespace_of(one), spec)
            self._check_account(one)
        elif resource is resources.SERVICES:
            spec = one.setdefault("spec", {})
            if spec.get("type", "ClusterIP") != "ExternalName":
                spec.setdefault("clusterIP", self._free_service_address())
                spec.setdefault("clusterIPs", [spec["clusterIP"]])

    def _check_account(self, pod: Object) -> None:
        account = pod["spec"].get("serviceAccountName", "default")
        if self.find(resources.SERVICE_ACCOUNTS, namespace_of(pod), account) is None:
            why = (
                f"error looking up service account {namespace_of(pod)}/{account}: serviceaccount"
                f' "{account}" not found'
            )
            raise errors.forbidden(resources.PODS, pod["metadata"].get("name", ""), why)

    def _free_service_address(self) -> str:
        """Return an unused address for a service; nothing listens there, pods have real ones."""
        services: Iterable[Object] = self.store.objects(resources.SERVICES)
        taken = {one["spec"].get("clusterIP") for one in services}
        while True:
            address = f"10.96.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
            if address not in taken:
                return address


def _next_version(resource: Resource, old: Object, new: Object, subresource: str) -> Object:
    """Combine what the client sent with what only the server may set."""
    if subresource == "status":
        return {**copied(old), "status": new.get("status", {})}
    if subresource == "finalize":
        return {**copied(old), "spec": new.get("spec", {})}
    metadata = {key: one for key, one in new["metadata"].items() if key not in _KEPT_METADATA}
    metadata |= {key: old["metadata"][key] for key in _KEPT_METADATA if key in old["metadata"]}
    metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
    metadata.pop("managedFields", None)
    metadata.pop("selfLink", None)
    if "managedFields" in old["metadata"]:
        metadata["managedFields"] = old["metadata"]["managedFields"]
    new = {**new, "apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": metadata}
    if resource.has_status and "status" in old:
        new["status"] = old["status"]
    _carry_over(resource, old, new)
    defaults.fill(resource, new)
    if resource in _WITH_GENERATION and new.get("spec") != old.get("spec"):
        metadata["generation"] = old["metadata"].get("generation", 0) + 1
    return new


def _carry_over(resource: Resource, old: Object, new: Object) -> None:
    """Keep what the server allotted when a client sends the object without it."""
    kept = {
        resources.SERVICES: ("clusterIP", "clusterIPs"),
        resources.CLAIMS: ("volumeName",),
        resources.PODS: ("nodeName",),
        resources.NAMESPACES: ("finalizers",),
    }.get(resource, ())
    for part in kept:
        if part in old.get("spec", {}):
            spec = new.setdefault("spec", {})
            spec.setdefault(part, old["spec"][part])


def _check_preconditions(resource: Resource, one: Object, how: Deletion) -> None:
    pairs = (
        ("UID", how.uid, uid_of(one)),
        ("ResourceVersion", how.revision, one["metadata"]["resourceVersion"]),
    )
    for word, wanted, found in pairs:
        if wanted and wanted != found:
            why = (
                f"Precondition failed: {word} in precondition: {wanted},"
                f" {word} in object meta: {found}"
            )
            raise errors.conflict(resource, name_of(one), why)


def _marked(resource: Resource, one: Object, how: Deletion) -> Object:
    """Return the object as its deletion leaves it: with a deletion time, a grace, finalizers."""
    changes: dict[str, Any] = {}
    if not is_terminating(one):
        changes["deletionTimestamp"] = now()
        if "generation" in one["metadata"]:
            changes["generation"] = one["metadata"]["generation"] + 1
        if finalizer := _PROPAGATION_FINALIZERS.get(how.propagation):
            changes["finalizers"] = [*one["metadata"].get("finalizers", ()), finalizer]
    if resource is resources.PODS:
        grace = _pod_grace(one, how.grace_seconds)
        changes["deletionGracePeriodSeconds"] = min(
            grace, one["metadata"].get("deletionGracePeriodSeconds", grace)
        )
    marked = with_metadata(one, **changes)
    if resource is resources.NAMESPACES:
        marked = {**marked, "status": {**one.get("status", {}), "phase": "Terminating"}}
    return marked


def _pod_grace(pod: Object, asked: int | None) -> int:
    if is_finished(pod) or not pod["spec"].get("nodeName"):
        return 0
    return pod["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else max(0, asked)


def _may_go(resource: Resource, one: Object) -> bool:
    if one["metadata"].get("finalizers"):
        return False
    if resource is resources.NAMESPACES:
        return not one.get("spec", {}).get("finalizers")
    if resource is resources.PODS:
        return one["metadata"].get("deletionGracePeriodSeconds", 0) == 0
    return True
