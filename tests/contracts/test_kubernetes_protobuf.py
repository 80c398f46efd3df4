"""Kubernetes' protobuf: read as kubectl and other Go clients write it."""

import base64

import httpx
import pytest

from simulators.kubernetes import protobuf
from simulators.kubernetes.errors import ApiError
from tests.contracts.simulator_process import TOKEN

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
EMPTY = b""


def varint(value):
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def part(number, value):
    """Write one field: bytes and text with their length, a number as a varint."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def envelope(version, kind, raw):
    about = part(1, version) + part(2, kind)
    return b"k8s\x00" + part(1, about) + part(2, raw) + part(3, EMPTY) + part(4, EMPTY)


def test_a_namespace_is_read_without_its_empty_fields():
    labels = part(11, part(1, "tier") + part(2, "a")) + part(11, part(1, "bare") + part(2, EMPTY))
    meta = part(1, "box") + part(2, EMPTY) + part(8, EMPTY) + labels
    found = protobuf.decode(envelope("v1", "Namespace", part(1, meta) + part(2, EMPTY)))
    assert found["metadata"] == {"name": "box", "labels": {"tier": "a", "bare": ""}}
    assert (found["apiVersion"], found["kind"]) == ("v1", "Namespace")


def test_bytes_quantities_and_choices_become_what_json_would_say():
    data = part(2, part(1, "key") + part(2, b"\x00\xff"))
    secret = protobuf.decode(envelope("v1", "Secret", part(1, part(1, "s")) + data))
    assert secret["data"] == {"key": base64.b64encode(b"\x00\xff").decode()}
    hard = part(1, part(1, "pods") + part(2, part(1, "5")))
    quota = protobuf.decode(envelope("v1", "ResourceQuota", part(2, hard)))
    assert quota["spec"]["hard"] == {"pods": "5"}
    port = part(3, 80) + part(4, part(1, 1) + part(2, 0) + part(3, "http"))
    service = protobuf.decode(envelope("v1", "Service", part(2, part(1, port))))
    assert service["spec"]["ports"] == [{"port": 80, "targetPort": "http"}]


def test_what_go_embeds_stands_in_its_holder_and_zero_replicas_are_kept():
    volume = part(1, "v") + part(2, part(2, EMPTY))  # emptyDir: {}
    pod_spec = part(1, volume) + part(2, part(1, "c") + part(2, "agent:1"))
    spec = part(1, 0) + part(3, part(2, pod_spec))
    found = protobuf.decode(envelope("apps/v1", "Deployment", part(2, spec)))
    assert found["spec"]["replicas"] == 0
    inner = found["spec"]["template"]["spec"]
    assert inner["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert inner["containers"] == [{"name": "c", "image": "agent:1"}]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"k8s",
        b"k8s\x00",
        b"k8s\x00\xff\xff\xff",
        envelope("v1", "Unheard", EMPTY),
        envelope("v1", "Namespace", b"\x0a\xff"),
        envelope("v1", "Namespace", part(1, 7)),
        envelope("v1", "Namespace", part(1, part(1, b"\xff\xfe"))),
    ],
)
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(ApiError) as caught:
        protobuf.decode(raw)
    assert caught.value.reason == "BadRequest"


def test_an_object_is_made_from_protobuf(simulator, namespace):
    data = part(2, part(1, "word") + part(2, "value"))
    body = envelope("v1", "ConfigMap", part(1, part(1, "one")) + data)
    answer = httpx.post(
        f"{simulator.simulator.url}/api/v1/namespaces/{namespace}/configmaps",
        content=body,
        headers={
            "content-type": "application/vnd.kubernetes.protobuf",
            "accept": "application/vnd.kubernetes.protobuf,application/json",
            "authorization": f"Bearer {TOKEN}",
        },
        trust_env=False,
    )
    assert (answer.status_code, answer.headers["content-type"]) == (201, "application/json")
    assert simulator.core.read_namespaced_config_map("one", namespace).data == {"word": "value"}
