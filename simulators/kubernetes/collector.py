"""The garbage collector: what nobody owns any more goes, and deletions in steps are completed."""

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster, Deletion
from simulators.kubernetes.objects import (
    Object,
    is_terminating,
    name_of,
    namespace_of,
    owners_of,
    uid_of,
    with_metadata,
    without_finalizer,
)
from simulators.kubernetes.resources import Resource

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"


class Collector:
    """Looks at one object, named by kind and place, or at everything that a gone object owned."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def reconcile(self, kind: str, place: str) -> float | None:
        """With a kind, `place` is `namespace/name`; without, the uid of an owner that is gone."""
        if not kind:
            for resource, one in self._dependents(place):
                self._collect_orphan(resource, one)
            return None
        resource = resources.BY_QUALIFIED[kind]
        namespace, _, name = place.partition("/")
        one = self._cluster.find(resource, namespace, name)
        if one is None:
            return None
        self._collect_orphan(resource, one)
        if is_terminating(one):
            self._complete(resource, one)
        for owner in owners_of(one):
            self._look_at_owner(namespace, owner)
        return None

    def _dependents(self, uid: str) -> list[tuple[Resource, Object]]:
        return self._cluster.store.owned_by(uid)

    def _owner(self, namespace: str, reference: dict[str, str]) -> tuple[Resource, Object] | None:
        resource = resources.BY_KIND.get((reference["apiVersion"], reference["kind"]))
        if resource is None:
            return None
        found = self._cluster.find(resource, namespace, reference["name"])
        if found is None or uid_of(found) != reference["uid"]:
            return None
        return resource, found

    def _collect_orphan(self, resource: Resource, one: Object) -> None:
        """Delete an object all of whose owners are gone."""
        owners = owners_of(one)
        if not owners or is_terminating(one):
            return
        if not any(self._owner(namespace_of(one), owner) for owner in owners):
            how = Deletion(uid=uid_of(one))
            self._cluster.delete(resource, namespace_of(one), name_of(one), how)

    def _look_at_owner(self, namespace: str, reference: dict[str, str]) -> None:
        found = self._owner(namespace, reference)
        if found is not None and is_terminating(found[1]):
            self._complete(*found)

    def _complete(self, resource: Resource, one: Object) -> None:
        finalizers = one["metadata"].get("finalizers") or ()
        if ORPHAN in finalizers:
            self._set_free(one)
            self._cluster.edit(resource, one, lambda each: without_finalizer(each, ORPHAN))
        elif FOREGROUND in finalizers:
            left = self._dependents(uid_of(one))
            for dependent_resource, dependent in left:
                if not is_terminating(dependent):
                    how = Deletion(uid=uid_of(dependent), propagation="Foreground")
                    place = (namespace_of(dependent), name_of(dependent))
                    self._cluster.delete(dependent_resource, *place, how)
            if not left:
                self._cluster.edit(resource, one, lambda each: without_finalizer(each, FOREGROUND))

    def _set_free(self, owner: Object) -> None:
        for resource, dependent in self._dependents(uid_of(owner)):
            left = [each for each in owners_of(dependent) if each["uid"] != uid_of(owner)]
            self._cluster.edit(
                resource,
                dependent,
                lambda each, left=left: with_metadata(each, ownerReferences=left or None),
            )
