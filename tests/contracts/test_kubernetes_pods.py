"""What the simulator's kubelet promises about pods, volumes and probes."""

import base64
import json
import os
import re
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

import httpx
import psutil
import pytest

from openclaw_web.integrations.cluster_objects import pod_view
from tests.contracts.kubernetes_clusters import (
    DATA_MOUNT,
    DATA_VOLUME,
    IMAGE,
    REAL,
    claim,
    deployment,
    is_ready,
    pod,
    refused,
    simulated,
    url_of,
)
from tests.contracts.simulator_process import TOKEN, eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
pytestmark = pytest.mark.skipif(bool(REAL), reason="the process kubelet is the simulator's own")
SLOW_PERIOD_SECONDS = 10
FAST = {"periodSeconds": 1, "failureThreshold": 1}
RSS_MEGABYTES = 90


def ask(pod, path=""):
    return httpx.get(url_of(pod) + path, trust_env=False, timeout=5).json()


def run(cluster, namespace, **more):
    cluster.core.create_namespaced_pod(namespace, pod("one", **more))
    return cluster.ready_pod(namespace)


def is_alive(pid):
    """Say whether a process runs; one that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read(cluster, namespace, name="one"):
    return cluster.core.read_namespaced_pod(name, namespace)


def agent_status(cluster, namespace, name="one"):
    found = read(cluster, namespace, name).status.container_statuses
    return found[0] if found else None


def claim_folder(cluster, namespace):
    found = cluster.core.read_namespaced_persistent_volume_claim("data", namespace)
    volume = cluster.core.read_persistent_volume(found.spec.volume_name)
    return Path(volume.spec.host_path.path)


def secret_volume(name="settings"):
    return {"name": "settings", "secret": {"secretName": name}}


def make_secret(cluster, namespace, name="settings", **data):
    body = {"metadata": {"name": name}, "stringData": data}
    cluster.core.create_namespaced_secret(namespace, body)


def test_a_pod_is_a_process_that_becomes_ready_before_a_whole_period_is_over(simulator, namespace):
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": SLOW_PERIOD_SECONDS}
    found = run(simulator, namespace, readinessProbe=probe)
    log = simulator.core.read_namespaced_pod_log("one", namespace)
    ready_at = float(log.rsplit(maxsplit=1)[1])
    assert found.status.phase == "Running"
    assert found.status.pod_ip.startswith("127.")
    condition = next(one for one in found.status.conditions if one.type == "Ready")
    assert condition.last_transition_time.timestamp() - ready_at < SLOW_PERIOD_SECONDS


def test_each_pod_has_an_address_of_its_own(simulator, namespace):
    for name in ("one", "two"):
        simulator.core.create_namespaced_pod(namespace, pod(name))
    eventually(lambda: all(map(is_ready, simulator.pods(namespace))))
    addresses = {one.status.pod_ip for one in simulator.pods(namespace)}
    if sys.platform == "linux":
        assert len(addresses) == 2
        assert "127.0.0.1" not in addresses


def test_pods_that_share_an_address_show_where_their_ports_are(tmp_path):
    with simulated(tmp_path / "own", "--shared-address") as cluster:
        for name in ("one", "two"):
            cluster.core.create_namespaced_pod("default", pod(name))
        eventually(lambda: all(map(is_ready, cluster.pods("default"))))
        found = cluster.pods("default")
        assert {one.status.pod_ip for one in found} == {"127.0.0.1"}
        assert len({url_of(one) for one in found}) == 2
        for one in found:
            view = pod_view(cluster.api.sanitize_for_serialization(one))
            assert ask(one)["env"]["PORT_8080"] == str(view.real_port(8080)) != "8080"


def test_the_environment_holds_what_was_asked_for_and_nothing_of_ours(simulator, namespace):
    make_secret(simulator, namespace, FIRST="secret", extra="kept")
    env = [
        {"name": "PLAIN", "value": "a-$(FIRST)-$$x"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "settings", "key": "extra"}}},
        {"name": "LD_PRELOAD", "value": "/evil.so"},
    ]
    body = pod("one", envFrom=[{"secretRef": {"name": "settings"}}])
    body["spec"]["containers"][0]["env"] = env
    simulator.core.create_namespaced_pod(namespace, body)
    found = ask(simulator.ready_pod(namespace))["env"]
    assert (found["PLAIN"], found["NAME"], found["ONE"]) == ("a-secret-$x", "one", "kept")
    assert found["FROM_IMAGE"] == "yes"
    known = {"PATH", "HOME", "LANG", "FROM_IMAGE", "FIRST", "extra", "PLAIN", "NAME", "ONE"}
    known |= {"POD_IP", "PORT_8080", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    assert found.keys() <= known


def test_a_command_from_the_api_is_never_run(simulator, namespace, tmp_path):
    proof = tmp_path / "proof"
    found = run(simulator, namespace, command=["touch", str(proof)], args=["--evil"])
    assert not proof.exists()
    assert "--evil" not in ask(found)["argv"]


def test_an_image_that_is_not_on_the_list_waits_and_says_why(simulator, namespace):
    simulator.core.create_namespaced_pod(namespace, pod("one", image="other:1"))
    reasons = {"ErrImagePull", "ImagePullBackOff"}
    eventually(lambda: simulator.waiting_reason(namespace, "one") in reasons)
    told = eventually(lambda: [one for one in simulator.events(namespace) if one[0] == "Failed"])
    assert any("not on the list" in message for _, message in told)


def test_a_missing_secret_holds_the_container_back_until_it_is_there(simulator, namespace):
    source = [{"secretRef": {"name": "settings"}}]
    simulator.core.create_namespaced_pod(namespace, pod("one", envFrom=source))
    eventually(lambda: simulator.waiting_reason(namespace, "one") == "CreateContainerConfigError")
    make_secret(simulator, namespace, FIRST="late")
    assert ask(simulator.ready_pod(namespace))["env"]["FIRST"] == "late"


def test_a_missing_volume_holds_the_pod_back_until_it_is_there(simulator, namespace):
    body = pod("one", volumes=[DATA_VOLUME], volumeMounts=[DATA_MOUNT])
    simulator.core.create_namespaced_pod(namespace, body)
    missing = 'persistentvolumeclaim "data" not found'
    eventually(lambda: any(message == missing for _, message in simulator.events(namespace)))
    simulator.core.create_namespaced_persistent_volume_claim(namespace, claim())
    assert simulator.ready_pod(namespace)


def test_mount_paths_are_handed_over_as_real_folders(simulator, namespace):
    make_secret(simulator, namespace, name="settings", **{"config.json": "{}"})
    simulator.core.create_namespaced_persistent_volume_claim(namespace, claim())
    mounts = [DATA_MOUNT, {"name": "settings", "mountPath": "/etc/settings"}]
    env = {"CONFIG": "/etc/settings/config.json", "HOME": "/data", "OTHER": "/database"}
    volumes = [DATA_VOLUME, secret_volume()]
    found = ask(run(simulator, namespace, env=env, volumeMounts=mounts, volumes=volumes))["env"]
    assert Path(found["CONFIG"]).read_text() == "{}"
    assert found["CONFIG"].startswith(found["MOUNT_SETTINGS"])
    assert found["HOME"] == found["MOUNT_DATA"] == str(claim_folder(simulator, namespace))
    assert found["OTHER"] == "/database"


def test_a_changed_secret_reaches_the_mounted_files_all_at_once(simulator, namespace):
    make_secret(simulator, namespace, a="1", b="1")
    mounts = [{"name": "settings", "mountPath": "/etc/settings"}]
    found = run(simulator, namespace, volumeMounts=mounts, volumes=[secret_volume()])
    folder = Path(ask(found)["env"]["MOUNT_SETTINGS"])
    before = (folder / "..data").readlink()
    data = {"a": base64.b64encode(b"2").decode(), "b": None, "c": "Mw=="}
    simulator.core.patch_namespaced_secret("settings", namespace, {"data": data})
    eventually(lambda: (folder / "..data").readlink() != before)
    shown = {one.name: one.read_text() for one in folder.iterdir() if one.name[0] != "."}
    assert shown == {"a": "2", "c": "3"}


def test_a_crashing_container_is_restarted_with_a_growing_pause(simulator, namespace):
    simulator.core.create_namespaced_pod(namespace, pod("one", env={"CRASH": "1"}))
    found = eventually(
        lambda: next(
            filter(
                lambda one: one and one.restart_count >= 2 and one.state.waiting,
                [agent_status(simulator, namespace)],
            ),
            None,
        )
    )
    assert found.state.waiting.reason == "CrashLoopBackOff"
    assert re.match(r"back-off [248]s restarting failed", found.state.waiting.message)
    assert found.last_state.terminated.exit_code == 3
    previous = simulator.core.read_namespaced_pod_log("one", namespace, previous=True)
    assert previous.startswith("hello from")


def test_a_container_that_outgrows_its_memory_is_killed(simulator, namespace):
    more = {"env": {"GREEDY": "200"}, "resources": {"limits": {"memory": "100Mi"}}}
    simulator.core.create_namespaced_pod(namespace, pod("one", **more))

    def killed():
        found = agent_status(simulator, namespace)
        return found and found.last_state and found.last_state.terminated

    ended = eventually(killed)
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)


def test_a_failed_liveness_probe_restarts_the_container(simulator, namespace):
    simulator.core.create_namespaced_persistent_volume_claim(namespace, claim())
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, **FAST}
    more = {"volumes": [DATA_VOLUME], "volumeMounts": [DATA_MOUNT], "livenessProbe": probe}
    first = ask(run(simulator, namespace, **more))["pid"]
    broken = claim_folder(simulator, namespace) / "broken-healthz"
    broken.touch()
    eventually(lambda: not is_alive(first))
    broken.unlink()
    found = simulator.ready_pod(namespace)
    assert found.status.container_statuses[0].restart_count >= 1
    reasons = {reason for reason, _ in simulator.events(namespace)}
    assert {"Unhealthy", "Killing", "Started"} <= reasons


def test_a_failed_readiness_probe_takes_ready_away_and_gives_it_back(simulator, namespace):
    simulator.core.create_namespaced_persistent_volume_claim(namespace, claim())
    probe = {"httpGet": {"path": "/readyz", "port": "http"}, **FAST}
    more = {"volumes": [DATA_VOLUME], "volumeMounts": [DATA_MOUNT], "readinessProbe": probe}
    run(simulator, namespace, **more)
    broken = claim_folder(simulator, namespace) / "broken-readyz"
    broken.touch()
    eventually(lambda: not agent_status(simulator, namespace).ready)
    broken.unlink()
    eventually(lambda: agent_status(simulator, namespace).ready)
    assert agent_status(simulator, namespace).restart_count == 0


def test_the_startup_probe_holds_the_others_back(simulator, namespace):
    startup = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30}
    liveness = {"tcpSocket": {"port": 8080}, **FAST}
    env = {"LISTEN_AFTER": "1.5"}
    found = run(simulator, namespace, env=env, startupProbe=startup, livenessProbe=liveness)
    assert found.status.container_statuses[0].restart_count == 0
    assert found.status.container_statuses[0].started


def test_a_deleted_pod_is_asked_to_end_and_then_killed(simulator, namespace):
    pid = ask(run(simulator, namespace, env={"STUBBORN": "1"}, grace=1))["pid"]
    begun = time.monotonic()
    simulator.core.delete_namespaced_pod("one", namespace)
    assert read(simulator, namespace).metadata.deletion_timestamp
    eventually(lambda: not simulator.pods(namespace))
    assert time.monotonic() - begun > 0.9
    assert not is_alive(pid)


def test_a_grace_of_zero_kills_at_once(simulator, namespace):
    pid = ask(run(simulator, namespace, env={"STUBBORN": "1"}, grace=30))["pid"]
    simulator.core.delete_namespaced_pod("one", namespace, grace_period_seconds=0)
    assert refused(lambda: read(simulator, namespace))[0] == 404
    eventually(lambda: not is_alive(pid))


def test_a_recreated_deployment_never_has_two_pods(simulator, namespace):
    simulator.apps.create_namespaced_deployment(namespace, deployment("box"))
    first = ask(simulator.ready_pod(namespace))["pid"]
    template = {"metadata": {"annotations": {"version": "2"}}}
    simulator.apps.patch_namespaced_deployment("box", namespace, {"spec": {"template": template}})
    most = 0

    def is_replaced():
        nonlocal most
        found = simulator.pods(namespace)
        most = max(most, len(found))
        return found and found[0].metadata.annotations and ask_quietly(found[0])

    def ask_quietly(one):
        is_up = one.status.container_statuses and one.status.container_statuses[0].ready
        return is_up and ask(one)["pid"] != first

    eventually(is_replaced)
    assert most == 1
    assert not is_alive(first)


def test_a_rolling_deployment_keeps_one_pod_ready(simulator, namespace):
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    body = deployment("box", 2, strategy=rolling)
    simulator.apps.create_namespaced_deployment(namespace, body)

    def is_complete(generation):
        status = simulator.apps.read_namespaced_deployment("box", namespace).status
        counts = (status.updated_replicas, status.available_replicas, status.replicas)
        return status.observed_generation == generation and counts == (2, 2, 2)

    eventually(lambda: is_complete(1))
    before = {one.metadata.name for one in simulator.pods(namespace)}
    template = {"metadata": {"annotations": {"version": "2"}}}
    simulator.apps.patch_namespaced_deployment("box", namespace, {"spec": {"template": template}})
    least = []

    def is_rolled():
        ready = simulator.apps.read_namespaced_deployment("box", namespace).status.ready_replicas
        least.append(ready or 0)
        return is_complete(2)

    eventually(is_rolled)
    assert min(least) >= 2
    left = {one.metadata.name for one in simulator.pods(namespace) if not is_ending(one)}
    assert not left & before


def is_ending(one):
    return one.metadata.deletion_timestamp is not None


def test_a_refused_pod_is_told_on_its_deployment(simulator, namespace):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    simulator.core.create_namespaced_resource_quota(namespace, quota)
    simulator.apps.create_namespaced_deployment(namespace, deployment("box"))

    def failure():
        status = simulator.apps.read_namespaced_deployment("box", namespace).status
        found = (status and status.conditions) or []
        return next((one for one in found if one.type == "ReplicaFailure"), None)

    assert "exceeded quota: q" in eventually(failure).message


def test_a_claim_keeps_its_data_and_takes_its_folder_along(simulator, namespace):
    simulator.core.create_namespaced_persistent_volume_claim(namespace, claim())
    more = {"volumes": [DATA_VOLUME], "volumeMounts": [DATA_MOUNT]}
    run(simulator, namespace, **more)
    folder = claim_folder(simulator, namespace)
    (folder / "kept").write_text("data")
    simulator.core.delete_namespaced_persistent_volume_claim("data", namespace)
    assert folder.exists()  # a pod still uses it
    simulator.core.delete_namespaced_pod("one", namespace)
    eventually(lambda: not folder.exists())
    eventually(lambda: not simulator.core.list_persistent_volume().items)


def test_a_claim_for_one_pod_is_not_given_to_a_second(simulator, namespace):
    simulator.core.create_namespaced_persistent_volume_claim(namespace, claim())
    more = {"volumes": [DATA_VOLUME], "volumeMounts": [DATA_MOUNT]}
    run(simulator, namespace, **more)
    simulator.core.create_namespaced_pod(namespace, pod("two", **more))
    told = "ReadWriteOncePod access mode"
    eventually(lambda: any(told in message for _, message in simulator.events(namespace)))
    simulator.core.delete_namespaced_pod("one", namespace)
    eventually(lambda: is_ready(read(simulator, namespace, "two")))


def test_an_ending_namespace_ends_its_processes_and_folders(simulator, namespace):
    simulator.core.create_namespaced_persistent_volume_claim(namespace, claim())
    more = {"volumes": [DATA_VOLUME], "volumeMounts": [DATA_MOUNT]}
    simulator.apps.create_namespaced_deployment(namespace, deployment("box", **more))
    pid = ask(simulator.ready_pod(namespace))["pid"]
    folder = claim_folder(simulator, namespace)
    simulator.core.delete_namespace(namespace)
    by_name = f"metadata.name={namespace}"
    eventually(lambda: not simulator.core.list_namespace(field_selector=by_name).items)
    assert not is_alive(pid)
    assert not folder.exists()


def test_logs_can_be_cut_and_followed(simulator, namespace):
    run(simulator, namespace)
    last = simulator.core.read_namespaced_pod_log("one", namespace, tail_lines=1)
    assert last.startswith("ready at")
    followed = simulator.core.read_namespaced_pod_log(
        "one", namespace, follow=True, _preload_content=False
    )
    simulator.core.delete_namespaced_pod("one", namespace)
    assert followed.data.startswith(b"hello from")


def test_log_lines_can_be_shown_with_times_and_since_a_moment(simulator, namespace):
    run(simulator, namespace)
    whole = simulator.core.read_namespaced_pod_log("one", namespace, timestamps=True)
    stamps = [datetime.fromisoformat(line.split()[0]) for line in whole.splitlines()]
    assert [line.split()[1] for line in whole.splitlines()] == ["hello", "ready"]
    assert stamps == sorted(stamps)
    late = simulator.core.read_namespaced_pod_log("one", namespace, since_seconds=3600)
    assert late.startswith("hello from")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_cluster_ends_its_pods_and_takes_everything_up_again(tmp_path, number):
    with simulated(tmp_path / "own") as cluster:
        cluster.core.create_namespaced_persistent_volume_claim("default", claim())
        more = {"volumes": [DATA_VOLUME], "volumeMounts": [DATA_MOUNT]}
        cluster.apps.create_namespaced_deployment("default", deployment("box", **more))
        before = cluster.ready_pod("default")
        pid = ask(before)["pid"]
        (claim_folder(cluster, "default") / "kept").write_text("data")
        cluster.core.create_namespaced_secret("default", {"metadata": {"name": "last"}})
        cluster.simulator.stop(number)
        eventually(lambda: not is_alive(pid))
        cluster.simulator._start()  # noqa: SLF001 - the second half of restart
        after = cluster.ready_pod("default")
        assert after.metadata.uid == before.metadata.uid
        assert after.status.container_statuses[0].restart_count == 1
        assert cluster.core.read_namespaced_secret("last", "default")
        assert (claim_folder(cluster, "default") / "kept").read_text() == "data"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's id can be given by root only")
def test_folders_belong_to_the_user_that_pods_run_as(passable_path):
    with simulated_as_nobody(passable_path) as cluster:
        cluster.core.create_namespaced_persistent_volume_claim("default", claim())
        make_secret(cluster, "default", word="x")
        mounts = [DATA_MOUNT, {"name": "scratch", "mountPath": "/scratch"}]
        mounts.append({"name": "settings", "mountPath": "/settings"})
        volumes = [DATA_VOLUME, {"name": "scratch", "emptyDir": {}}, secret_volume()]
        found = ask(run(cluster, "default", volumeMounts=mounts, volumes=volumes))["env"]
        assert (found["RUN_AS_UID"], found["RUN_AS_GID"]) == ("65534", "65534")
        for name in ("MOUNT_DATA", "MOUNT_SCRATCH"):
            assert Path(found[name]).stat().st_uid == 65534
        secret = Path(found["MOUNT_SETTINGS"])
        for path in (secret, secret / "word"):  # to read, not to change
            assert (path.stat().st_uid, path.stat().st_gid) == (0, 65534)
            assert path.stat().st_mode & 0o040


def simulated_as_nobody(passable_path):
    return simulated(passable_path / "own", "--run-as", "65534:65534")


def test_the_page_shows_pods_and_their_words_to_who_has_the_token(simulator, namespace):
    run(simulator, namespace)
    url = simulator.simulator.url
    assert httpx.get(url, trust_env=False).status_code == 401
    page = httpx.get(url, headers={"x-simulator-token": TOKEN}, trust_env=False).text
    assert namespace in page
    assert "hello from 127." in page
    assert "http://" not in page.replace(url, "")


def test_the_image_list_is_read_again_when_it_changes(simulator, namespace):
    simulator.core.create_namespaced_pod(namespace, pod("one", image="added:1"))
    path = simulator.kubeconfig.parent / "images.json"
    images = json.loads(path.read_text())
    path.write_text(json.dumps({**images, "added:1": images[IMAGE]}))
    assert simulator.ready_pod(namespace)
    path.write_text(json.dumps(images))


def test_the_cluster_stays_small(simulator):
    assert simulator.simulator.rss_megabytes() < RSS_MEGABYTES
