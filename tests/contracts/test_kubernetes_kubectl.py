"""That kubectl works against the simulator as against any cluster."""

import contextlib
import re
import secrets

import httpx
import pytest
import yaml

from tests.contracts.kubernetes_clusters import (
    DATA_MOUNT,
    DATA_VOLUME,
    IMAGE,
    REAL,
    claim,
    deployment,
    pod,
    url_of,
)
from tests.contracts.kubernetes_kubectl import Kubectl, kubectls

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
KUBECTLS = kubectls()
pytestmark = [
    pytest.mark.skipif(not KUBECTLS, reason="kubectl is not on the PATH"),
    pytest.mark.skipif(bool(REAL), reason="needs the simulator's image"),
]


@pytest.fixture
def kubectl(simulator, namespace, tmp_path):
    """Return a function that runs kubectl in the test's namespace and returns what it says."""
    return Kubectl(KUBECTLS[0], simulator.kubeconfig, namespace, tmp_path)


def manifest():
    secret = {"kind": "Secret", "metadata": {"name": "settings"}, "stringData": {"a": "b"}}
    quota = {"kind": "ResourceQuota", "metadata": {"name": "limits"}}
    quota["spec"] = {"hard": {"pods": "4"}}
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "deny"}, "spec": {"podSelector": {}}}
    policy["apiVersion"] = "networking.k8s.io/v1"
    volume = {"kind": "PersistentVolumeClaim", **claim()}
    box = deployment("box", volumes=[DATA_VOLUME], volumeMounts=[DATA_MOUNT])
    every = (secret, quota, policy, volume, box)
    return yaml.safe_dump_all([{"apiVersion": "v1", **one} for one in every])


def test_a_manifest_is_applied_waited_for_and_applied_again(kubectl):
    assert "deployment.apps/box created" in kubectl("apply", "-f", "-", stdin=manifest())
    told = kubectl("rollout", "status", "deploy/box", "--timeout=15s")
    assert "successfully rolled out" in told
    assert "deployment.apps/box unchanged" in kubectl("apply", "-f", "-", stdin=manifest())
    assert kubectl("diff", "-f", "-", stdin=manifest()).count("\n") == 0
    applied = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest())
    assert "deployment.apps/box serverside-applied" in applied


def test_everything_is_listed_in_its_own_columns(kubectl):
    kubectl("apply", "-f", "-", stdin=manifest())
    kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=box", "--timeout=15s")
    found = kubectl("get", "all,secret,pvc,netpol,quota")
    columns = " ".join(found.split())
    assert "READY STATUS RESTARTS AGE pod/box-" in columns
    assert "1/1 Running 0" in columns
    assert "UP-TO-DATE AVAILABLE AGE deployment.apps/box 1/1 1 1" in columns
    assert "persistentvolumeclaim/data Bound pvc-" in columns
    assert "resourcequota/limits pods: 1/4" in columns
    assert "Started container agent" in kubectl("get", "events")
    assert "RECLAIM POLICY" in kubectl("get", "pv")
    assert "local Ready control-plane" in " ".join(kubectl("get", "nodes").split())


def test_pods_are_described_and_their_logs_shown(kubectl):
    kubectl("apply", "-f", "-", stdin=manifest())
    kubectl("wait", "--for=condition=Available", "deploy/box", "--timeout=15s")
    described = kubectl("describe", "pod", "-l", "app=box")
    assert "Successfully assigned" in described
    assert "ClaimName: data" in " ".join(described.split())
    assert "hello from 127." in kubectl("logs", "deploy/box")
    assert "NewReplicaSet:" in kubectl("describe", "deploy", "box")
    assert "pods 1 4" in " ".join(kubectl("describe", "quota", "limits").split())


def test_a_deployment_is_scaled_restarted_and_rolled_back(kubectl):
    kubectl("create", "-f", "-", stdin=manifest())
    kubectl("rollout", "status", "deploy/box", "--timeout=15s")
    kubectl("set", "env", "deploy/box", "VERSION=2")
    kubectl("rollout", "status", "deploy/box", "--timeout=15s")
    assert "rolled back" in kubectl("rollout", "undo", "deploy/box")
    kubectl("rollout", "status", "deploy/box", "--timeout=15s")
    assert "VERSION" not in kubectl("get", "deploy/box", "-o", "yaml")
    kubectl("scale", "deploy/box", "--replicas=0")
    kubectl("wait", "--for=delete", "pod", "-l", "app=box", "--timeout=15s")
    assert "0/0" in kubectl("get", "deploy/box")


def test_a_misspelt_field_is_refused_by_name(kubectl):
    text = manifest().replace("replicas: 1", "replcas: 1")
    assert 'unknown field "spec.replcas"' in kubectl("create", "-f", "-", stdin=text, expect=1)


def test_fields_are_explained(kubectl):
    assert "Number of desired pods" in kubectl("explain", "deployment.spec.replicas")


def test_what_is_not_offered_is_said_plainly(kubectl):
    kubectl("apply", "-f", "-", stdin=manifest())
    kubectl("wait", "--for=condition=Available", "deploy/box", "--timeout=15s")
    told = kubectl("exec", "deploy/box", "--", "id", expect=1)
    assert "not offered by this development cluster" in told
    assert "doesn't have a resource type" in kubectl("get", "cronjobs", expect=1)


def test_a_namespace_is_deleted_with_everything_in_it(kubectl, namespace):
    kubectl("apply", "-f", "-", stdin=manifest())
    kubectl("delete", "namespace", namespace, "--timeout=20s")
    assert namespace not in kubectl("get", "namespaces")


def test_objects_are_made_by_word(kubectl, namespace):
    """`kubectl create` sends protobuf, unlike `apply`."""
    told = kubectl("create", "secret", "generic", "word", "--from-literal=key=value")
    assert "secret/word created" in told
    assert "quota created" not in kubectl("create", "quota", "limits", "--hard=pods=3,services=0")
    told = kubectl("create", "deployment", "box", f"--image={IMAGE}", "--replicas=0")
    assert "deployment.apps/box created" in told
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    account = f"{namespace}:default"
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={account}")
    shown = kubectl("get", "secret/word", "quota/limits", "deploy/box", "-o", "name")
    assert len(shown.split()) == 3
    assert kubectl("create", "token", "default").count(".") == 2
    somebody = f"--as=system:serviceaccount:{account}"
    assert kubectl("auth", "can-i", "list", "pods", somebody).strip() == "yes"
    assert kubectl("auth", "can-i", "delete", "pods", somebody, expect=1).strip() == "no"
    told = kubectl("get", "secrets", somebody, expect=1)
    assert 'cannot list resource "secrets" in API group ""' in told


def test_logs_carry_times(kubectl):
    kubectl("apply", "-f", "-", stdin=manifest())
    kubectl("rollout", "status", "deploy/box", "--timeout=15s")
    shown = kubectl("logs", "deploy/box", "--timestamps", "--tail=1", "--since=1h")
    assert re.match(r"20\d\d-\d\d-\d\dT[\d:]+\.\d{9}Z ready at", shown)


def test_every_kubectl_makes_a_namespace_and_follows_a_log_to_its_end(
    simulator, namespace, tmp_path
):
    simulator.core.create_namespaced_pod(namespace, pod("one"))
    every = [Kubectl(one, simulator.kubeconfig, namespace, tmp_path) for one in KUBECTLS]
    for number, kubectl in enumerate(every):
        name = f"{namespace}-{number}"
        assert f"namespace/{name} created" in kubectl("create", "ns", name)
        simulator.core.delete_namespace(name)
    place = url_of(simulator.ready_pod(namespace))
    with contextlib.ExitStack() as stack:
        told = [stack.enter_context(kubectl.running("logs", "-f", "one")) for kubectl in every]
        for lines in told:
            assert lines.readline().startswith("hello from")
            assert lines.readline().startswith("ready at")
        httpx.get(place + "say/something", trust_env=False, timeout=5)
        assert [lines.readline() for lines in told] == ["/say/something\n"] * len(every)
        simulator.core.delete_namespaced_pod("one", namespace)
        assert [lines.read() for lines in told] == [""] * len(every)


def everyday(kubectl):
    assert "created" in kubectl("apply", "-f", "-", stdin=manifest())
    assert "deployment.apps/box unchanged" in kubectl("apply", "-f", "-", stdin=manifest())
    told = kubectl("rollout", "status", "deploy/box", "--timeout=20s")
    assert "successfully rolled out" in told
    assert "1/1" in kubectl("get", "deploy/box")


@pytest.mark.skipif(len(KUBECTLS) < 2, reason="there is only one kubectl")
def test_an_older_kubectl_is_served_alike(simulator, tmp_path):
    name = f"test-{secrets.token_hex(4)}"
    kubectl = Kubectl(KUBECTLS[-1], simulator.kubeconfig, name, tmp_path)
    assert f"namespace/{name} created" in kubectl("create", "namespace", name)
    everyday(kubectl)
    kubectl("delete", "namespace", name, "--timeout=20s")


@pytest.mark.slow
@pytest.mark.parametrize("program", KUBECTLS, ids=str)
def test_every_kubectl_that_is_there_does_everyday_things(simulator, namespace, tmp_path, program):
    kubectl = Kubectl(program, simulator.kubeconfig, namespace, tmp_path)
    everyday(kubectl)
    kubectl("diff", "-f", "-", stdin=manifest())
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest())
    kubectl("rollout", "restart", "deploy/box")
    kubectl("rollout", "status", "deploy/box", "--timeout=20s")
    kubectl("rollout", "undo", "deploy/box")
    kubectl("rollout", "status", "deploy/box", "--timeout=20s")
    kubectl("create", "job", "once", f"--image={IMAGE}")
    kubectl("create", "configmap", "words", "--from-literal=a=b")
    kubectl("create", "service", "clusterip", "inside", "--tcp=80:8080")
    kubectl("run", "bare", f"--image={IMAGE}")
    assert "Pod Template" in kubectl("describe", "job", "once")
    assert "BACKOFF" not in kubectl("explain", "job.spec.backoffLimit")
    assert "events" in kubectl("api-resources")
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    kubectl("delete", "deploy/box", "--cascade=foreground", "--timeout=20s")
