"""deploy/kubernetes as a cluster sees it: shapes, ports, labels, rights, and how pods end."""

import json
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from openclaw_web import cli, worker
from openclaw_web.api import PROXY_PREFIX
from openclaw_web.boxes import manifests
from openclaw_web.boxes.manifests import BoxSpec
from openclaw_web.core.settings import Settings
from openclaw_web.gateway import stopping
from openclaw_web.gateway.calls import MAX_BODY_BYTES
from tests.deploy.documents import (
    INGRESS,
    KUBERNETES,
    MIGRATE,
    PLATFORM,
    SERVERS,
    WORKLOADS,
    container,
    env_file,
    image_environment,
    image_says,
    listed,
    matches,
    named,
    of_kind,
    pod,
    pod_labels,
    port_of,
    read,
    selected,
    workload,
)

ALL = [*SERVERS, "migrate"]
HOME = image_environment()["OPENCLAW_CLOUD_HOME"]
USER = int(image_says("USER"))
PORT, INTERNAL = (int(image_environment()[name]) for name in ("PORT", "PROXY_INTERNAL_PORT"))
ADDRESS = env_file(PLATFORM / "settings.env")["BOX_PROXY_URL"]


@pytest.mark.parametrize("version", ["1.29", "1.30", "1.31", "1.32", "1.33", "1.37"])
def test_kubernetes_knows_every_field(version):
    documents = [*listed(KUBERNETES), *listed(PLATFORM), *listed(MIGRATE), *read(INGRESS)]
    assert len(documents) > 15
    for one in documents:
        kubernetes_validate.validate(one, version, strict=True)


def test_whatever_lies_there_is_applied_but_for_the_example():
    for folder, examples in ((PLATFORM, {INGRESS.name}), (MIGRATE, set())):
        (found,) = read(folder / "kustomization.yaml")
        there = {path.name for path in folder.glob("*.yaml")}
        assert there == {*found["resources"], *examples, "kustomization.yaml"}


def a_box() -> dict[str, dict]:
    """Return the namespace and the policy that our code makes for a box of this platform."""
    spec = BoxSpec(
        box_id="b", customer_id="c", namespace="customer-b", image="i", cpu_request="1",
        cpu_limit="1", memory_request="1Gi", memory_limit="1Gi", storage="1Gi", generation=1,
        config="{}", user_text="", destinations=(ADDRESS,),
    )  # fmt: skip
    return {one["kind"]: one for one in manifests.surroundings(spec, fence=1)}


def opens(peers, ports, *, namespace: dict[str, str], labels: dict[str, str], port: int) -> bool:
    """Say whether a rule of a policy covers this pod at this port."""
    from_there = any(
        matches(peer["namespaceSelector"], namespace)
        and matches(peer.get("podSelector", {}), labels)
        for peer in peers
        if "namespaceSelector" in peer
    )
    return from_there and port in {one["port"] for one in ports}


def platform_labels() -> dict[str, str]:
    return named("Namespace", "openclaw-cloud")["metadata"]["labels"]


@pytest.mark.parametrize("name", SERVERS)
def test_a_box_reaches_the_proxys_internal_port_and_nothing_else_of_ours(name):
    rules = a_box()["NetworkPolicy"]["spec"]["egress"]
    reached = {
        port
        for port in (PORT, INTERNAL)
        for rule in rules
        if opens(
            rule["to"],
            rule["ports"],
            namespace=platform_labels(),
            labels=pod_labels(name),
            port=port,
        )
    }
    assert reached == ({INTERNAL} if name == "proxy" else set())


@pytest.mark.parametrize("name", SERVERS)
def test_only_a_worker_gets_into_a_box(name):
    (rule,) = a_box()["NetworkPolicy"]["spec"]["ingress"]
    (port,) = (one["port"] for one in rule["ports"])
    gets_in = opens(
        rule["from"],
        rule["ports"],
        namespace=platform_labels(),
        labels=pod_labels(name),
        port=port,
    )
    assert gets_in is (name == "worker")


def test_what_boxes_call_is_the_service_of_the_proxys_internal_port():
    host, _, port = ADDRESS.removeprefix("http://").partition("/")[0].partition(":")
    service_name, namespace, mark = host.split(".")
    (found,) = (one for one in listed(PLATFORM) if _is(one, "Service", service_name))
    assert (namespace, mark) == (named("Namespace", "openclaw-cloud")["metadata"]["name"], "svc")
    (offered,) = found["spec"]["ports"]
    assert offered["port"] == int(port) == INTERNAL == port_of("proxy", offered["targetPort"])
    assert ADDRESS.partition(host)[2].partition("/")[2].startswith(PROXY_PREFIX.strip("/"))
    assert found["spec"].get("clusterIP") != "None"


def _is(document, kind, name):
    return (document["kind"], document["metadata"]["name"]) == (kind, name)


def test_every_service_finds_one_kind_of_pods_at_a_port_that_they_listen_on():
    for one in of_kind("Service"):
        (name,) = selected(one["spec"]["selector"])
        for port in one["spec"]["ports"]:
            listens = {"web": {PORT}, "proxy": {PORT, INTERNAL}}[name]
            assert port_of(name, port["targetPort"]) in listens
    assert Settings.port == PORT


def test_boxes_alone_come_in_at_the_internal_port_and_nobody_at_a_worker():
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy")}
    assert {*policies} == {*SERVERS}
    for name, spec in policies.items():
        assert selected(spec["podSelector"]["matchLabels"]) == [name]
        assert spec["policyTypes"] == ["Ingress"]
    assert policies["worker"]["ingress"] == []
    everybody, boxes = policies["proxy"]["ingress"]
    assert "from" not in everybody
    assert [one["port"] for one in everybody["ports"]] == [PORT]
    box = a_box()["Namespace"]["metadata"]["labels"]
    for namespace, gets_in in ((box, True), (platform_labels(), False), ({}, False)):
        sender = {"namespace": namespace, "labels": {}, "port": INTERNAL}
        assert opens(boxes["from"], boxes["ports"], **sender) is gets_in


@pytest.mark.parametrize("name", ALL)
def test_its_command_is_one_of_ours(name):
    found = container(name)
    assert "command" not in found
    assert json.loads(image_says("ENTRYPOINT")) == ["python", "-m", "openclaw_web"]
    chosen = cli._parser().parse_args(found["args"])  # noqa: SLF001 - without running it
    assert chosen.run is getattr(cli, name)
    assert found["image"] == "openclaw-cloud", "the component `image` knows this name"


@pytest.mark.parametrize("name", ALL)
def test_a_pod_has_no_right_that_it_does_not_need(name):
    chosen, found = pod(name), container(name)
    security = chosen["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == USER
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert chosen["enableServiceLinks"] is False  # a Service may not set PROXY_INTERNAL_PORT
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(chosen)
    assert {"requests", "limits"} == set(found["resources"])


def test_only_the_worker_has_credentials_of_the_cluster():
    (binding,) = of_kind("ClusterRoleBinding")
    (subject,) = binding["subjects"]
    for name in ALL:
        is_operator = name == "worker"
        assert pod(name)["automountServiceAccountToken"] is is_operator
        assert pod(name).get("serviceAccountName") == (subject["name"] if is_operator else None)


@pytest.mark.parametrize("name", SERVERS)
def test_the_state_folder_can_be_written_though_nothing_else_can(name):
    mounts = {one["name"]: one["mountPath"] for one in container(name)["volumeMounts"]}
    assert mounts == {"home": HOME} | ({"tmp": "/tmp"} if name == "worker" else {})  # noqa: S108
    assert pod(name)["securityContext"]["fsGroup"] == pod(name)["securityContext"]["runAsGroup"]
    if name != "proxy":
        volumes = {one["name"] for one in pod(name)["volumes"] if "emptyDir" in one}
        assert volumes == {*mounts}


def test_the_proxys_spool_is_on_a_volume_of_each_pods_own_that_outlives_it():
    spec = workload("proxy")["spec"]
    assert workload("proxy")["kind"] == "StatefulSet"
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "home"
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    assert "volumes" not in pod("proxy")


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("web", stopping.PRODUCTION.total),
        ("proxy", stopping.PRODUCTION.total),
        ("worker", worker.END_SECONDS + worker.HEARTBEAT_PATIENCE_SECONDS),
    ],
)
def test_nobody_is_killed_before_it_has_ended(name, seconds):
    pause = container(name).get("lifecycle", {}).get("preStop", {}).get("exec", {})
    word, length = pause.get("command", ["sleep", "0"])
    assert word == "sleep"
    assert pod(name)["terminationGracePeriodSeconds"] > float(length) + seconds


def test_one_of_each_may_be_taken_away_at_a_time():
    budgets = {one["metadata"]["name"]: one["spec"] for one in of_kind("PodDisruptionBudget")}
    assert {*budgets} == {*SERVERS}
    for name, spec in budgets.items():
        assert selected(spec["selector"]["matchLabels"]) == [name]
        assert workload(name)["spec"]["replicas"] > spec["maxUnavailable"] == 1
        assert matches(workload(name)["spec"]["selector"], pod_labels(name))
        (spread,) = pod(name)["topologySpreadConstraints"]
        assert selected(spread["labelSelector"]["matchLabels"]) == [name]


def test_the_ingress_leads_to_public_ports_alone_and_takes_what_the_proxy_takes():
    paths = {}
    for one in of_kind("Ingress"):
        ((rule,), (tls,)) = one["spec"]["rules"], one["spec"]["tls"]
        assert tls["hosts"] == [rule["host"]]
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            service = named("Service", backend["name"])
            wanted = backend["port"]["name"]
            (port,) = (p for p in service["spec"]["ports"] if p["name"] == wanted)
            (name,) = selected(service["spec"]["selector"])
            assert port_of(name, port["targetPort"]) == PORT
            paths[path["path"]] = name
    assert paths == {"/": "web", f"{PROXY_PREFIX}v1": "proxy"}
    notes = named("Ingress", "proxy")["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io"
    assert notes[f"{prefix}/proxy-body-size"] == f"{MAX_BODY_BYTES // 1024**2}m"
    assert {notes[f"{prefix}/proxy-{one}buffering"] for one in ("", "request-")} == {"off"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
def test_kubectl_builds_it_with_one_image_everywhere():
    built = {folder: build(folder) for folder in (KUBERNETES, PLATFORM, MIGRATE)}
    assert [one["kind"] for one in built[KUBERNETES]] == [
        "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding",
    ]  # fmt: skip
    mine = [*built[PLATFORM], *built[MIGRATE]]
    assert {one["metadata"]["namespace"] for one in mine} == {"openclaw-cloud"}
    pods = [one["spec"]["template"]["spec"] for one in mine if one["kind"] in WORKLOADS]
    images = {one["image"] for chosen in pods for one in chosen["containers"]}
    (settings,) = (one for one in mine if one["kind"] == "ConfigMap")
    assert images == {settings["data"]["KEEPER_IMAGE"]} != {"openclaw-cloud"}
    used = {
        source["configMapRef"]["name"]
        for chosen in pods
        for one in chosen["containers"]
        for source in one.get("envFrom", [])
        if "configMapRef" in source
    }
    assert used == {settings["metadata"]["name"]} != {"settings"}


def build(folder) -> list[dict]:
    done = subprocess.run(  # noqa: S603 - kubectl itself
        ["kubectl", "kustomize", str(folder)],  # noqa: S607 - the one that is there
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return list(yaml.safe_load_all(done.stdout))
