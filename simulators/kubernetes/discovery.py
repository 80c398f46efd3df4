"""What this server offers: the documents that clients read before anything else."""

import platform
import sys
from typing import Any

from simulators.kubernetes import errors
from simulators.kubernetes.resources import (
    GROUP_VERSIONS,
    OFFERED,
    SERVER_MINOR,
    SERVER_VERSION,
    Resource,
)

Document = dict[str, Any]
_OTHER_KINDS = {
    "token": ("authentication.k8s.io", "TokenRequest"),
    "eviction": ("policy", "Eviction"),
}


def version() -> Document:
    return {
        "major": "1",
        "minor": SERVER_MINOR,
        "gitVersion": f"{SERVER_VERSION}+simulator",
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"not Go but Python {platform.python_version()}",
        "compiler": sys.implementation.name,
        "platform": f"{sys.platform}/{platform.machine()}",
    }


def core_versions() -> Document:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(absent: str = "") -> Document:
    names = [one for one in GROUP_VERSIONS if one[0] not in {"", absent}]
    listed = [_group(name, number) for name, number in names]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def group(name: str) -> Document:
    """Describe one API group.

    Raises:
        ApiError: 404.
    """
    for known, number in GROUP_VERSIONS:
        if known == name and name:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, number)}
    raise errors.unknown_resource()


def _group(name: str, number: str) -> Document:
    offered = {"groupVersion": f"{name}/{number}", "version": number}
    return {"name": name, "versions": [offered], "preferredVersion": offered}


def resource_list(group_name: str, number: str) -> Document:
    """Describe every kind of a group and version, with its subresources.

    Raises:
        ApiError: 404.
    """
    if (group_name, number) not in GROUP_VERSIONS:
        raise errors.unknown_resource()
    listed = [
        entry
        for one in OFFERED
        if (one.group, one.version) == (group_name, number)
        for entry in _entries(one)
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group_name}/{number}" if group_name else number,
        "resources": listed,
    }


def _entries(one: Resource) -> list[Document]:
    entry: Document = {
        "name": one.plural,
        "singularName": one.kind.lower(),
        "namespaced": one.namespaced,
        "kind": one.kind,
        "verbs": list(one.verbs),
    }
    if one.short:
        entry["shortNames"] = list(one.short)
    if one.in_all:
        entry["categories"] = ["all"]
    return [entry, *(_subresource(one, name) for name in one.subresources)]


def _subresource(one: Resource, name: str) -> Document:
    entry: Document = {
        "name": f"{one.plural}/{name}",
        "singularName": "",
        "namespaced": one.namespaced,
        "kind": one.kind,
        "verbs": ["get", "patch", "update"],
    }
    if name == "scale":
        entry |= {"kind": "Scale", "group": "autoscaling", "version": "v1"}
    elif name == "log":
        entry["verbs"] = ["get"]
    elif name == "finalize":
        entry["verbs"] = ["update"]
    elif name in _OTHER_KINDS:
        group_name, kind = _OTHER_KINDS[name]
        entry |= {"group": group_name, "version": "v1", "kind": kind, "verbs": ["create"]}
    return entry
