"""Network policies as rules: what the policy of a box lets through, and what it does not."""

from dataclasses import replace

import pytest
import yaml
from kubernetes.client.rest import ApiException

from openclaw_web.boxes import manifests, network
from openclaw_web.boxes.manifests import BoxSpec
from openclaw_web.boxes.openclaw_config import PORT
from tests.contracts.simulator_process import ROOT

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
PLATFORM = "platform-of-tests"
PROXY = "http://token-proxy.platform.svc.cluster.local:8080/proxy/v1"
SPEC = BoxSpec(
    box_id="0b8c5a52-1c1e-4a0f-8f3f-2f0f7a6f0d11",
    customer_id="5d2a5c1e-0d0e-4d07-9d6e-3a9d2c8c4a10",
    namespace="",
    image="agent:1",
    cpu_request="250m",
    cpu_limit="1",
    memory_request="1280Mi",
    memory_limit="2Gi",
    storage="5Gi",
    generation=1,
    config="{}",
    user_text="Hello",
    destinations=(PROXY,),
)
BOX = {"app.kubernetes.io/name": "openclaw"}


@pytest.fixture
def reach(simulator, namespace, control):
    """Return a function that asks whether a box in the namespace may reach somebody."""
    spec = replace(SPEC, namespace=namespace)
    body = manifests.network_policy(spec)
    simulator.networking.create_namespaced_network_policy(namespace, body)

    def ask(target, port, protocol="TCP", source=None):
        source = source or {"namespace": namespace, "labels": BOX}
        more = {"from": source, "to": target, "port": port, "protocol": protocol}
        return control.ask("POST", "reach", **more)["allowed"]

    return ask


@pytest.fixture
def platform(simulator):
    """Make a namespace with the labels that deploy/ gives to ours."""
    shipped = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "namespace.yaml").read_text())
    body = {"metadata": {"name": PLATFORM, "labels": shipped["metadata"]["labels"]}}
    simulator.core.create_namespace(body)
    yield PLATFORM
    simulator.core.delete_namespace(PLATFORM)


PRIVATE = (
    *("169.254.169.254", "10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.1", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "198.18.0.1"),  # noqa: S104 - asked about, nothing is bound
    *("::1", "fe80::1", "fd00:ec2::254", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a00::1"),
)
PUBLIC = ("1.1.1.1", "172.15.0.1", "2606:4700::1111")


def test_a_box_reaches_no_private_address_and_no_metadata(reach):
    assert [one for one in PRIVATE if reach({"ip": one}, 443)] == []


def test_a_box_reaches_the_world_on_443_only(reach):
    assert [one for one in PUBLIC if reach({"ip": one}, 443)] == list(PUBLIC)
    for address in PUBLIC:
        assert not reach({"ip": address}, 80)
        assert not reach({"ip": address}, 443, "UDP")
        assert not reach({"ip": address}, 25)


def test_a_box_asks_the_clusters_name_servers_and_no_others(reach):
    dns = {"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    assert reach(dns, 53, "UDP")
    assert reach(dns, 53, "TCP")
    assert not reach(dns, 9153)
    assert not reach({"namespace": "kube-system", "labels": {}}, 53, "UDP")
    assert not reach({"ip": "8.8.8.8"}, 53, "UDP")


def test_a_box_reaches_the_proxy_and_nothing_else_of_ours(reach, platform):
    assert reach({"namespace": platform, "labels": {network.COMPONENT: "proxy"}}, 8080)
    assert not reach({"namespace": platform, "labels": {network.COMPONENT: "proxy"}}, 5432)
    assert not reach({"namespace": platform, "labels": {network.COMPONENT: "web"}}, 8080)
    assert not reach({"namespace": "default", "labels": {network.COMPONENT: "proxy"}}, 8080)


def test_only_the_operator_reaches_a_box_and_only_its_gateway(reach, namespace, platform):
    box = {"namespace": namespace, "labels": BOX}
    worker = {"namespace": platform, "labels": {network.COMPONENT: "worker"}}
    assert reach(box, PORT, source=worker)
    assert not reach(box, 22, source=worker)
    other = {"namespace": platform, "labels": {network.COMPONENT: "web"}}
    assert not reach(box, PORT, source=other)
    assert not reach(box, PORT, source={"ip": "1.2.3.4"})
    assert not reach(box, PORT, source={"namespace": "default", "labels": BOX})


def test_one_box_does_not_reach_another(reach, namespace):
    assert not reach({"namespace": namespace, "labels": BOX}, PORT)


def policy(name, **spec):
    return {"metadata": {"name": name}, "spec": {"podSelector": {}, **spec}}


def test_rules_of_every_kind_are_read(simulator, namespace, control):
    def may(port, source, protocol="TCP"):
        target = {"namespace": namespace, "labels": {"app": "a"}}
        more = {"from": source, "to": target, "port": port, "protocol": protocol}
        return control.ask("POST", "reach", **more)

    inside = {"namespace": namespace, "labels": {"app": "b"}}
    outside = {"namespace": "default", "labels": {"app": "b"}}
    assert may(1, outside)["allowed"]  # nothing selects the pod: it is open
    policies = simulator.networking.create_namespaced_network_policy
    policies(namespace, policy("closed", policyTypes=["Ingress"]))
    assert not may(1, inside)["allowed"]
    same = [{"podSelector": {"matchLabels": {"app": "b"}}}]
    ports = [{"port": 8000, "endPort": 8010, "protocol": "TCP"}]
    policies(namespace, policy("range", ingress=[{"from": same, "ports": ports}]))
    assert may(8005, inside)["allowed"]
    assert may(8005, inside)["ingress"]["why"] == "ingress[0] of range"
    assert not may(8011, inside)["allowed"]
    assert not may(8005, inside, "UDP")["allowed"]
    assert not may(8005, outside)["allowed"]  # a bare podSelector means this namespace
    block = {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}
    policies(namespace, policy("block", ingress=[{"from": [{"ipBlock": block}]}]))
    assert may(1, {"ip": "203.0.113.1"})["allowed"]
    assert not may(1, {"ip": "203.0.113.200"})["allowed"]


@pytest.mark.parametrize(
    ("cidr", "left_out", "is_fine"),
    [
        ("::/0", "fc00::/7", True),
        ("::/0", "::ffff:0:0/96", False),  # Go takes a mapped address for an IPv4 one
        ("10.0.0.0/8", "10.0.0.0/8", False),
        ("10.0.0.0/8", "11.0.0.0/16", False),
        ("10.0.0.0/33", "10.0.0.0/16", False),
    ],
)
def test_what_is_left_out_of_a_block_is_a_part_of_it(simulator, namespace, cidr, left_out, is_fine):
    peer = {"ipBlock": {"cidr": cidr, "except": [left_out]}}
    body = {
        "metadata": {"name": "blocks"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [peer]}]},
    }
    create = simulator.networking.create_namespaced_network_policy
    if is_fine:
        create(namespace, body)
    else:
        with pytest.raises(ApiException, match="422"):
            create(namespace, body)
