"""What any cluster promises about objects; runs against a real one where TEST_KUBECONFIG is set."""

import httpx
import pytest
from kubernetes import client

from tests.contracts.kubernetes_bodies import config_map, secret
from tests.contracts.kubernetes_clusters import claim, deployment, refused
from tests.contracts.simulator_process import eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
NO_PODS = {"replicas": 0}


def test_a_second_object_of_the_same_name_is_refused(cluster, namespace):
    cluster.core.create_namespaced_config_map(namespace, config_map("one"))
    code, reason, message = refused(
        lambda: cluster.core.create_namespaced_config_map(namespace, config_map("one"))
    )
    assert (code, reason, message) == (409, "AlreadyExists", 'configmaps "one" already exists')


def test_what_is_not_there_is_said_by_name(cluster, namespace):
    found = refused(lambda: cluster.core.read_namespaced_secret("none", namespace))
    assert found == (404, "NotFound", 'secrets "none" not found')


def test_an_unknown_kind_is_not_found(simulator, namespace):
    apps = client.AppsV1Api(simulator.api)
    code, reason, message = refused(lambda: apps.list_namespaced_stateful_set(namespace))
    assert (code, reason) == (404, "NotFound")
    assert message == "the server could not find the requested resource"


def test_plain_secret_data_is_stored_encoded(cluster, namespace):
    cluster.core.create_namespaced_secret(namespace, secret("s", token="abc"))  # noqa: S106 - a test
    found = cluster.core.read_namespaced_secret("s", namespace)
    assert (found.data, found.string_data, found.type) == ({"token": "YWJj"}, None, "Opaque")


def test_a_write_from_an_old_reading_is_refused(cluster, namespace):
    old = cluster.core.create_namespaced_config_map(namespace, config_map("one"))
    cluster.core.patch_namespaced_config_map("one", namespace, {"data": {"key": "new"}})
    code, reason, _ = refused(
        lambda: cluster.core.replace_namespaced_config_map("one", namespace, old)
    )
    assert (code, reason) == (409, "Conflict")


def test_only_a_changed_spec_raises_the_generation(cluster, namespace):
    made = cluster.apps.create_namespaced_deployment(namespace, deployment("d", 0))
    assert made.metadata.generation == 1
    labelled = {"metadata": {"labels": {"a": "b"}}}
    cluster.apps.patch_namespaced_deployment("d", namespace, labelled)
    found = cluster.apps.patch_namespaced_deployment("d", namespace, {"spec": {"paused": True}})
    assert found.metadata.generation == 2


def test_a_write_that_changes_nothing_keeps_the_revision(cluster, namespace):
    made = cluster.core.create_namespaced_config_map(namespace, config_map("one"))
    again = cluster.core.patch_namespaced_config_map("one", namespace, {"data": {"key": "value"}})
    assert again.metadata.resource_version == made.metadata.resource_version


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=a", ["one"]),
        ("tier!=a", ["two"]),
        ("tier in (a, b)", ["one", "two"]),
        ("tier notin (a)", ["two"]),
        ("!extra", ["one"]),
        ("extra,tier==b", ["two"]),
    ],
)
def test_labels_select(cluster, namespace, selector, names):
    for name, labels in (("one", {"tier": "a"}), ("two", {"tier": "b", "extra": "x"})):
        cluster.core.create_namespaced_config_map(namespace, config_map(name, labels=labels))
    found = cluster.core.list_namespaced_config_map(namespace, label_selector=selector).items
    named = [one.metadata.name for one in found if one.metadata.name != "kube-root-ca.crt"]
    assert named == names


def test_fields_select_and_unknown_ones_are_refused(cluster, namespace):
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    cluster.core.create_namespaced_secret(namespace, secret("two"))
    by_name = "metadata.name=two"
    found = cluster.core.list_namespaced_secret(namespace, field_selector=by_name)
    assert [one.metadata.name for one in found.items] == ["two"]
    code, reason, message = refused(
        lambda: cluster.core.list_namespaced_secret(namespace, field_selector="spec.x=1")
    )
    assert (code, reason) == (400, "BadRequest")
    assert "field label not supported: spec.x" in message


def test_a_long_list_comes_in_pages(cluster, namespace):
    for number in range(5):
        cluster.core.create_namespaced_secret(namespace, secret(f"s{number}"))
    names, token = [], None
    for _ in range(3):
        page = cluster.core.list_namespaced_secret(namespace, limit=2, _continue=token)
        names += [one.metadata.name for one in page.items]
        token = page.metadata._continue  # noqa: SLF001 - the client's name for `continue`
    assert (names, token) == ([f"s{number}" for number in range(5)], None)


def test_an_invalid_object_is_refused_with_its_causes(cluster, namespace):
    body = deployment("d", 0)
    body["spec"]["template"]["metadata"]["labels"] = {"other": "label"}
    code, reason, message = refused(
        lambda: cluster.apps.create_namespaced_deployment(namespace, body)
    )
    assert (code, reason) == (422, "Invalid")
    assert message.startswith('Deployment.apps "d" is invalid: spec.template.metadata.labels')


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "x" * 254])
def test_bad_names_are_refused(cluster, namespace, name):
    code, reason, _ = refused(
        lambda: cluster.core.create_namespaced_secret(namespace, secret(name))
    )
    assert (code, reason) == (422, "Invalid")


def test_a_selector_and_a_finished_spec_cannot_be_changed(cluster, namespace):
    cluster.apps.create_namespaced_deployment(namespace, deployment("d", 0))
    labels = {"app": "other"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
    body = {"spec": spec}
    code, reason, message = refused(
        lambda: cluster.apps.patch_namespaced_deployment(
            "d", namespace, body, _content_type="application/merge-patch+json"
        )
    )
    assert (code, reason) == (422, "Invalid")
    assert "field is immutable" in message


def test_replicas_are_read_and_set_through_the_scale(cluster, namespace):
    cluster.apps.create_namespaced_deployment(namespace, deployment("d", 0))
    before = cluster.apps.read_namespaced_deployment_scale("d", namespace)
    assert (before.spec.replicas, before.status.selector) == (0, "app=d")
    cluster.apps.patch_namespaced_deployment("d", namespace, {"spec": {"paused": True}})
    cluster.apps.patch_namespaced_deployment_scale("d", namespace, {"spec": NO_PODS})
    assert cluster.apps.read_namespaced_deployment("d", namespace).spec.replicas == 0


def test_nothing_can_be_made_in_a_namespace_that_is_not_there(cluster):
    found = refused(lambda: cluster.core.create_namespaced_secret("nowhere", secret("one")))
    assert found == (404, "NotFound", 'namespaces "nowhere" not found')


def test_a_claim_is_bound_to_a_volume(cluster, namespace):
    cluster.core.create_namespaced_persistent_volume_claim(namespace, claim())
    if cluster.simulator is None:
        pytest.skip("a real cluster may wait for the first pod")
    found = eventually(
        lambda: next(
            (
                one
                for one in cluster.core.list_namespaced_persistent_volume_claim(namespace).items
                if one.status.phase == "Bound"
            ),
            None,
        )
    )
    volume = cluster.core.read_persistent_volume(found.spec.volume_name)
    assert (volume.status.phase, volume.spec.claim_ref.uid) == ("Bound", found.metadata.uid)


def test_without_the_token_nothing_is_told(simulator):
    for path in ("/api", "/apis/apps/v1", "/version", "/openapi/v3"):
        answer = httpx.get(simulator.simulator.url + path, trust_env=False)
        assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    assert httpx.get(simulator.simulator.url + "/readyz", trust_env=False).text == "ok"
