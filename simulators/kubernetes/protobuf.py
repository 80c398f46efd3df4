"""Bodies in Kubernetes' protobuf, which `kubectl create namespace` sends, as plain data.

Only requests: answers are always JSON, which every client of this encoding takes too. Protobuf does
not say whether a Go field was left out or is empty, so what is empty counts as left out, save for
the fields that are pointers in Go and for which nothing and zero differ.
"""

import base64
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from simulators.kubernetes import wire
from simulators.kubernetes.errors import bad_request

MAGIC = b"k8s\x00"
_META = "apimachinery.pkg.apis.meta.v1"
_UNKNOWN_TYPE, _UNKNOWN_RAW, _UNKNOWN_ENCODING = 1, 2, 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Structs that Go embeds: their fields stand in the JSON of what holds them.
_INLINED = frozenset({"volumeSource", "handler", "localObjectReference", "persistentVolumeSource"})
_INLINED_MORE = frozenset({"ephemeralContainerCommon"})
_POINTERS = frozenset(
    {
        *("activeDeadlineSeconds", "allowPrivilegeEscalation", "automountServiceAccountToken"),
        *("backoffLimit", "blockOwnerDeletion", "completions", "controller", "defaultMode"),
        *("deletionGracePeriodSeconds", "enableServiceLinks", "expirationSeconds", "fsGroup"),
        *("gracePeriodSeconds", "hostUsers", "immutable", "maxSurge", "maxUnavailable", "mode"),
        *("optional", "orphanDependents"),
        *("parallelism", "privileged", "progressDeadlineSeconds", "readOnlyRootFilesystem"),
        *("replicas", "revisionHistoryLimit", "runAsGroup", "runAsNonRoot", "runAsUser"),
        *("shareProcessNamespace", "storageClassName", "suspend"),
        *("terminationGracePeriodSeconds", "ttlSecondsAfterFinished"),
    }
)


def is_protobuf(raw: bytes) -> bool:
    return raw.startswith(MAGIC)


def decode(raw: bytes) -> dict[str, Any]:
    """Return the object in an envelope, with its kind and version.

    Raises:
        ApiError: 400, the bytes are broken or the kind has no protobuf here.
    """
    if not is_protobuf(raw):
        raise bad_request("the protobuf data does not begin with the prefix of Kubernetes' objects")
    try:
        envelope = dict(wire.fields(raw[len(MAGIC) :]))
        kind = _message(f"{_META}.TypeMeta", _bytes(envelope.get(_UNKNOWN_TYPE, b"")))
        if envelope.get(_UNKNOWN_ENCODING):
            raise bad_request("unsupported content encoding in the protobuf envelope")
        body = _message(_type_of(kind), _bytes(envelope.get(_UNKNOWN_RAW, b"")))
    except (ValueError, TypeError) as error:
        raise bad_request(f"proto: the body cannot be read: {error}") from error
    return {**kind, **body}


@cache
def _table() -> dict[str, dict[int, tuple[str, str]]]:
    made = orjson.loads(Path(__file__).with_name("protobuf_fields.json").read_bytes())
    table = {
        name: {int(number): (field, kind) for number, (field, kind) in fields.items()}
        for name, fields in made.items()
    }
    table[f"{_META}.TypeMeta"] = {1: ("apiVersion", "string"), 2: ("kind", "string")}
    return table


def _type_of(kind: dict[str, str]) -> str:
    group, _, version = kind.get("apiVersion", "").rpartition("/")
    package = group.partition(".")[0] or "core"
    name = kind.get("kind", "")
    for found in (f"api.{package}.{version}.{name}", f"{_META}.{name}"):
        if found in _table():
            return found
    raise bad_request(
        f'no protobuf is known here for kind "{name}" in version "{kind.get("apiVersion", "")}";'
        " send application/json"
    )


def _message(name: str, raw: bytes) -> dict[str, Any]:
    known = _table()[name]
    made: dict[str, Any] = {}
    for number, value in wire.fields(raw):
        if number not in known:
            continue
        field, kind = known[number]
        if kind.startswith("map:"):
            key, one = _entry(kind.removeprefix("map:"), _bytes(value))
            made.setdefault(field, {})[key] = one
        elif kind.startswith("list "):
            made.setdefault(field, []).append(_value(kind.removeprefix("list "), value))
        elif field in _INLINED or field in _INLINED_MORE:
            made |= _message(kind.partition(":")[2], _bytes(value))
        else:
            one = _value(kind, value)
            if one or field in _POINTERS or isinstance(one, dict):
                made[field] = one
    return made


def _entry(name: str, raw: bytes) -> tuple[str, Any]:
    """Read one entry of a map; an empty key or value is not sent at all."""
    _, kind = _table()[name][2]
    entry = dict(wire.fields(raw))
    key = _bytes(entry.get(1, b"")).decode()
    return key, _value(kind, entry.get(2, b""))


def _value(kind: str, value: int | bytes) -> Any:
    if kind == "int":
        return wire.signed(_number(value))
    if kind == "bool":
        return bool(value)
    if kind == "string":
        return _bytes(value).decode()
    if kind == "bytes":
        return base64.b64encode(_bytes(value)).decode()
    name = kind.partition(":")[2]
    special = _SPECIAL.get(name.rpartition(".")[2])
    return special(_bytes(value)) if special else _message(name, _bytes(value))


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise wire.BrokenError("wrong wireType")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise wire.BrokenError("wrong wireType")
    return value


def _first(raw: bytes, wanted: int) -> int | bytes | None:
    return next((value for number, value in wire.fields(raw) if number == wanted), None)


def _quantity(raw: bytes) -> str:
    return _bytes(_first(raw, 1) or b"0").decode()


def _time(raw: bytes) -> str | None:
    seconds = _first(raw, 1)
    if seconds is None:
        return None
    moment = _EPOCH + timedelta(seconds=wire.signed(_number(seconds)))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(raw: bytes) -> str | None:
    text, nanos = _time(raw), _number(_first(raw, 2) or 0)
    return text and f"{text[:-1]}.{nanos // 1000:06d}Z"


def _int_or_string(raw: bytes) -> int | str:
    parts = dict(wire.fields(raw))
    if parts.get(1):
        return _bytes(parts.get(3, b"")).decode()
    return wire.signed(_number(parts.get(2, 0)))


def _json(raw: bytes) -> Any:
    return orjson.loads(_bytes(_first(raw, 1) or b"null"))


def _texts(raw: bytes) -> list[str]:
    values: Iterable[tuple[int, int | bytes]] = wire.fields(raw)
    return [_bytes(value).decode() for number, value in values if number == 1]


_SPECIAL: dict[str, Callable[[bytes], Any]] = {
    "Quantity": _quantity,
    "Time": _time,
    "MicroTime": _micro_time,
    "IntOrString": _int_or_string,
    "FieldsV1": _json,
    "RawExtension": _json,
    "ExtraValue": _texts,
}
