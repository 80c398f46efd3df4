"""Roles: who may do what, refused and asked in the words of a real cluster."""

from typing import Any

import pytest
from kubernetes import client

from tests.contracts.kubernetes_bodies import config_map, secret
from tests.contracts.kubernetes_clusters import pod, refused, with_token

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
RBAC = "rbac.authorization.k8s.io"
READ_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}


def role(name, *rules):
    return {"metadata": {"name": name}, "rules": list(rules)}


def binding(name, *subjects, kind="Role"):
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
        "subjects": list(subjects),
    }


def account_subject(namespace, name="operator"):
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def account(cluster, namespace, *rules):
    """Make a service account with a role of these rules, and return the cluster as it sees it."""
    cluster.core.create_namespaced_service_account(namespace, {"metadata": {"name": "operator"}})
    rbac: Any = client.RbacAuthorizationV1Api(cluster.api)
    rbac.create_namespaced_role(namespace, role("operator", *rules))
    body = binding("operator", account_subject(namespace))
    rbac.create_namespaced_role_binding(namespace, body)
    made = cluster.core.create_namespaced_service_account_token(
        "operator", namespace, {"spec": {"audiences": [], "expirationSeconds": 3600}}
    )
    return with_token(cluster, made.status.token)


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(cluster, namespace):
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    seen = account(cluster, namespace, READ_PODS)
    assert seen.core.list_namespaced_pod(namespace).items == []
    name = f"system:serviceaccount:{namespace}:operator"
    found = refused(lambda: seen.core.read_namespaced_secret("one", namespace))
    assert found[:2] == (403, "Forbidden")
    assert found[2] == (
        f'secrets "one" is forbidden: User "{name}" cannot get resource "secrets" in API group ""'
        f' in the namespace "{namespace}"'
    )
    assert refused(seen.core.list_pod_for_all_namespaces)[2] == (
        f'pods is forbidden: User "{name}" cannot list resource "pods" in API group "" at the'
        " cluster scope"
    )


def test_a_subresource_needs_a_right_of_its_own(cluster, namespace):
    cluster.core.create_namespaced_pod(namespace, pod("one"))
    seen = account(cluster, namespace, READ_PODS)
    assert seen.core.read_namespaced_pod("one", namespace)
    message = refused(lambda: seen.core.read_namespaced_pod_log("one", namespace))[2]
    assert 'cannot get resource "pods/log" in API group ""' in message


def test_a_right_can_be_for_named_objects_only(cluster, namespace):
    for name in ("mine", "other"):
        cluster.core.create_namespaced_config_map(namespace, config_map(name))
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    seen = account(cluster, namespace, {**rule, "resourceNames": ["mine"]})
    assert seen.core.read_namespaced_config_map("mine", namespace)
    assert refused(lambda: seen.core.read_namespaced_config_map("other", namespace))[0] == 403


def test_an_apply_of_something_new_needs_the_right_to_create_it(cluster, namespace):
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}
    seen = account(cluster, namespace, rule)
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("new")}

    def apply():
        return seen.core.patch_namespaced_config_map(
            "new",
            namespace,
            body,
            field_manager="me",
            _content_type="application/apply-patch+yaml",
        )

    assert "cannot create resource" in refused(apply)[2]
    cluster.core.create_namespaced_config_map(namespace, config_map("new"))
    assert apply().metadata.name == "new"


def test_a_cluster_role_bound_in_a_namespace_counts_there_only(cluster, namespace):
    seen = account(cluster, namespace)
    rbac: Any = client.RbacAuthorizationV1Api(cluster.api)
    body = binding("view", account_subject(namespace), kind="ClusterRole")
    rbac.create_namespaced_role_binding(namespace, body)
    assert seen.core.list_namespaced_pod(namespace).items == []
    assert refused(lambda: seen.core.list_namespaced_pod("default"))[0] == 403
    assert refused(lambda: seen.core.list_namespaced_secret(namespace))[0] == 403


def test_nobody_gives_away_more_than_they_have(cluster, namespace):
    rule = {"apiGroups": [RBAC], "resources": ["roles"], "verbs": ["create"]}
    seen = account(cluster, namespace, READ_PODS, rule)
    rbac: Any = client.RbacAuthorizationV1Api(seen.api)
    assert rbac.create_namespaced_role(namespace, role("same", READ_PODS))
    wider = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    message = refused(lambda: rbac.create_namespaced_role(namespace, role("wider", wider)))[2]
    assert "is attempting to grant RBAC permissions not currently held" in message
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in message


def test_a_binding_cannot_be_turned_to_another_role(cluster, namespace):
    rbac: Any = client.RbacAuthorizationV1Api(cluster.api)
    rbac.create_namespaced_role_binding(namespace, binding("one"))
    body = {"roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "two"}}
    code, _, message = refused(lambda: rbac.patch_namespaced_role_binding("one", namespace, body))
    assert (code, "cannot change roleRef" in message) == (422, True)


def asked(cluster, namespace, verb, resource):
    attributes = {"namespace": namespace, "verb": verb, "resource": resource}
    authorization: Any = client.AuthorizationV1Api(cluster.api)
    made = authorization.create_self_subject_access_review(
        {"spec": {"resourceAttributes": attributes}}
    )
    return made.status


def test_anybody_may_ask_what_they_may_do(cluster, namespace):
    seen = account(cluster, namespace, READ_PODS)
    assert asked(seen, namespace, "list", "pods").allowed
    assert "RBAC: allowed by RoleBinding" in asked(seen, namespace, "list", "pods").reason
    assert not asked(seen, namespace, "delete", "pods").allowed
    assert asked(cluster, namespace, "delete", "pods").allowed


def test_the_rights_of_others_can_be_asked_for(cluster, namespace):
    account(cluster, namespace, READ_PODS)
    authorization: Any = client.AuthorizationV1Api(cluster.api)

    def allowed(verb):
        spec = {
            "user": f"system:serviceaccount:{namespace}:operator",
            "resourceAttributes": {"namespace": namespace, "verb": verb, "resource": "pods"},
        }
        return authorization.create_subject_access_review({"spec": spec}).status.allowed

    assert (allowed("get"), allowed("delete")) == (True, False)


def test_a_deleted_account_takes_its_tokens_along(cluster, namespace):
    seen = account(cluster, namespace, READ_PODS)
    cluster.core.delete_namespaced_service_account("operator", namespace)
    assert refused(lambda: seen.core.list_namespaced_pod(namespace))[:2] == (401, "Unauthorized")


def test_users_and_groups_get_tokens_for_tests(simulator, namespace, control):
    rbac: Any = client.RbacAuthorizationV1Api(simulator.api)
    rbac.create_namespaced_role(namespace, role("readers", READ_PODS))
    group = {"kind": "Group", "name": "readers"}
    rbac.create_namespaced_role_binding(namespace, binding("readers", group))
    reader = with_token(simulator, control.token("jane", "readers"))
    assert reader.core.list_namespaced_pod(namespace).items == []
    other = with_token(simulator, control.token("john"))
    assert (
        'User "john" cannot list resource "pods"'
        in (refused(lambda: other.core.list_namespaced_pod(namespace))[2])
    )


@pytest.mark.parametrize("token", ["", "wrong", "a.b.c", "x.y."])
def test_a_token_that_is_none_opens_nothing(simulator, token):
    seen = with_token(simulator, token)
    assert refused(seen.core.list_namespace)[0] == 401
