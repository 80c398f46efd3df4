"""A pod's volumes as real folders.

A pod is a process and not a container, so a mount path such as `/data` cannot be made to exist for
it alone. Instead each volume is a folder, and the process is told where: see `environment`.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.folders import File, Owner, private_folder, project, readable_folder
from simulators.kubernetes.objects import Object, is_terminating, namespace_of, status_of

_TEMPORARY = "/tmp"  # noqa: S108 - a mount path of a spec
_FILE_KINDS = ("secret", "configMap", "projected")


class Unmountable(Exception):  # noqa: N818 - a state to wait in, named as the kubelet's event
    """A volume is not there (yet); the message is what `kubectl describe` shows."""


@dataclass(frozen=True, kw_only=True)
class Mounts:
    """Where one pod's volumes are."""

    cluster: Cluster
    folder: Path
    volumes: Path
    owner: Owner | None

    def prepare(self, pod: Object) -> dict[str, Path]:
        """Make every volume of the pod and return their folders by name.

        Raises:
            Unmountable: something it needs is missing.
        """
        return {
            volume["name"]: self._prepare_one(pod, volume)
            for volume in pod["spec"].get("volumes") or ()
        }

    def refresh(self, pod: Object) -> None:
        """Show the newest contents of Secrets and ConfigMaps; what is gone stays as it was."""
        for volume in pod["spec"].get("volumes") or ():
            if any(kind in volume for kind in _FILE_KINDS):
                try:
                    self._prepare_one(pod, volume)
                except Unmountable:
                    continue

    def _prepare_one(self, pod: Object, volume: Mapping[str, Any]) -> Path:
        name = volume["name"]
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            return self._claimed(namespace_of(pod), claim)
        path = self.folder / "volumes" / name
        if "emptyDir" in volume:
            return private_folder(path, self.owner)
        if any(kind in volume for kind in _FILE_KINDS):
            folder = readable_folder(path, self.owner)
            project(folder, dict(self._files(namespace_of(pod), volume)), self.owner)
            return folder
        kinds = ", ".join(sorted(volume.keys() - {"name"}))
        raise Unmountable(
            f'MountVolume.SetUp failed for volume "{name}" : {kinds} volumes are not offered by'
            " this development cluster"
        )

    def _claimed(self, namespace: str, name: str) -> Path:
        claim = self.cluster.find(resources.CLAIMS, namespace, name)
        if claim is None or is_terminating(claim):
            raise Unmountable(f'persistentvolumeclaim "{name}" not found')
        volume = self.cluster.find(resources.VOLUMES, "", claim["spec"].get("volumeName", ""))
        if status_of(claim).get("phase") != "Bound" or volume is None:
            raise Unmountable("pod has unbound immediate PersistentVolumeClaims")
        path = Path((volume["spec"].get("hostPath") or {}).get("path", ""))
        if self.volumes not in path.parents:
            raise Unmountable(
                f'volume "{volume["metadata"]["name"]}" is not in the folder for volumes'
            )
        return private_folder(path, self.owner)

    def _files(self, namespace: str, volume: Mapping[str, Any]) -> Iterator[tuple[str, File]]:
        for kind in ("secret", "configMap"):
            if kind in volume:
                source = volume[kind]
                mode = source["defaultMode"]
                yield from self._source(namespace, kind, source, mode)
        if "projected" in volume:
            mode = volume["projected"]["defaultMode"]
            for entry in volume["projected"].get("sources") or ():
                for kind, source in entry.items():
                    yield from self._source(namespace, kind, source, mode)

    def _source(
        self, namespace: str, kind: str, source: Mapping[str, Any], mode: int
    ) -> Iterator[tuple[str, File]]:
        kinds = {"secret": resources.SECRETS, "configMap": resources.CONFIG_MAPS}
        if kind not in kinds:
            raise Unmountable(f"{kind} volumes are not offered by this development cluster")
        name = source.get("secretName") or source.get("name", "")
        found = self.cluster.find(kinds[kind], namespace, name)
        if found is None:
            if source.get("optional"):
                return
            raise Unmountable(f'MountVolume.SetUp failed : {kind.lower()} "{name}" not found')
        contents = contents_of(found)
        every = [{"key": key, "path": key} for key in contents]
        items: Iterable[Mapping[str, Any]] = source.get("items", every)
        for item in items:  # each has a key, a path and perhaps a mode
            if item["key"] not in contents:
                raise Unmountable(f"references non-existent {kind.lower()} key: {item['key']}")
            yield _safe(item["path"]), File(contents[item["key"]], item.get("mode", mode))


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """A container's volumes as a sandbox needs them; `scratch` is the one that stands for /tmp."""

    readable: list[Path]
    writable: list[Path]
    scratch: Path | None


def split(container: Mapping[str, Any], folders: Mapping[str, Path]) -> Mounted:
    """Sort the real folders of a container's volumes by what may be done with them."""
    mounts = container.get("volumeMounts") or ()
    return Mounted(
        readable=[folders[one["name"]] for one in mounts if one.get("readOnly")],
        writable=[folders[one["name"]] for one in mounts if not one.get("readOnly")],
        scratch=next(
            (folders[one["name"]] for one in mounts if one["mountPath"].rstrip("/") == _TEMPORARY),
            None,
        ),
    )


def contents_of(one: Object) -> dict[str, bytes]:
    """Return a Secret's or a ConfigMap's entries as bytes."""
    if one["kind"] == "Secret":
        return {key: base64.b64decode(text) for key, text in (one.get("data") or {}).items()}
    plain = {key: text.encode() for key, text in (one.get("data") or {}).items()}
    binary = {key: base64.b64decode(text) for key, text in (one.get("binaryData") or {}).items()}
    return plain | binary


def _safe(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise Unmountable(f"invalid path {path!r}: must be relative and must not contain '..'")
    return path
