"""Make `protobuf_fields.json` anew: `python -m simulators.kubernetes.protobuf_table KUBECTL`.

Kubernetes numbers the fields of its objects for protobuf, and the programs that speak it carry the
numbers as compressed descriptors. kubectl is one of them, up to 1.33; this reads them there. Only
what a client may send to this cluster is kept.
"""

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from simulators.kubernetes import wire

TABLE = Path(__file__).with_name("protobuf_fields.json")
ROOTS = (
    *(f"api.core.v1.{one}" for one in ("Namespace", "Node", "Secret", "ConfigMap", "Pod")),
    *(f"api.core.v1.{one}" for one in ("Service", "PersistentVolume", "PersistentVolumeClaim")),
    *(f"api.core.v1.{one}" for one in ("ResourceQuota", "LimitRange", "ServiceAccount", "Event")),
    *(f"api.apps.v1.{one}" for one in ("Deployment", "ReplicaSet")),
    "api.batch.v1.Job",
    "api.networking.v1.NetworkPolicy",
    *(f"api.rbac.v1.{one}" for one in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")),
    "api.authentication.v1.TokenRequest",
    "api.authentication.v1.SelfSubjectReview",
    *(f"api.authorization.v1.{one}" for one in ("SubjectAccessReview", "SelfSubjectAccessReview")),
    *(f"api.authorization.v1.{one}" for one in ("SelfSubjectRulesReview",)),
    "api.authorization.v1.LocalSubjectAccessReview",
    "api.authentication.v1.TokenReview",
    "api.events.v1.Event",
    "api.policy.v1.Eviction",
    "api.autoscaling.v1.Scale",
    "apimachinery.pkg.apis.meta.v1.DeleteOptions",
)
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
_LONGEST_BYTES = 1 << 20
# FieldDescriptorProto and its neighbours, by the numbers that protobuf itself documents.
_FILE_PACKAGE, _FILE_MESSAGE = 2, 4
_NAME, _FIELD, _NESTED, _OPTIONS, _MAP_ENTRY = 1, 2, 3, 7, 7
_NUMBER, _LABEL, _KIND, _TYPE_NAME = 3, 4, 5, 6
_REPEATED = 3
_KINDS = {3: "int", 5: "int", 8: "bool", 9: "string", 11: "message", 12: "bytes"}
Message = dict[str, Any]


def main() -> None:
    found: dict[str, Message] = {}
    for descriptor in _descriptors(Path(sys.argv[1]).read_bytes()):
        found |= dict(_messages(descriptor))
    kept: dict[str, Message] = {}
    waiting = [f"k8s.io.{one}" for one in ROOTS]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        kept[name] = found[name]
        waiting.extend(kind.split(":")[1] for _, kind in found[name].values() if ":" in kind)
    short = {name.removeprefix("k8s.io."): fields for name, fields in sorted(kept.items())}
    TABLE.write_bytes(
        orjson.dumps(short).replace(b'},"', b'},\n"').replace(b"k8s.io.", b"") + b"\n"
    )


def _descriptors(program: bytes) -> Iterator[bytes]:
    position = program.find(_GZIP)
    while position >= 0:
        reader = zlib.decompressobj(31)
        try:
            raw = reader.decompress(program[position : position + _LONGEST_BYTES])
        except zlib.error:
            raw = b""
        if reader.eof and b"k8s.io/" in raw[:100]:
            yield raw
        position = program.find(_GZIP, position + 1)


def _messages(descriptor: bytes) -> Iterator[tuple[str, Message]]:
    package = ""
    for number, value in wire.fields(descriptor):
        if isinstance(value, bytes) and number == _FILE_PACKAGE:
            package = value.decode()
        elif isinstance(value, bytes) and number == _FILE_MESSAGE:
            yield from _message(package, value)


def _message(outside: str, raw: bytes) -> Iterator[tuple[str, Message]]:
    parts = list(wire.fields(raw))
    name = f"{outside}.{_text(parts, _NAME)}"
    nested: dict[str, Message] = {}
    maps: set[str] = set()
    for number, value in parts:
        if number == _NESTED and isinstance(value, bytes):
            nested |= dict(_message(name, value))
            if _is_map(value):
                maps.add(f"{name}.{_text(list(wire.fields(value)), _NAME)}")
    fields = [_field(value) for number, value in parts if number == _FIELD and value]
    yield name, {number: [field, _mapped(kind, maps)] for number, field, kind in fields}
    yield from nested.items()


def _is_map(raw: bytes) -> bool:
    options = [value for number, value in wire.fields(raw) if number == _OPTIONS]
    return any((_MAP_ENTRY, 1) in list(wire.fields(one)) for one in options if type(one) is bytes)


def _mapped(kind: str, maps: set[str]) -> str:
    inside = kind.rpartition(":")[2]
    return f"map:{inside}" if inside in maps else kind


def _field(raw: int | bytes) -> tuple[str, str, str]:
    """Return number, name and kind: `int`, `list int`, `message:NAME`, `list message:NAME`."""
    parts = list(wire.fields(raw if isinstance(raw, bytes) else b""))
    numbers = {number: value for number, value in parts if isinstance(value, int)}
    kind = _KINDS.get(numbers[_KIND], f"unread {numbers[_KIND]}")
    if kind == "message":
        kind = f"message:{_text(parts, _TYPE_NAME).removeprefix('.')}"
    if numbers[_LABEL] == _REPEATED:
        kind = f"list {kind}"
    return str(numbers[_NUMBER]), _text(parts, _NAME), kind


def _text(parts: list[tuple[int, int | bytes]], wanted: int) -> str:
    found = next((value for number, value in parts if number == wanted), b"")
    return found.decode() if isinstance(found, bytes) else ""


if __name__ == "__main__":
    main()
