"""What must hold for a pod's spec, alone or in a template."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from simulators.kubernetes import quantities
from simulators.kubernetes.errors import Cause, duplicate, forbidden_field, required, unsupported
from simulators.kubernetes.errors import wrong as wrong_value

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_MOST_PORTS = 65535


def check_pod_spec(spec: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    if spec.get("restartPolicy") not in _RESTART_POLICIES:
        yield unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES)
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        hint = "must be greater than or equal to 0"
        value = spec["terminationGracePeriodSeconds"]
        yield wrong_value(f"{path}.terminationGracePeriodSeconds", value, hint)
    volumes = [one.get("name", "") for one in spec.get("volumes") or ()]
    yield from _volumes(spec, volumes, path)
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, one in enumerate(spec.get(group) or ()):
            here = f"{path}.{group}[{index}]"
            if one.get("name") in names:
                yield duplicate(f"{here}.name", one.get("name"))
            names.add(one.get("name", ""))
            yield from _container(one, volumes, here)


def _volumes(spec: Mapping[str, Any], names: list[str], path: str) -> Iterator[Cause]:
    for index, volume in enumerate(spec.get("volumes") or ()):
        here = f"{path}.volumes[{index}]"
        if not _LABEL.fullmatch(volume.get("name", "")):
            yield wrong_value(f"{here}.name", volume.get("name", ""), "must be an RFC 1123 label")
        if names.count(volume.get("name", "")) > 1:
            yield duplicate(f"{here}.name", volume.get("name"))
        if len(volume.keys() - {"name"}) > 1:
            yield forbidden_field(here, "may not specify more than 1 volume type")


def _container(one: Mapping[str, Any], volumes: list[str], path: str) -> Iterator[Cause]:
    if not _LABEL.fullmatch(one.get("name", "")):
        yield wrong_value(f"{path}.name", one.get("name", ""), "must be an RFC 1123 label")
    if not one.get("image"):
        yield required(f"{path}.image")
    if one.get("imagePullPolicy") not in _PULL_POLICIES:
        yield unsupported(f"{path}.imagePullPolicy", one.get("imagePullPolicy"), _PULL_POLICIES)
    yield from _ports(one, path)
    yield from _environment(one, path)
    yield from _mounts(one, volumes, path)
    yield from _resources(one, path)
    for kind in _PROBES:
        if kind in one:
            yield from _probe(one[kind], f"{path}.{kind}", kind)


def _ports(one: Mapping[str, Any], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(one.get("ports") or ()):
        here = f"{path}.ports[{index}]"
        if not 1 <= port.get("containerPort", 0) <= _MOST_PORTS:
            hint = "must be between 1 and 65535, inclusive"
            yield wrong_value(f"{here}.containerPort", port.get("containerPort", 0), hint)
        if port.get("name") and port["name"] in seen:
            yield duplicate(f"{here}.name", port["name"])
        seen.add(port.get("name", ""))


def _environment(one: Mapping[str, Any], path: str) -> Iterator[Cause]:
    for index, variable in enumerate(one.get("env") or ()):
        here = f"{path}.env[{index}]"
        if not _ENV_NAME.fullmatch(variable.get("name", "")):
            hint = "a valid environment variable name must consist of printable ASCII characters"
            yield wrong_value(f"{here}.name", variable.get("name", ""), hint)
        if variable.get("value") and variable.get("valueFrom"):
            hint = "may not be specified when `value` is not empty"
            yield wrong_value(f"{here}.valueFrom", "", hint)


def _mounts(one: Mapping[str, Any], volumes: list[str], path: str) -> Iterator[Cause]:
    places: set[str] = set()
    for index, mount in enumerate(one.get("volumeMounts") or ()):
        here = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            message = f'Not found: "{mount.get("name", "")}"'
            yield Cause(f"{here}.name", "FieldValueNotFound", message)
        place = mount.get("mountPath", "")
        if not place:
            yield required(f"{here}.mountPath")
        elif place in places:
            yield wrong_value(f"{here}.mountPath", place, "must be unique")
        places.add(place)
        inner = mount.get("subPath", "")
        if inner.startswith("/") or ".." in inner.split("/"):
            yield wrong_value(f"{here}.subPath", inner, "must be a relative path without '..'")


def _resources(one: Mapping[str, Any], path: str) -> Iterator[Cause]:
    wanted = one.get("resources") or {}
    limits = wanted.get("limits") or {}
    for field in ("limits", "requests"):
        for name, value in (wanted.get(field) or {}).items():
            here = f"{path}.resources.{field}[{name}]"
            try:
                amount = quantities.parse(value)
            except ValueError:
                yield wrong_value(here, value, "quantities must match the regular expression")
                continue
            if field == "requests" and name in limits and amount > quantities.parse(limits[name]):
                hint = f"must be less than or equal to {name} limit of {limits[name]}"
                yield wrong_value(f"{path}.resources.requests", value, hint)


def _probe(one: Mapping[str, Any], path: str, kind: str) -> Iterator[Cause]:
    handlers = [handler for handler in _HANDLERS if handler in one]
    if not handlers:
        yield required(path, "must specify a handler type")
    for second in handlers[1:]:
        yield forbidden_field(f"{path}.{second}", "may not specify more than 1 handler type")
    for field in ("periodSeconds", "failureThreshold", "timeoutSeconds", "successThreshold"):
        if one.get(field, 1) < 1:
            yield wrong_value(f"{path}.{field}", one[field], "must be greater than 0")
    if kind != "readinessProbe" and one.get("successThreshold", 1) != 1:
        yield wrong_value(f"{path}.successThreshold", one["successThreshold"], "must be 1")
