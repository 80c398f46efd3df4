"""What deploy/kubernetes says, read as kubectl would; and how Kubernetes compares labels."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
PLATFORM = KUBERNETES / "platform"
MIGRATE = KUBERNETES / "migrate"
INGRESS = PLATFORM / "ingress.example.yaml"
SERVERS = ("web", "proxy", "worker")
WORKLOADS = ("Deployment", "StatefulSet", "Job")


@cache
def read(path: Path) -> list[Document]:
    """Return a file's documents, which nobody changes."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def listed(folder: Path) -> list[Document]:
    """Return what a kustomization lists, and nothing that merely lies beside it."""
    (found,) = read(folder / "kustomization.yaml")
    return [one for name in found["resources"] for one in read(folder / name)]


def of_kind(*kinds: str) -> list[Document]:
    documents = [*listed(KUBERNETES), *listed(PLATFORM), *listed(MIGRATE), *read(INGRESS)]
    return [one for one in documents if one["kind"] in kinds]


def named(kind: str, name: str) -> Document:
    (found,) = (one for one in of_kind(kind) if one["metadata"]["name"] == name)
    return found


def workload(name: str) -> Document:
    (found,) = (one for one in of_kind(*WORKLOADS) if one["metadata"]["name"] == name)
    return found


def pod(name: str) -> Document:
    return workload(name)["spec"]["template"]["spec"]


def pod_labels(name: str) -> dict[str, str]:
    return workload(name)["spec"]["template"]["metadata"]["labels"]


def container(name: str) -> Document:
    (found,) = pod(name)["containers"]
    return found


def selected(selector: Mapping[str, str]) -> list[str]:
    """Return the workloads whose pods a selector finds."""
    names = [one["metadata"]["name"] for one in of_kind(*WORKLOADS)]
    return [name for name in names if matches({"matchLabels": selector}, pod_labels(name))]


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Compare as Kubernetes does; an empty selector matches everything."""
    assert set(selector) <= {"matchLabels"}, "no test knows matchExpressions yet"
    return selector.get("matchLabels", {}).items() <= labels.items()


def port_of(name: str, wanted: int | str) -> int:
    """Return the number of a container's port, as a Service or a probe names it."""
    ports = container(name).get("ports", [])
    (found,) = (one for one in ports if wanted in {one["name"], one["containerPort"]})
    return found["containerPort"]


def env_file(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def image_environment() -> dict[str, str]:
    """Return what the image itself sets, beside what Python and pip need."""
    run = _dockerfile().rpartition("\nFROM ")[2]
    found: dict[str, str] = {}
    for line in re.findall(r"^ENV (.*)$", run, re.MULTILINE):
        found |= dict(part.split("=", 1) for part in line.split())
    return found


def image_says(instruction: str) -> str:
    """Return the last line of the Dockerfile with this instruction."""
    return list(_lines(instruction))[-1]


def _lines(instruction: str) -> Iterator[str]:
    yield from re.findall(rf"^{instruction} (.*)$", _dockerfile(), re.MULTILINE)


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
