"""What any cluster promises about objects; runs against a real one where TEST_KUBECONFIG is set."""

import itertools
import json
import threading
import time
from typing import Any

import httpx
import pytest
from kubernetes import client, watch

from tests.contracts.kubernetes_clusters import claim, deployment, pod, refused
from tests.contracts.simulator_process import TOKEN, eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
APPLY = "application/apply-patch+yaml"
NO_PODS = {"replicas": 0}


def secret(name, **data):
    return {"metadata": {"name": name, "labels": {"tier": "a"}}, "stringData": data}


def config_map(name, data=None, **metadata):
    return {"metadata": {"name": name, **metadata}, "data": data or {"key": "value"}}


def apply_config_map(cluster, namespace, data, manager, **more):
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("applied", data)}
    return cluster.core.patch_namespaced_config_map(
        "applied", namespace, body, field_manager=manager, _content_type=APPLY, **more
    )


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
    batch = client.BatchV1Api(simulator.api)
    code, reason, message = refused(lambda: batch.list_namespaced_job(namespace))
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


def test_a_watch_takes_up_where_it_was_left(cluster, namespace):
    since = cluster.core.list_namespaced_secret(namespace).metadata.resource_version
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    cluster.core.patch_namespaced_secret("one", namespace, {"stringData": {"a": "b"}})
    cluster.core.delete_namespaced_secret("one", namespace)
    events = watch.Watch().stream(
        cluster.core.list_namespaced_secret, namespace, resource_version=since, timeout_seconds=5
    )
    assert [one["type"] for one in itertools.islice(events, 3)] == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watch_with_a_selector_sees_objects_come_and_go(cluster, namespace):
    since = cluster.core.list_namespaced_config_map(namespace).metadata.resource_version
    cluster.core.create_namespaced_config_map(namespace, config_map("one"))
    for value in ("a", None):
        body = {"metadata": {"labels": {"tier": value}}}
        cluster.core.patch_namespaced_config_map("one", namespace, body)
    events = watch.Watch().stream(
        cluster.core.list_namespaced_config_map,
        namespace,
        resource_version=since,
        label_selector="tier=a",
        timeout_seconds=5,
    )
    assert [one["type"] for one in itertools.islice(events, 2)] == ["ADDED", "DELETED"]


def test_a_waiting_watch_hears_at_once(cluster, namespace):
    heard = []

    def listen():
        events = watch.Watch().stream(
            cluster.core.list_namespaced_secret, namespace, timeout_seconds=5
        )
        heard.append((next(events)["object"].metadata.name, time.monotonic()))

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.3)  # let the watch be open: nothing tells when it is
    begun = time.monotonic()
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    thread.join(timeout=6)
    assert heard[0][0] == "one"
    assert heard[0][1] - begun < 1


def test_a_watch_from_a_forgotten_revision_is_told_to_list_again(simulator, namespace):
    text = simulator.core.list_namespaced_secret(
        namespace,
        resource_version="987654321",
        watch=True,
        timeout_seconds=2,
        _preload_content=False,
    ).data
    event = json.loads(text.splitlines()[0])
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == (
        "ERROR",
        410,
        "Expired",
    )


def test_a_watch_that_asks_for_bookmarks_gets_them(cluster, namespace):
    text = cluster.core.list_namespaced_secret(
        namespace,
        watch=True,
        allow_watch_bookmarks=True,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        timeout_seconds=1,
        _preload_content=False,
    ).data
    last = json.loads(text.splitlines()[0])
    assert last["type"] == "BOOKMARK"
    assert last["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


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


def used(cluster, namespace):
    status = cluster.core.read_namespaced_resource_quota("q", namespace).status
    return status and status.used


def test_status_is_changed_through_its_own_address_only(cluster, namespace):
    cluster.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}}
    )
    body = {"metadata": {"labels": {"a": "b"}}, "status": {"hard": {"pods": "9"}}}
    eventually(lambda: used(cluster, namespace))
    found = cluster.core.patch_namespaced_resource_quota("q", namespace, body)
    assert (found.metadata.labels, found.status.hard) == ({"a": "b"}, {"pods": "2"})


def test_a_quota_refuses_one_pod_too_many(cluster, namespace):
    hard = {"pods": "1", "limits.memory": "1Gi"}
    cluster.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    )
    eventually(lambda: used(cluster, namespace))
    code, reason, message = refused(
        lambda: cluster.core.create_namespaced_pod(namespace, pod("unstated"))
    )
    assert (code, reason) == (403, "Forbidden")
    assert "failed quota: q: must specify limits.memory for: agent" in message
    wanted = {"resources": {"limits": {"memory": "512Mi"}}}
    cluster.core.create_namespaced_pod(namespace, pod("one", **wanted))
    code, reason, message = refused(
        lambda: cluster.core.create_namespaced_pod(namespace, pod("two", **wanted))
    )
    assert (code, reason) == (403, "Forbidden")
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in message
    wanted = {"pods": "1", "limits.memory": "512Mi"}
    eventually(lambda: used(cluster, namespace) == wanted)


def test_a_limit_range_gives_defaults_and_bounds(cluster, namespace):
    limit = {
        "type": "Container",
        "default": {"memory": "256Mi"},
        "defaultRequest": {"memory": "64Mi"},
        "max": {"memory": "1Gi"},
    }
    body = {"metadata": {"name": "l"}, "spec": {"limits": [limit]}}
    cluster.core.create_namespaced_limit_range(namespace, body)
    made = cluster.core.create_namespaced_pod(namespace, pod("one"))
    resources = made.spec.containers[0].resources
    assert (resources.limits, resources.requests) == ({"memory": "256Mi"}, {"memory": "64Mi"})
    too_big = pod("two", resources={"limits": {"memory": "2Gi"}})
    code, reason, message = refused(lambda: cluster.core.create_namespaced_pod(namespace, too_big))
    assert (code, reason) == (403, "Forbidden")
    assert "maximum memory usage per Container is 1Gi, but limit is 2Gi" in message


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


def test_protobuf_is_refused_with_a_way_out(simulator):
    answer = httpx.post(
        simulator.simulator.url + "/api/v1/namespaces",
        content=b"k8s\x00",
        headers={
            "content-type": "application/vnd.kubernetes.protobuf",
            "authorization": f"Bearer {TOKEN}",
        },
        trust_env=False,
    )
    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")
    assert "kubectl apply -f" in answer.json()["message"]
