"""Pods without processes, for tests with thousands of them."""

import pytest

from tests.contracts.kubernetes_clusters import (
    DATA_MOUNT,
    DATA_VOLUME,
    claim,
    deployment,
    is_ready,
    pod,
)
from tests.contracts.simulator_process import eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
RECORD = {"simulator/record": "true"}


def read(simulator, namespace, name="one"):
    return simulator.core.read_namespaced_pod(name, namespace)


@pytest.fixture
def recorded(simulator, namespace):
    """Return a namespace whose pods are records."""
    simulator.core.patch_namespace(namespace, {"metadata": {"annotations": RECORD}})
    return namespace


def test_a_record_is_ready_without_a_process(simulator, recorded):
    simulator.core.create_namespaced_persistent_volume_claim(recorded, claim())
    more = {"volumes": [DATA_VOLUME], "volumeMounts": [DATA_MOUNT], "image": "no/such:image"}
    simulator.apps.create_namespaced_deployment(recorded, deployment("box", **more))
    found = simulator.ready_pod(recorded)
    assert found.spec.node_name == "records"
    assert found.status.container_statuses[0].state.running
    eventually(
        lambda: simulator.apps.read_namespaced_deployment("box", recorded).status.ready_replicas
    )
    simulator.apps.patch_namespaced_deployment_scale("box", recorded, {"spec": {"replicas": 0}})
    eventually(lambda: not simulator.pods(recorded))


def test_a_setting_makes_every_new_pod_a_record(simulator, namespace, control):
    control.settings(records=True)
    simulator.core.create_namespaced_pod(namespace, pod("one"))
    assert simulator.ready_pod(namespace).spec.node_name == "records"


def test_a_record_waits_for_the_secret_of_its_environment_as_any_pod_does(simulator, recorded):
    source = {"secretKeyRef": {"name": "settings", "key": "FIRST"}}
    body = pod("one")
    body["spec"]["containers"][0]["env"] = [{"name": "FIRST", "valueFrom": source}]
    simulator.core.create_namespaced_pod(recorded, body)
    eventually(lambda: simulator.waiting_reason(recorded, "one") == "CreateContainerConfigError")
    assert read(simulator, recorded).status.phase == "Pending"
    assert ("Failed", 'Error: secret "settings" not found') in simulator.events(recorded)
    secret = {"metadata": {"name": "settings"}, "stringData": {"OTHER": "value"}}
    simulator.core.create_namespaced_secret(recorded, secret)
    why = "couldn't find key FIRST in Secret"
    eventually(lambda: any(why in message for _, message in simulator.events(recorded)))
    simulator.core.patch_namespaced_secret("settings", recorded, {"stringData": {"FIRST": "late"}})
    assert simulator.ready_pod(recorded).spec.node_name == "records"


STATES = {
    "CrashLoopBackOff": ("Running", "CrashLoopBackOff"),
    "OOMKilled": ("Running", "CrashLoopBackOff"),
    "ImagePullBackOff": ("Pending", "ImagePullBackOff"),
    "Evicted": ("Failed", ""),
}


@pytest.mark.parametrize("state", STATES)
def test_a_record_takes_any_state_on_request(simulator, recorded, control, state):
    simulator.core.create_namespaced_pod(recorded, pod("one"))
    simulator.ready_pod(recorded)
    control.ask("POST", "records", namespace=recorded, state=state)
    found = read(simulator, recorded)
    phase, reason = STATES[state]
    assert found.status.phase == phase
    assert not is_ready(found)
    assert simulator.waiting_reason(recorded, "one") == reason
    if state == "OOMKilled":
        last = found.status.container_statuses[0].last_state.terminated
        assert (last.exit_code, last.reason) == (137, "OOMKilled")


def test_records_come_back_after_a_bad_state(simulator, recorded, control):
    simulator.core.create_namespaced_pod(recorded, pod("one"))
    simulator.ready_pod(recorded)
    for state in ("Unready", "Running"):
        control.ask("POST", "records", namespace=recorded, pod="one", state=state)
        assert is_ready(read(simulator, recorded)) == (state == "Running")
