"""That kubectl works against the simulator as against any cluster."""

import os
import shutil
import subprocess

import pytest
import yaml

from tests.contracts.kubernetes_clusters import (
    DATA_MOUNT,
    DATA_VOLUME,
    REAL,
    claim,
    deployment,
)

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
KUBECTL = shutil.which("kubectl")
pytestmark = [
    pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on the PATH"),
    pytest.mark.skipif(bool(REAL), reason="needs the simulator's image"),
]


@pytest.fixture
def kubectl(simulator, namespace, tmp_path):
    """Return a function that runs kubectl in the test's namespace and returns what it says."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*arguments, stdin="", expect=0):
        command = [
            str(KUBECTL),
            "--kubeconfig",
            str(simulator.kubeconfig),
            "-n",
            namespace,
            *arguments,
        ]
        done = subprocess.run(  # noqa: S603 - kubectl itself, with the test's own arguments
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=30,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return done.stdout + done.stderr

    return run


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
    assert "doesn't have a resource type" in kubectl("get", "jobs", expect=1)


def test_a_namespace_is_deleted_with_everything_in_it(kubectl, namespace):
    kubectl("apply", "-f", "-", stdin=manifest())
    kubectl("delete", "namespace", namespace, "--timeout=20s")
    assert namespace not in kubectl("get", "namespaces")
