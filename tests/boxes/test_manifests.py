import base64
import json
from dataclasses import replace
from urllib.parse import urlsplit
from uuid import uuid4

import kubernetes_validate
import pytest

from openclaw_web.billing.models import Tier
from openclaw_web.boxes import activating, manifests, network, openclaw_config, rendering
from openclaw_web.boxes.manifests import BoxSpec, Credentials
from openclaw_web.boxes.models import Box
from openclaw_web.boxes.openclaw_config import Assistant
from openclaw_web.core.settings import settings

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
KUBERNETES = ("1.33", "1.35", "1.37")
CREDENTIALS = Credentials(proxy_token_id=TOKEN_ID, **CLEAR)


def everything(spec=SPEC):
    return [
        *manifests.surroundings(spec, fence=7),
        manifests.secret(spec, CREDENTIALS, fence=7),
        manifests.deployment(spec, token_id=TOKEN_ID, fence=7),
    ]


def of_kind(kind, spec=SPEC):
    return next(one for one in everything(spec) if one["kind"] == kind)


def pod(spec=SPEC):
    return of_kind("Deployment", spec)["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("kind", [one["kind"] for one in everything()])
def test_kubernetes_knows_every_field_of(kind, version):
    kubernetes_validate.validate(of_kind(kind), version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_field_that_kubernetes_does_not_know_is_found(version):
    wrong = of_kind("Deployment") | {"spec": {**of_kind("Deployment")["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, version, strict=True)


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


def test_the_quota_counts_and_the_limit_range_bounds():
    hard = of_kind("ResourceQuota")["spec"]["hard"]
    # No amounts: a RuntimeClass adds to what a pod needs, and a volume never shrinks.
    assert set(hard) == {
        "pods",
        "persistentvolumeclaims",
        "services.loadbalancers",
        "services.nodeports",
    }
    (bound,) = of_kind("LimitRange")["spec"]["limits"]
    for container in (*pod()["initContainers"], *pod()["containers"]):
        assert container["resources"]["limits"] == bound["max"]


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


def test_name_servers_of_a_setting_are_opened_beside_the_clusters_own(monkeypatch):
    (proxy_url,) = SPEC.destinations
    chosen = replace(settings(), box_dns_cidrs="169.254.20.10,fd00::a", box_proxy_url=proxy_url)
    monkeypatch.setattr(rendering, "settings", lambda: chosen)
    box = Box(
        customer_id=uuid4(),
        subscription_id=uuid4(),
        k8s_namespace=SPEC.namespace,
        telegram_user_ids=[1],
    )
    spec = rendering.render_revision(box, None, Tier.STARTER).spec
    names, *others = manifests.network_policy(spec)["spec"]["egress"]
    _, *outside = names["to"]
    assert [one["ipBlock"]["cidr"] for one in outside] == ["169.254.20.10/32", "fd00::a/128"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert "169.254.20.10/32" not in json.dumps(others)


def test_a_public_name_needs_no_rule_of_its_own():
    rules = network.policy(destinations=("https://proxy.example.com/v1",), dns_cidrs=())
    assert len(rules["egress"]) == 2


CONFIG = openclaw_config.render(
    Assistant(
        telegram_user_ids=(111, 222),
        language="en",
        model="kimi-coding/k2p5",
        thinking_level="medium",
        generation=3,
        proxy_url="https://proxy.example.com/v1",
    )
)
LIVE = replace(SPEC, config=CONFIG)


def changed(*path, to):
    """Return the box with one value of its `openclaw.json` changed."""
    document = json.loads(CONFIG)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return replace(LIVE, config=json.dumps(document))


@pytest.mark.parametrize(
    "spec",
    [
        replace(LIVE, image="x"),
        replace(LIVE, cpu_limit="2"),
        replace(LIVE, restart="now"),
        replace(LIVE, user_text="Hallo"),
        replace(LIVE, people_mark="4/0"),
        changed("gateway", "bind", to="loopback"),
        changed("commands", "ownerAllowFrom", to=["telegram:222"]),
        changed("session", "dmScope", to="main"),
        changed("models", "providers", "box", "baseUrl", to="https://elsewhere.example.com"),
        changed("something", to="that did not exist"),
    ],
)
def test_what_needs_a_new_pod_changes_its_hash(spec):
    assert manifests.config_hash(spec) != manifests.config_hash(LIVE)


@pytest.mark.parametrize(
    "spec",
    [
        changed("agents", "defaults", "thinkingDefault", to="high"),
        changed("agents", "defaults", "model", "primary", to="box/k3"),
        changed("models", "providers", "box", "models", to=[]),
        changed("models", "providers", "box", "headers", "X-OpenClaw-Generation", to="4"),
        changed("channels", "telegram", "allowFrom", to=[111, 222, 333]),
        replace(LIVE, generation=4),
    ],
    ids=["level", "model", "models", "generation's header", "people", "generation"],
)
def test_what_openclaw_takes_in_while_it_runs_leaves_the_pod_alone(spec):
    assert manifests.config_hash(spec) == manifests.config_hash(LIVE)
    known = manifests.deployment(LIVE, token_id=TOKEN_ID, fence=7)
    fresh = manifests.deployment(spec, token_id=TOKEN_ID, fence=8, started=3)
    assert fresh["spec"] == known["spec"]
    assert (manifests.live_hash(spec) == manifests.live_hash(LIVE)) == (spec.config == CONFIG)


def test_the_hash_does_not_change_with_the_token():
    other = manifests.deployment(SPEC, token_id=f"{TOKEN_ID}b", fence=8)
    hashed = other["metadata"]["annotations"]["openclaw.cloud/config-hash"]
    assert hashed == manifests.config_hash(SPEC)


def test_new_files_for_a_running_pod_leave_its_credentials_alone():
    change = manifests.live_files(LIVE, fence=9, resource_version="17")
    assert set(change) == {"metadata", "data"}
    assert change["metadata"] == {
        "resourceVersion": "17",
        "annotations": {
            "openclaw.cloud/live-hash": manifests.live_hash(LIVE),
            "openclaw.cloud/fence": "9",
        },
    }
    files = {name: base64.b64decode(text).decode() for name, text in change["data"].items()}
    assert files == {"openclaw.json": CONFIG, "USER.md": LIVE.user_text}


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


def test_the_kubelet_gives_up_a_slow_start_before_the_worker_does():
    (container,) = pod()["containers"]
    probe = container["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert 150 < patience < activating.READY_SECONDS


def test_without_settings_class_and_runtime_are_the_clusters_own():
    spec = replace(SPEC, storage_class="", runtime_class="")
    assert "storageClassName" not in of_kind("PersistentVolumeClaim", spec)["spec"]
    assert "runtimeClassName" not in pod(spec)
    assert pod()["runtimeClassName"] == "gvisor"
