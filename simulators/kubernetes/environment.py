"""A container's environment, built from nothing: only what its image and its spec say.

Since a pod is a process, three things stand in for what a container would have:

* `MOUNT_<VOLUME>` (upper case, `-` and `.` as `_`) is the real folder of each mounted volume, and
  any value of the spec that is a mount path, or starts with one, is rewritten to the real folder
  (an image's own values name real folders already, some of which may begin like a mount path);
* `POD_IP` is the address to listen on, `PORT_<containerPort>` the port (the same number on Linux;
  where not, the pod's annotation `simulator/ports` says it to others);
* `RUN_AS_UID` and `RUN_AS_GID` ask the program to take that user id once it is loaded, since its
  interpreter may be in a folder that this user cannot reach.

Variables that would change which code runs (the loader's and Python's own) come from images only.
"""

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

from simulators.kubernetes import quantities, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.folders import Owner
from simulators.kubernetes.images import Image
from simulators.kubernetes.mounts import contents_of
from simulators.kubernetes.objects import Object, annotations_of, labels_of, namespace_of
from simulators.kubernetes.probes import Place

PATH = "/usr/local/bin:/usr/bin:/bin"
_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z0-9]+)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_LOADER = re.compile(r"(LD|DYLD|PYTHON|GLIBC)[A-Z_]*|GCONV_PATH|BASH_ENV")
_NOT_SHOUTED = re.compile(r"[^A-Z0-9]")


class Unresolved(Exception):  # noqa: N818 - a state to wait in, shown as CreateContainerConfigError
    """A variable refers to what is not there (yet)."""


def build(
    cluster: Cluster, pod: Object, container: Mapping[str, Any], image: Image, place: Place
) -> dict[str, str]:
    """Return what the image and the spec ask for, later definitions winning.

    Raises:
        Unresolved: a Secret, a ConfigMap or a key is missing.
    """
    found = dict(image.env)
    for source in container.get("envFrom") or ():
        found |= _all_of(cluster, pod, source)
    for variable in container.get("env") or ():
        if "valueFrom" in variable:
            reference = _Reference(cluster, pod, container, place.address)
            value = reference.resolve(variable["valueFrom"])
            if value is None:
                continue
        else:
            value = _expanded(variable.get("value", ""), found)
        found[variable["name"]] = value
    return {
        name: value
        for name, value in found.items()
        if name in image.env or not _LOADER.fullmatch(name)
    }


def ignored(container: Mapping[str, Any]) -> list[str]:
    """Return the variables of a spec that are left out for safety."""
    names = [one["name"] for one in container.get("env") or ()]
    return [name for name in names if _LOADER.fullmatch(name)]


def complete(
    asked: Mapping[str, str],
    container: Mapping[str, Any],
    *,
    image: Image,
    folders: Mapping[str, Path],
    place: Place,
    home: Path,
    owner: Owner | None,
) -> dict[str, str]:
    """Add what stands in for a container: real folders, the address, the user."""
    mounts = mount_paths(container, folders)
    found = {"PATH": PATH, "HOME": str(home), "LANG": "C.UTF-8"}
    found |= {
        name: value if image.env.get(name) == value else rewritten(value, mounts)
        for name, value in asked.items()
    }
    for mount in reversed(container.get("volumeMounts") or []):
        shouted = _NOT_SHOUTED.sub("_", mount["name"].upper())
        found[f"MOUNT_{shouted}"] = str(mounts[_clean(mount["mountPath"])])
    found["POD_IP"] = place.address
    found |= {f"PORT_{port}": str(real) for port, real in place.ports.items()}
    if owner is not None:
        found |= {"RUN_AS_UID": str(owner.uid), "RUN_AS_GID": str(owner.gid)}
    return found


def mount_paths(container: Mapping[str, Any], folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return the real folder of each mount path, the longest paths first."""
    found = {
        _clean(mount["mountPath"]): folders[mount["name"]] / mount.get("subPath", "")
        for mount in container.get("volumeMounts") or ()
    }
    return dict(sorted(found.items(), key=lambda one: -len(one[0])))


def rewritten(value: str, mounts: Mapping[str, Path]) -> str:
    for place, real in mounts.items():
        if value == place or value.startswith(f"{place}/"):
            return f"{real}{value.removeprefix(place)}"
    return value


def _clean(path: str) -> str:
    return path.rstrip("/") or "/"


def _all_of(cluster: Cluster, pod: Object, source: Mapping[str, Any]) -> dict[str, str]:
    prefix = source.get("prefix", "")
    for field, resource in (
        ("secretRef", resources.SECRETS),
        ("configMapRef", resources.CONFIG_MAPS),
    ):
        if field in source:
            contents = _contents(cluster, pod, resource, source[field])
            return {prefix + key: value.decode() for key, value in (contents or {}).items()}
    return {}


def _contents(
    cluster: Cluster, pod: Object, resource: resources.Resource, reference: Mapping[str, Any]
) -> dict[str, bytes] | None:
    name = reference.get("name", "")
    found = cluster.find(resource, namespace_of(pod), name)
    if found is not None:
        return contents_of(found)
    if reference.get("optional"):
        return None
    raise Unresolved(f'{resource.kind.lower()} "{name}" not found')


class _Reference:
    """One `valueFrom`."""

    def __init__(
        self, cluster: Cluster, pod: Object, container: Mapping[str, Any], address: str
    ) -> None:
        self._cluster = cluster
        self._pod = pod
        self._container = container
        self._address = address

    def resolve(self, source: Mapping[str, Any]) -> str | None:
        """Return the value, or None when it is optional and missing."""
        for field, resource in (
            ("secretKeyRef", resources.SECRETS),
            ("configMapKeyRef", resources.CONFIG_MAPS),
        ):
            if field in source:
                return self._key(resource, source[field])
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        if "resourceFieldRef" in source:
            return self._limit(source["resourceFieldRef"])
        raise Unresolved(f"unsupported source {', '.join(source)}")

    def _key(self, resource: resources.Resource, reference: Mapping[str, Any]) -> str | None:
        contents = _contents(self._cluster, self._pod, resource, reference)
        key = reference["key"]
        if contents is not None and key in contents:
            return contents[key].decode()
        if reference.get("optional"):
            return None
        where = f"{resource.kind} {namespace_of(self._pod)}/{reference.get('name', '')}"
        raise Unresolved(f"couldn't find key {key} in {where}")

    def _field(self, path: str) -> str:
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        if match := _SUBSCRIPT.fullmatch(path):
            kind, key = match.groups()
            found = labels_of(self._pod) if kind == "labels" else annotations_of(self._pod)
            return found.get(key, "")
        known = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "status.podIP": self._address,
            "status.podIPs": self._address,
            "status.hostIP": "127.0.0.1",
            "status.hostIPs": "127.0.0.1",
        }
        if path not in known:
            raise Unresolved(f"unsupported fieldPath: {path}")
        return known[path]

    def _limit(self, reference: Mapping[str, Any]) -> str:
        field, _, name = reference["resource"].partition(".")
        stated = ((self._container.get("resources") or {}).get(field) or {}).get(name, "0")
        divisor = quantities.parse(reference.get("divisor") or 1) or quantities.parse(1)
        amount = quantities.parse(stated) / divisor
        return str(int(amount.to_integral_value(rounding=ROUND_CEILING)))


def _expanded(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by what is known already; `$$` stands for a dollar."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return known.get(match[2], match[0])

    return _REFERENCE.sub(value, text)
