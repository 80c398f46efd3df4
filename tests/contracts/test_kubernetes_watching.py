"""Watches and long lists: what any cluster promises to who follows its objects."""

import itertools
import json
import threading
import time
from typing import Any

from kubernetes import client, watch

from simulators.kubernetes.watch import BOOKMARK_SECONDS
from tests.contracts.kubernetes_bodies import config_map, secret
from tests.contracts.kubernetes_clusters import refused

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
APPLY = "application/apply-patch+yaml"


def test_a_watch_takes_up_where_it_was_left(cluster, namespace):
    since = cluster.core.list_namespaced_secret(namespace).metadata.resource_version
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    cluster.core.patch_namespaced_secret("one", namespace, {"stringData": {"a": "b"}})
    cluster.core.delete_namespaced_secret("one", namespace)
    events = watch.Watch().stream(
        cluster.core.list_namespaced_secret, namespace, resource_version=since, timeout_seconds=30
    )
    assert [one["type"] for one in itertools.islice(events, 3)] == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watch_with_a_selector_sees_objects_come_and_go(cluster, namespace):
    since = cluster.core.list_namespaced_config_map(namespace).metadata.resource_version
    cluster.core.create_namespaced_config_map(namespace, config_map("one"))
    for value in ("a", None):
        body = {"metadata": {"labels": {"tier": value}}}
        cluster.core.patch_namespaced_config_map("one", namespace, body)
    events = watch.Watch().stream(
        cluster.core.list_namespaced_config_map,
        namespace,
        resource_version=since,
        label_selector="tier=a",
        timeout_seconds=30,
    )
    assert [one["type"] for one in itertools.islice(events, 2)] == ["ADDED", "DELETED"]


def test_a_waiting_watch_hears_at_once(cluster, namespace):
    heard = []

    def listen():
        events = watch.Watch().stream(
            cluster.core.list_namespaced_secret, namespace, timeout_seconds=30
        )
        heard.append((next(events)["object"].metadata.name, time.monotonic()))

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.3)  # let the watch be open: nothing tells when it is
    begun = time.monotonic()
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    thread.join(timeout=40)
    assert heard[0][0] == "one"
    assert heard[0][1] - begun < BOOKMARK_SECONDS  # it was woken, not only looking in its turn


def test_a_watch_from_a_forgotten_revision_is_told_to_list_again(simulator, namespace):
    text = simulator.core.list_namespaced_secret(
        namespace,
        resource_version="987654321",
        watch=True,
        timeout_seconds=2,
        _preload_content=False,
    ).data
    event = json.loads(text.splitlines()[0])
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == (
        "ERROR",
        410,
        "Expired",
    )


def test_a_watch_that_asks_for_bookmarks_gets_them(cluster, namespace):
    text = cluster.core.list_namespaced_secret(
        namespace,
        watch=True,
        allow_watch_bookmarks=True,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        timeout_seconds=1,
        _preload_content=False,
    ).data
    last = json.loads(text.splitlines()[0])
    assert last["type"] == "BOOKMARK"
    assert last["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_pages_show_the_moment_of_the_first_one(cluster, namespace):
    for name in ("b", "c", "d"):
        cluster.core.create_namespaced_secret(namespace, secret(name))
    first = cluster.core.list_namespaced_secret(namespace, limit=1)
    cluster.core.create_namespaced_secret(namespace, secret("a"))
    cluster.core.delete_namespaced_secret("c", namespace)
    token = first.metadata._continue  # noqa: SLF001 - the client's name for `continue`
    rest = cluster.core.list_namespaced_secret(namespace, _continue=token)
    assert [one.metadata.name for one in rest.items] == ["c", "d"]
    assert rest.metadata.resource_version == first.metadata.resource_version
    events = watch.Watch().stream(
        cluster.core.list_namespaced_secret,
        namespace,
        resource_version=rest.metadata.resource_version,
        timeout_seconds=30,
    )
    seen = [(one["type"], one["object"].metadata.name) for one in itertools.islice(events, 2)]
    assert seen == [("ADDED", "a"), ("DELETED", "c")]


def test_a_list_from_the_future_is_refused(simulator, namespace):
    code, reason, message = refused(
        lambda: simulator.core.list_namespaced_secret(namespace, resource_version="987654321")
    )
    assert (code, reason) == (504, "Timeout")
    assert "Too large resource version: 987654321" in message


def test_a_watch_that_asks_for_it_begins_with_what_is_there(cluster, namespace):
    cluster.core.create_namespaced_secret(namespace, secret("one"))
    text = cluster.core.list_namespaced_secret(
        namespace,
        watch=True,
        allow_watch_bookmarks=True,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        timeout_seconds=1,
        _preload_content=False,
    ).data
    first, last = (json.loads(line) for line in text.splitlines()[:2])
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "one")
    assert last["type"] == "BOOKMARK"


def test_events_are_the_same_in_both_groups(cluster, namespace):
    body = {
        "metadata": {"name": "told"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": namespace},
        "eventTime": "2026-01-02T03:04:05.678901Z",
        "reportingController": "test.example/one",
        "reportingInstance": "one",
        "action": "Testing",
        "reason": "Tested",
        "note": "all is well",
        "type": "Normal",
    }
    newer: Any = client.EventsV1Api(cluster.api)
    newer.create_namespaced_event(namespace, body)
    found = cluster.core.read_namespaced_event("told", namespace)
    assert (found.message, found.involved_object.name) == ("all is well", "p")
    again = newer.read_namespaced_event("told", namespace)
    assert (again.note, again.regarding.name, again.reason) == ("all is well", "p", "Tested")
    assert [one.note for one in newer.list_namespaced_event(namespace).items] == ["all is well"]
