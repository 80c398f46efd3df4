import json
from dataclasses import replace
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from openclaw_web.boxes import manifests, network, openclaw_config
from openclaw_web.boxes.manifests import BoxSpec, Credentials

SPEC = BoxSpec(
    box_id="0b8c5a52-1c1e-4a0f-8f3f-2f0f7a6f0d11",
    customer_id="5d2a5c1e-0d0e-4d07-9d6e-3a9d2c8c4a10",
    namespace="customer-0b8c5a52-1c1e-4a0f-8f3f-2f0f7a6f0d11",
    image="ghcr.io/openclaw/openclaw:2026.9.6",
    cpu_request="250m",
    cpu_limit="1",
    memory_request="1280Mi",
    memory_limit="2Gi",
    storage="5Gi",
    generation=3,
    config="{}",
    user_text="Hello",
    destinations=("http://token-proxy.platform.svc.cluster.local:8080/proxy/v1",),
    storage_class="fast",
    runtime_class="gvisor",
)
TOKEN_ID = "t1"  # noqa: S105 - an id
CLEAR = {"proxy_token": "ocp_x", "telegram_token": "1:x", "gateway_token": "hmac-of-box"}
CREDENTIALS = Credentials(proxy_token_id=TOKEN_ID, **CLEAR)


def everything(spec=SPEC):
    return [
        *manifests.surroundings(spec, fence=7),
        manifests.secret(spec, CREDENTIALS),
        manifests.deployment(spec, token_id=TOKEN_ID, fence=7),
    ]


def of_kind(kind, spec=SPEC):
    return next(one for one in everything(spec) if one["kind"] == kind)


def pod(spec=SPEC):
    return of_kind("Deployment", spec)["spec"]["template"]["spec"]


@pytest.mark.parametrize("kind", [one["kind"] for one in everything()])
def test_kubernetes_knows_every_field_of(kind):
    kubernetes_validate.validate(of_kind(kind), "1.33", strict=True)


def test_the_namespace_comes_first_and_the_pod_last():
    kinds = [one["kind"] for one in everything()]
    assert (kinds[0], kinds[-1]) == ("Namespace", "Deployment")


def test_everything_carries_our_labels():
    for one in everything():
        labels = one["metadata"]["labels"]
        assert labels["openclaw.cloud/managed"] == "true"
        assert labels["openclaw.cloud/box"] == SPEC.box_id
        assert labels["openclaw.cloud/customer"] == SPEC.customer_id


def test_the_namespace_takes_restricted_pods_only():
    labels = of_kind("Namespace")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_the_pod_has_no_rights_that_it_could_lose():
    chosen = pod()
    (container,) = chosen["containers"]
    assert chosen["automountServiceAccountToken"] is False
    assert chosen["hostUsers"] is False
    assert chosen["securityContext"]["runAsNonRoot"] is True
    assert chosen["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {next(key for key in one if key != "name") for one in chosen["volumes"]}
    assert kinds == {"secret", "persistentVolumeClaim", "emptyDir"}


def test_there_are_never_two_pods():
    spec = of_kind("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert of_kind("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert of_kind("ResourceQuota")["spec"]["hard"]["pods"] == "1"


def test_the_quota_is_what_one_pod_needs():
    hard = of_kind("ResourceQuota")["spec"]["hard"]
    resources = pod()["containers"][0]["resources"]
    for name, amount in resources["requests"].items():
        assert hard[f"requests.{name}"] == amount
    for name, amount in resources["limits"].items():
        assert hard[f"limits.{name}"] == amount


def test_secrets_stand_in_the_secret_only():
    for one in everything():
        text = json.dumps(one)
        assert one["kind"] == "Secret" or not any(secret in text for secret in CLEAR.values())
    assert "ocp_x" not in repr(CREDENTIALS)


def test_the_network_is_closed_but_for_names_proxy_and_the_public_web():
    spec = of_kind("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (entry,) = spec["ingress"]
    assert entry["ports"] == [{"protocol": "TCP", "port": 18789}]
    names, proxy, world = spec["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert proxy["to"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "proxy"}
    assert proxy["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert world["ports"] == [{"protocol": "TCP", "port": 443}]
    v4, v6 = (one["ipBlock"] for one in world["to"])
    assert {"169.254.0.0/16", "10.0.0.0/8"} <= set(v4["except"])
    assert {"fc00::/7", "fe80::/10", "64:ff9b::/96"} <= set(v6["except"])


@pytest.mark.parametrize(
    ("url", "cidr"),
    [
        ("http://127.0.0.1:3000/proxy/v1", "127.0.0.1/32"),
        ("http://localhost:3000", "127.0.0.1/32"),
        ("http://[fd00::1]:80", "fd00::1/128"),
    ],
)
def test_an_address_of_ours_is_opened_alone(url, cidr):
    rules = network.policy(destinations=(url,), dns_cidrs=())["egress"]
    assert rules[1]["to"] == [{"ipBlock": {"cidr": cidr}}]
    assert rules[1]["ports"][0]["port"] == urlsplit(url).port


def test_a_public_name_needs_no_rule_of_its_own():
    rules = network.policy(destinations=("https://proxy.example.com/v1",), dns_cidrs=())
    assert len(rules["egress"]) == 2


def test_the_hash_changes_with_the_pod_and_not_with_its_token():
    known = manifests.config_hash(SPEC)
    assert manifests.config_hash(replace(SPEC)) == known
    for change in (
        {"config": '{"a": 1}'},
        {"image": "x"},
        {"cpu_limit": "2"},
        {"restart": "now"},
        {"user_text": "Hallo"},
    ):
        assert manifests.config_hash(replace(SPEC, **change)) != known
    other = manifests.deployment(SPEC, token_id=f"{TOKEN_ID}b", fence=8)
    assert other["metadata"]["annotations"]["openclaw.cloud/config-hash"] == known


def test_paths_are_told_by_environment_only():
    (container,) = pod()["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert "command" not in container
    assert "args" not in container
    assert values["OPENCLAW_CONFIG_PATH"] == "/config/openclaw.json"
    assert values["OPENCLAW_STATE_DIR"] == values["HOME"] == "/data"
    assert values["OPENCLAW_CONFIG_READONLY"] == values["DO_NOT_TRACK"] == "1"
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {"/config", "/data", "/tmp"}  # noqa: S108 - a mount of the pod


def test_the_probes_ask_openclaws_own_paths():
    (container,) = pod()["containers"]
    paths = {
        probe: container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert list(paths.values()) == ["/startupz", "/readyz", "/healthz"]
    assert openclaw_config.PORT == container["ports"][0]["containerPort"] == 18789


def test_without_settings_class_and_runtime_are_the_clusters_own():
    spec = replace(SPEC, storage_class="", runtime_class="")
    assert "storageClassName" not in of_kind("PersistentVolumeClaim", spec)["spec"]
    assert "runtimeClassName" not in pod(spec)
    assert pod()["runtimeClassName"] == "gvisor"
