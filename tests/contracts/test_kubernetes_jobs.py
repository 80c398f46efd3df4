"""Jobs: run to the end, tried again, given up, cleaned up."""

import pytest

from tests.contracts.kubernetes_clusters import IMAGE, REAL, refused
from tests.contracts.simulator_process import eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
pytestmark = pytest.mark.skipif(bool(REAL), reason="needs the simulator's image")


def job(name, outcome, **spec):
    container = {"name": "agent", "image": IMAGE, "env": [{"name": outcome, "value": "1"}]}
    policy = spec.pop("policy", "Never")
    pod_spec = {"restartPolicy": policy, "containers": [container]}
    return {"metadata": {"name": name}, "spec": {"template": {"spec": pod_spec}, **spec}}


def read(cluster, namespace, name="one"):
    return cluster.batch.read_namespaced_job(name, namespace)


def conditions(cluster, namespace):
    found = read(cluster, namespace).status.conditions or []
    return {one.type: one for one in found if one.status == "True"}


def test_a_job_runs_its_pod_to_the_end(simulator, namespace):
    simulator.batch.create_namespaced_job(namespace, job("one", "FINISH"))
    assert eventually(lambda: conditions(simulator, namespace).get("Complete"))
    found = read(simulator, namespace)
    assert (found.status.succeeded, found.status.active) == (1, None)
    assert found.status.completion_time >= found.status.start_time
    pods = simulator.pods(namespace, "job-name=one")
    assert [one.status.phase for one in pods] == ["Succeeded"]
    assert simulator.eventually_told(namespace, "Completed", "Job completed")


def test_several_completions_run_one_after_the_other_or_side_by_side(simulator, namespace):
    body = job("one", "FINISH", completions=3, parallelism=2)
    simulator.batch.create_namespaced_job(namespace, body)
    eventually(lambda: conditions(simulator, namespace).get("Complete"))
    assert read(simulator, namespace).status.succeeded == 3
    assert len(simulator.pods(namespace)) == 3


def test_a_failing_job_is_given_up_after_its_limit(simulator, namespace, control):
    control.settings(back_off_scale=0.01)
    simulator.batch.create_namespaced_job(namespace, job("one", "CRASH", backoffLimit=1))
    failed = eventually(lambda: conditions(simulator, namespace).get("Failed"))
    assert failed.reason == "BackoffLimitExceeded"
    assert failed.message == "Job has reached the specified backoff limit"
    assert read(simulator, namespace).status.failed == 2


def test_a_job_that_takes_too_long_is_ended(simulator, namespace):
    body = job("one", "FOREVER", activeDeadlineSeconds=1)
    body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["ports"] = [{"containerPort": 8080}]
    simulator.batch.create_namespaced_job(namespace, body)
    failed = eventually(lambda: conditions(simulator, namespace).get("Failed"))
    assert failed.reason == "DeadlineExceeded"
    eventually(lambda: not simulator.pods(namespace))


def test_a_finished_job_goes_with_its_pods_when_its_time_is_over(simulator, namespace):
    body = job("one", "FINISH", ttlSecondsAfterFinished=0)
    simulator.batch.create_namespaced_job(namespace, body)
    eventually(lambda: not simulator.batch.list_namespaced_job(namespace).items)
    eventually(lambda: not simulator.pods(namespace))


def test_a_suspended_job_waits(simulator, namespace):
    simulator.batch.create_namespaced_job(namespace, job("one", "FINISH", suspend=True))
    eventually(lambda: conditions(simulator, namespace).get("Suspended"))
    assert not simulator.pods(namespace)
    simulator.batch.patch_namespaced_job("one", namespace, {"spec": {"suspend": False}})
    eventually(lambda: conditions(simulator, namespace).get("Complete"))


def test_a_jobs_pods_may_not_restart_always(simulator, namespace):
    body = job("one", "FINISH", policy="Always")
    code, reason, message = refused(lambda: simulator.batch.create_namespaced_job(namespace, body))
    assert (code, reason) == (422, "Invalid")
    assert 'supported values: "OnFailure", "Never"' in message
