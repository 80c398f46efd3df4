"""Failures on request: each refusal as the real server words it, on exactly the calls named."""

import threading
import time

import httpx
import pytest
import urllib3
from kubernetes import client

from tests.contracts.kubernetes_bodies import config_map, secret
from tests.contracts.kubernetes_clusters import pod, refused
from tests.contracts.simulator_process import TOKEN, eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]


def read(cluster, namespace, name="one"):
    return cluster.core.read_namespaced_config_map(name, namespace)


def raw(cluster, namespace, path):
    """Ask without the official client, which tries again by itself when it is told to."""
    url = f"{cluster.simulator.url}/api/v1/namespaces/{namespace}/{path}"
    return httpx.get(url, headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False)


REFUSALS = {
    403: ("Forbidden", 'configmaps "one" is forbidden'),
    404: ("NotFound", 'configmaps "one" not found'),
    409: ("Conflict", "the object has been modified; please apply your changes to the latest"),
    410: ("Expired", "is too old"),
    422: ("Invalid", 'ConfigMap "one" is invalid'),
    429: ("TooManyRequests", "Too many requests, please try again later."),
    500: ("InternalError", "Internal error occurred"),
    503: ("ServiceUnavailable", "currently unable to handle the request"),
    504: ("Timeout", "request did not complete within requested timeout"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_the_next_call_is_refused_and_the_one_after_it_is_not(simulator, namespace, control, code):
    simulator.core.create_namespaced_config_map(namespace, config_map("one"))
    control.fault(verb="get", resource="configmaps", namespace=namespace, code=code)
    answer = raw(simulator, namespace, "configmaps/one")
    reason, message = REFUSALS[code]
    assert (answer.status_code, answer.json()["reason"]) == (code, reason)
    assert message in answer.json()["message"]
    assert raw(simulator, namespace, "configmaps/one").status_code == 200


def test_a_full_quota_is_refused_in_its_own_words(simulator, namespace, control):
    control.fault(verb="create", namespace=namespace, code=403, cause="quota")
    body = config_map("one")
    found = refused(lambda: simulator.core.create_namespaced_config_map(namespace, body))
    assert found[:2] == (403, "Forbidden")
    assert "exceeded quota" in found[2]


def test_too_many_requests_say_when_to_try_again(simulator, namespace, control):
    control.fault(resource="secrets", namespace=namespace, code=429, retry_after=7)
    answer = raw(simulator, namespace, "secrets")
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["details"]["retryAfterSeconds"] == 7


def test_only_the_named_calls_fail_and_only_as_often(simulator, namespace, control):
    for name in ("one", "two"):
        simulator.core.create_namespaced_config_map(namespace, config_map(name))
    control.fault(
        verb="get",
        resource="configmaps",
        namespace=namespace,
        name="one",
        code=500,
        times=2,
        skip=1,
    )
    assert read(simulator, namespace)
    assert read(simulator, namespace, "two")
    for _ in range(2):
        assert refused(lambda: read(simulator, namespace))[0] == 500
    assert read(simulator, namespace)
    assert control.ask("GET", "faults") == []


def test_a_write_can_succeed_though_the_answer_is_a_time_out(simulator, namespace, control):
    control.fault(verb="create", namespace=namespace, code=504, when="after")
    body = config_map("one")
    found = refused(lambda: simulator.core.create_namespaced_config_map(namespace, body))
    assert found[:2] == (504, "Timeout")
    assert read(simulator, namespace)
    again = refused(lambda: simulator.core.create_namespaced_config_map(namespace, body))
    assert again[:2] == (409, "AlreadyExists")


def test_a_write_can_succeed_though_the_connection_breaks(simulator, namespace, control):
    control.fault(verb="create", namespace=namespace, drop=True, when="after")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        simulator.core.create_namespaced_config_map(namespace, config_map("one"))
    assert read(simulator, namespace)


def test_a_slow_call_is_answered_late_and_right(simulator, namespace, control):
    simulator.core.create_namespaced_config_map(namespace, config_map("one"))
    control.fault(verb="get", namespace=namespace, delay_seconds=0.3)
    begun = time.monotonic()
    assert read(simulator, namespace)
    assert time.monotonic() - begun >= 0.3


def test_a_fault_that_makes_no_sense_is_refused(simulator):
    for body in ({"code": 418}, {"verb": "eat", "code": 500}, {}, {"cod": 500}, {"code": "500"}):
        answer = simulator.simulator.http.post("/_control/faults", json=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]


def test_without_the_simulators_token_nothing_can_be_switched(simulator):
    bearer = {"authorization": f"Bearer {TOKEN}"}
    url = f"{simulator.simulator.url}/_control/faults"
    answer = httpx.post(url, json={"code": 500}, headers=bearer, trust_env=False)
    assert answer.status_code == 401


def test_a_compacted_history_ends_watches_and_lists_from_before(simulator, namespace, control):
    for number in range(3):
        simulator.core.create_namespaced_secret(namespace, secret(f"s{number}"))
    page = simulator.core.list_namespaced_secret(namespace, limit=1)
    simulator.core.delete_namespaced_secret("s2", namespace)
    control.ask("POST", "compact")
    told = simulator.core.list_namespaced_secret(
        namespace,
        resource_version=page.metadata.resource_version,
        watch=True,
        timeout_seconds=2,
        _preload_content=False,
    ).data
    assert b'"code":410' in told
    token = page.metadata._continue  # noqa: SLF001 - the client's name for `continue`
    with pytest.raises(client.exceptions.ApiException) as caught:
        simulator.core.list_namespaced_secret(namespace, limit=1, _continue=token)
    assert caught.value.status == 410
    assert "inconsistent list" in str(caught.value.body)


def test_open_watches_can_be_cut(simulator, namespace, control):
    ended = []

    def follow():
        simulator.core.list_namespaced_secret(
            namespace, watch=True, timeout_seconds=300, _preload_content=False
        ).read()
        ended.append(True)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()

    def cut():
        control.ask("POST", "cut-watches")
        return ended

    eventually(cut)
    thread.join(timeout=5)
    assert not thread.is_alive()  # five minutes before it would have ended by itself


def test_a_changed_secret_can_take_its_time_and_an_annotation_hurries_it(
    simulator, namespace, control
):
    simulator.core.create_namespaced_secret(namespace, secret("settings", word="old"))
    volume = {"name": "settings", "secret": {"secretName": "settings"}}
    mount = {"name": "settings", "mountPath": "/etc/settings"}
    body = pod("one", volumes=[volume], volumeMounts=[mount])
    simulator.core.create_namespaced_pod(namespace, body)
    folder = simulator.folder_of(simulator.ready_pod(namespace), "SETTINGS")
    control.settings(secret_delay_seconds=60)
    changed = {"stringData": {"word": "new"}}
    simulator.core.patch_namespaced_secret("settings", namespace, changed)
    simulator.core.patch_namespaced_pod("one", namespace, {"metadata": {"finalizers": None}})
    assert (folder / "word").read_text() == "old"
    noted = {"metadata": {"annotations": {"generation": "2"}}}
    simulator.core.patch_namespaced_pod("one", namespace, noted)
    eventually(lambda: (folder / "word").read_text() == "new")
    assert (folder / "..data").is_symlink()


def test_a_delayed_secret_arrives_by_itself(simulator, namespace, control):
    simulator.core.create_namespaced_secret(namespace, secret("settings", word="old"))
    volume = {"name": "settings", "secret": {"secretName": "settings"}}
    mount = {"name": "settings", "mountPath": "/etc/settings"}
    body = pod("one", volumes=[volume], volumeMounts=[mount])
    simulator.core.create_namespaced_pod(namespace, body)
    folder = simulator.folder_of(simulator.ready_pod(namespace), "SETTINGS")
    control.settings(secret_delay_seconds=0.2)
    changed = {"stringData": {"word": "new"}}
    simulator.core.patch_namespaced_secret("settings", namespace, changed)
    eventually(lambda: (folder / "word").read_text() == "new")
