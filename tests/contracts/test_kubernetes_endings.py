"""Deletions in steps: finalizers, owners, collections, namespaces."""

import pytest

from tests.contracts.kubernetes_bodies import config_map, secret
from tests.contracts.kubernetes_clusters import REAL, deployment, refused
from tests.contracts.simulator_process import eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
APPLY = "application/apply-patch+yaml"


def test_an_object_with_a_finalizer_stays_until_it_is_taken_off(cluster, namespace):
    body = config_map("held", finalizers=["example.com/hold"])
    cluster.core.create_namespaced_config_map(namespace, body)
    cluster.core.delete_namespaced_config_map("held", namespace)
    held = cluster.core.read_namespaced_config_map("held", namespace)
    assert held.metadata.deletion_timestamp
    cluster.core.patch_namespaced_config_map(
        "held",
        namespace,
        {"metadata": {"finalizers": None}},
        _content_type="application/merge-patch+json",
    )
    assert refused(lambda: cluster.core.read_namespaced_config_map("held", namespace))[0] == 404


def owned_by(owner, **more):
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "blockOwnerDeletion": True}
    reference |= {"name": owner.metadata.name, "uid": owner.metadata.uid}
    return {"ownerReferences": [reference], **more}


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_what_an_object_owns_goes_with_it_unless_set_free(cluster, namespace, policy):
    owner = cluster.core.create_namespaced_config_map(namespace, config_map("owner"))
    cluster.core.create_namespaced_config_map(namespace, config_map("child", **owned_by(owner)))
    cluster.core.delete_namespaced_config_map("owner", namespace, propagation_policy=policy)

    def left():
        found = cluster.core.list_namespaced_config_map(namespace).items
        return {one.metadata.name for one in found} - {"kube-root-ca.crt"}

    eventually(lambda: left() == ({"child"} if policy == "Orphan" else set()))


def test_a_deletion_with_another_uid_is_refused(cluster, namespace):
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    options = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    code, reason, _ = refused(
        lambda: cluster.core.delete_namespaced_secret("one", namespace, body=options)
    )
    assert (code, reason) == (409, "Conflict")


def test_a_collection_is_deleted_by_selector(cluster, namespace):
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    cluster.core.create_namespaced_secret(namespace, {"metadata": {"name": "two"}})
    cluster.core.delete_collection_namespaced_secret(namespace, label_selector="tier=a")
    found = cluster.core.list_namespaced_secret(namespace).items
    assert [one.metadata.name for one in found] == ["two"]


def test_an_ending_namespace_takes_everything_along_and_takes_nothing_new(cluster, namespace):
    cluster.core.create_namespaced_config_map(
        namespace, config_map("held", finalizers=["example.com/hold"])
    )
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    cluster.core.delete_namespace(namespace)
    assert cluster.core.read_namespace(namespace).status.phase == "Terminating"
    code, reason, message = refused(
        lambda: cluster.core.create_namespaced_secret(namespace, secret("two"))
    )
    assert (code, reason) == (403, "Forbidden")
    assert "because it is being terminated" in message
    body = {"metadata": {"finalizers": None}}
    cluster.core.patch_namespaced_config_map("held", namespace, body)

    def is_gone():
        found = cluster.core.list_namespace(field_selector=f"metadata.name={namespace}").items
        return not found

    eventually(is_gone, 30)


def test_an_ending_namespace_says_what_holds_it(cluster, namespace):
    body = config_map("held", finalizers=["example.com/hold"])
    cluster.core.create_namespaced_config_map(namespace, body)
    cluster.core.delete_namespace(namespace)

    def conditions():
        found = cluster.core.read_namespace(namespace).status.conditions or []
        return {one.type: one for one in found if one.status == "True"}

    told = eventually(lambda: "NamespaceFinalizersRemaining" in conditions() and conditions())
    message = told["NamespaceFinalizersRemaining"].message
    assert message == (
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource"
        " instances"
    )
    assert "configmaps. has" in told["NamespaceContentRemaining"].message
    patch = {"metadata": {"finalizers": None}}
    cluster.core.patch_namespaced_config_map("held", namespace, patch)
    by_name = f"metadata.name={namespace}"
    eventually(lambda: not cluster.core.list_namespace(field_selector=by_name).items, 30)


@pytest.mark.skipif(bool(REAL), reason="needs the simulator's image")
def test_a_deployment_deleted_in_the_foreground_waits_for_its_pods(simulator, namespace):
    simulator.apps.create_namespaced_deployment(namespace, deployment("d"))
    simulator.ready_pod(namespace)
    simulator.apps.delete_namespaced_deployment("d", namespace, propagation_policy="Foreground")
    assert simulator.apps.read_namespaced_deployment("d", namespace).metadata.deletion_timestamp
    eventually(lambda: not simulator.apps.list_namespaced_deployment(namespace).items)
    assert not simulator.pods(namespace)
