"""Every way to change a part of an object, against the simulator or a real cluster."""

from typing import Any

import pytest
from kubernetes import client

from tests.contracts.kubernetes_bodies import config_map, secret
from tests.contracts.kubernetes_clusters import deployment, refused

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
APPLY = "application/apply-patch+yaml"


def apply_config_map(cluster, namespace, data, manager, **more):
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("applied", data)}
    return cluster.core.patch_namespaced_config_map(
        "applied", namespace, body, field_manager=manager, _content_type=APPLY, **more
    )


def test_a_json_patch_changes_exactly_its_paths(cluster, namespace):
    cluster.core.create_namespaced_config_map(namespace, config_map("one"))
    patch = [
        {"op": "test", "path": "/data/key", "value": "value"},
        {"op": "add", "path": "/data/a~1b", "value": "1"},
        {"op": "remove", "path": "/data/key"},
    ]
    kind = "application/json-patch+json"
    with pytest.raises(client.exceptions.ApiException):  # a key may hold no slash
        cluster.core.patch_namespaced_config_map("one", namespace, patch, _content_type=kind)
    patch[1]["path"] = "/data/ab"
    found = cluster.core.patch_namespaced_config_map("one", namespace, patch, _content_type=kind)
    assert found.data == {"ab": "1"}


def test_a_merge_patch_replaces_lists_and_a_strategic_one_merges_them(cluster, namespace):
    cluster.apps.create_namespaced_deployment(namespace, deployment("d", 0, env={"A": "1"}))
    container = {"name": "agent", "env": [{"name": "B", "value": "2"}]}
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    found = cluster.apps.patch_namespaced_deployment(
        "d", namespace, body, _content_type="application/strategic-merge-patch+json"
    )
    merged = found.spec.template.spec.containers[0]
    assert {one.name for one in merged.env} == {"A", "B"}
    assert merged.image == "agent:1"
    container["image"] = "agent:1"
    found = cluster.apps.patch_namespaced_deployment(
        "d", namespace, body, _content_type="application/merge-patch+json"
    )
    assert [one.name for one in found.spec.template.spec.containers[0].env] == ["B"]


def test_a_strategic_patch_obeys_its_directives(cluster, namespace):
    body = deployment("d", 0, env={"A": "1", "B": "2"}, strategy={"type": "RollingUpdate"})
    cluster.apps.create_namespaced_deployment(namespace, body)
    order = [{"name": "C"}, {"name": "B"}]
    env = [{"name": "A", "$patch": "delete"}, {"name": "C", "value": "3"}]
    container = {"name": "agent", "env": env, "$setElementOrder/env": order}
    spec = {"template": {"spec": {"containers": [container]}}}
    spec["strategy"] = {"$retainKeys": ["type"], "type": "Recreate"}
    custom: Any = client.CustomObjectsApi(cluster.api)
    found = custom.patch_namespaced_custom_object(
        "apps",
        "v1",
        namespace,
        "deployments",
        "d",
        {"spec": spec},
        _content_type="application/strategic-merge-patch+json",
    )
    patched = found["spec"]["template"]["spec"]["containers"][0]["env"]
    assert patched == [{"name": "C", "value": "3"}, {"name": "B", "value": "2"}]
    assert found["spec"]["strategy"] == {"type": "Recreate"}


def test_an_apply_makes_owns_and_drops_fields(cluster, namespace):
    made = apply_config_map(cluster, namespace, {"a": "1", "b": "2"}, "operator")
    owner = made.metadata.managed_fields[0]
    assert (owner.manager, owner.operation) == ("operator", "Apply")
    assert owner.fields_v1["f:data"].keys() >= {"f:a", "f:b"}
    cluster.core.patch_namespaced_config_map(
        "applied", namespace, {"data": {"c": "3"}}, field_manager="human"
    )
    found = apply_config_map(cluster, namespace, {"a": "1"}, "operator")
    assert found.data == {"a": "1", "c": "3"}


def test_a_repeated_apply_changes_nothing(cluster, namespace):
    first = apply_config_map(cluster, namespace, {"a": "1"}, "operator")
    second = apply_config_map(cluster, namespace, {"a": "1"}, "operator")
    assert first.metadata.resource_version == second.metadata.resource_version


def test_an_apply_over_somebody_elses_value_conflicts_unless_forced(cluster, namespace):
    apply_config_map(cluster, namespace, {"a": "1"}, "operator")
    body = {"data": {"a": "human"}}
    cluster.core.patch_namespaced_config_map("applied", namespace, body, field_manager="human")
    code, reason, message = refused(
        lambda: apply_config_map(cluster, namespace, {"a": "1"}, "operator")
    )
    assert (code, reason) == (409, "Conflict")
    assert 'conflict with "human"' in message
    assert ".data.a" in message
    found = apply_config_map(cluster, namespace, {"a": "1"}, "operator", force=True)
    assert found.data == {"a": "1"}


def test_an_apply_of_a_deployment_drops_a_probe_with_its_defaults(cluster, namespace):
    def applied(body):
        return cluster.apps.patch_namespaced_deployment(
            "d", namespace, body, field_manager="operator", force=True, _content_type=APPLY
        )

    applied(deployment("d", 0))
    body = deployment("d", 0)
    del body["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    found = applied(body)
    assert found.spec.template.spec.containers[0].readiness_probe is None
    assert found.spec.template.spec.containers[0].ports[0].container_port == 8080


def test_a_dry_run_answers_but_keeps_nothing(cluster, namespace):
    made = cluster.core.create_namespaced_secret(namespace, secret("dry"), dry_run="All")
    assert made.metadata.uid
    assert refused(lambda: cluster.core.read_namespaced_secret("dry", namespace))[0] == 404
    cluster.core.create_namespaced_secret(namespace, secret("wet", a="1"))
    body = {"stringData": {"a": "2"}}
    cluster.core.patch_namespaced_secret("wet", namespace, body, dry_run="All")
    assert cluster.core.read_namespaced_secret("wet", namespace).data == {"a": "MQ=="}
    cluster.core.delete_namespaced_secret("wet", namespace, dry_run="All")
    assert cluster.core.read_namespaced_secret("wet", namespace)


def test_a_misspelt_field_is_refused_when_strict_and_dropped_when_not(cluster, namespace):
    body = deployment("d", 0)
    body["spec"]["replcas"] = 3

    code, reason, message = refused(lambda: cluster.create_unchecked(namespace, body, "Strict"))
    assert (code, reason) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.replcas"' in message
    made = cluster.create_unchecked(namespace, body, "Ignore")
    assert "replcas" not in made["spec"]


def test_a_wrong_type_is_refused(cluster, namespace):
    body = deployment("d", 0)
    body["spec"]["replicas"] = "three"
    code, reason, message = refused(lambda: cluster.create_unchecked(namespace, body))
    assert (code, reason) == (400, "BadRequest")
    assert "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas" in message
