"""What a namespace may hold and what its containers get, by quota, limits and room."""

from tests.contracts.kubernetes_clusters import is_ready, pod, refused
from tests.contracts.simulator_process import eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
APPLY = "application/apply-patch+yaml"


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


def test_a_quota_counts_what_a_service_opens(cluster, namespace):
    hard = {"services.nodeports": "0", "services.loadbalancers": "0"}
    cluster.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    )
    eventually(lambda: used(cluster, namespace))
    spec = {"type": "ClusterIP", "ports": [{"port": 80}], "selector": {"a": "b"}}
    cluster.core.create_namespaced_service(namespace, {"metadata": {"name": "in"}, "spec": spec})
    outward = {"metadata": {"name": "out"}, "spec": {**spec, "type": "LoadBalancer"}}
    message = refused(lambda: cluster.core.create_namespaced_service(namespace, outward))[2]
    assert "exceeded quota: q, requested: services.loadbalancers=1" in message


def test_a_quota_with_a_scope_counts_only_what_falls_under_it(cluster, namespace):
    spec = {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}
    cluster.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": "q"}, "spec": spec}
    )
    eventually(lambda: used(cluster, namespace))
    wanted = {"resources": {"requests": {"memory": "64Mi"}}}
    assert cluster.core.create_namespaced_pod(namespace, pod("stated", **wanted))
    message = refused(lambda: cluster.core.create_namespaced_pod(namespace, pod("unstated")))[2]
    assert "exceeded quota: q" in message


def test_a_full_node_leaves_pods_pending_until_there_is_room(simulator, namespace, control):
    control.settings(capacity={"memory": "100Mi"})
    small = {"resources": {"requests": {"memory": "64Mi"}}}
    simulator.core.create_namespaced_pod(namespace, pod("one", **small))
    assert simulator.ready_pod(namespace)
    simulator.core.create_namespaced_pod(namespace, pod("two", **small))
    told = (
        "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No"
        " preemption victims found for incoming pod."
    )
    simulator.eventually_told(namespace, "FailedScheduling", told)
    waiting = simulator.core.read_namespaced_pod("two", namespace)
    condition = waiting.status.conditions[0]
    assert (waiting.status.phase, condition.type, condition.reason) == (
        "Pending",
        "PodScheduled",
        "Unschedulable",
    )
    simulator.core.delete_namespaced_pod("one", namespace)
    eventually(lambda: is_ready(simulator.core.read_namespaced_pod("two", namespace)))


def test_a_cordoned_node_takes_no_pods(simulator, namespace):
    simulator.core.patch_node("local", {"spec": {"unschedulable": True}})
    try:
        simulator.core.create_namespaced_pod(namespace, pod("one"))
        told = "0/1 nodes are available: 1 node(s) were unschedulable."
        simulator.eventually_told(namespace, "FailedScheduling", told)
    finally:
        simulator.core.patch_node("local", {"spec": {"unschedulable": None}})
    assert simulator.ready_pod(namespace)
