"""Pod Security Standards as a namespace's labels ask for them, in the words of a real cluster."""

import httpx
import pytest

from simulators.kubernetes import pod_security
from tests.contracts.kubernetes_clusters import deployment, pod, refused
from tests.contracts.simulator_process import TOKEN

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
PREFIX = "pod-security.kubernetes.io/"
SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
LACKING = (
    'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "agent"'
    " must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities"
    ' (container "agent" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true'
    ' (pod or container "agent" must set securityContext.runAsNonRoot=true), seccompProfile (pod or'
    ' container "agent" must set securityContext.seccompProfile.type to "RuntimeDefault" or'
    ' "Localhost")'
)


def label(cluster, namespace, **modes):
    labels = {PREFIX + mode: level for mode, level in modes.items()}
    cluster.core.patch_namespace(namespace, {"metadata": {"labels": labels}})


def test_a_restricted_namespace_refuses_a_pod_with_every_rule_it_breaks(cluster, namespace):
    label(cluster, namespace, enforce="restricted")
    found = refused(lambda: cluster.core.create_namespaced_pod(namespace, pod("one")))
    assert found == (403, "Forbidden", f'pods "one" is forbidden: {LACKING}')


def test_a_restricted_namespace_takes_a_pod_that_obeys(cluster, namespace):
    label(cluster, namespace, enforce="restricted")
    made = cluster.core.create_namespaced_pod(namespace, pod("one", securityContext=SAFE))
    assert made.metadata.uid


def test_a_refused_pod_is_told_on_its_replica_set(cluster, namespace):
    label(cluster, namespace, enforce="restricted")
    cluster.apps.create_namespaced_deployment(namespace, deployment("d"))
    assert cluster.eventually_told(namespace, "FailedCreate", "violates PodSecurity")


def test_what_would_be_refused_is_warned_about(cluster, namespace):
    label(cluster, namespace, warn="restricted")
    for _, _, headers in (
        cluster.core.create_namespaced_pod_with_http_info(namespace, pod("one")),
        cluster.apps.create_namespaced_deployment_with_http_info(namespace, deployment("d", 0)),
    ):
        told = headers["warning"]
        assert told.startswith("299 - ")
        assert 'would violate PodSecurity \\"restricted:latest\\": allowPrivilege' in told


def test_a_stricter_level_warns_about_pods_that_are_there(simulator, namespace):
    simulator.core.create_namespaced_pod(namespace, pod("one"))
    answer = httpx.patch(
        f"{simulator.simulator.url}/api/v1/namespaces/{namespace}",
        json={"metadata": {"labels": {f"{PREFIX}enforce": "restricted"}}},
        headers={
            "authorization": f"Bearer {TOKEN}",
            "content-type": "application/merge-patch+json",
        },
        trust_env=False,
    )
    told = answer.headers.get_list("warning")
    assert "violate the new PodSecurity enforce level" in told[0]
    assert "one: allowPrivilegeEscalation != false, unrestricted capabilities" in told[1]


def test_a_level_that_does_not_exist_is_refused(cluster, namespace):
    code, reason, message = refused(lambda: label(cluster, namespace, enforce="strict"))
    assert (code, reason) == (422, "Invalid")
    assert "must be one of privileged, baseline, restricted" in message


def spec(container=None, **more):
    return {"containers": [{"name": "c", "securityContext": {**SAFE, **(container or {})}}], **more}


RULES = {
    "host namespaces (hostNetwork=true, hostPID=true)": spec(hostNetwork=True, hostPID=True),
    'restricted volume types (volume "v" uses restricted volume type "hostPath")': spec(
        volumes=[{"name": "v", "hostPath": {"path": "/"}}]
    ),
    'privileged (container "c" must not set securityContext.privileged=true)': spec(
        {"privileged": True}
    ),
    'unrestricted capabilities (container "c" must not include "NET_ADMIN" in'
    " securityContext.capabilities.add)": spec(
        {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}
    ),
    'runAsUser=0 (container "c" must not set runAsUser=0)': spec({"runAsUser": 0}),
    'seccompProfile (container "c" must not set securityContext.seccompProfile.type to'
    ' "Unconfined")': spec({"seccompProfile": {"type": "Unconfined"}}),
    'hostPort (container "c" uses hostPort 80)': {
        "containers": [{"name": "c", "ports": [{"hostPort": 80}], "securityContext": SAFE}]
    },
}


@pytest.mark.parametrize("told", RULES)
def test_each_rule_has_its_own_words(told):
    assert pod_security.violations("restricted", RULES[told]) == told


def test_the_baseline_leaves_more_open():
    assert not pod_security.violations("baseline", {"containers": [{"name": "c"}]})
    assert pod_security.violations("baseline", spec(hostIPC=True))
    assert not pod_security.violations("privileged", spec(hostIPC=True))
    assert not pod_security.violations("restricted", spec())
