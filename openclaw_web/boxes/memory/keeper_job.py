"""The Job that carries a box's memory: a pod as closed as the box's own, for some minutes."""

from dataclasses import dataclass

from openclaw_web.boxes import manifests
from openclaw_web.boxes.manifests import Manifest
from openclaw_web.boxes.memory.addresses import Ticket, Way

NAME = "keeper"
FORMER_SECRET = "keeper"  # noqa: S105 - the name that all attempts of an earlier release shared
TOKEN_KEY = "KEEPER_TOKEN"  # noqa: S105 - a variable's name
PROGRAM = "/app/keeper.py"  # where the Dockerfile of every release puts it
LONGEST_SECONDS = 3_600
FORGOTTEN_SECONDS = 600  # should nobody be left to delete it
# Less than any plan's box has, so that quota and limits let it in.
REQUESTS = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "16Mi"}
LIMITS = {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "64Mi"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A snapshot, and the volume that has to be made to read it."""

    snapshot: str
    size: str
    storage_class: str


@dataclass(frozen=True, kw_only=True)
class KeeperSpec:
    """One keeper; `url` is where it sends to or fetches from, `fence` is whose attempt made it.

    Its `seconds` count from its Job's start, before its volume is there.
    """

    namespace: str
    box_id: str
    image: str
    url: str
    ticket: Ticket
    fence: int
    runtime_class: str = ""
    claim: str = manifests.NAME
    seconds: int = LONGEST_SECONDS

    @property
    def name(self) -> str:
        """Return a name that no other attempt has, so that each can take its own away."""
        return f"{NAME}-{self.ticket.way.value}-{self.ticket.backup_id.hex[:12]}-{self.fence:x}"


def secret(spec: KeeperSpec, *, job_uid: str) -> Manifest:
    """Hold the address's token: a Job's own text may be read by more people than a Secret.

    It has its Job's name, belongs to it and goes with it: no other attempt's is ever touched, also
    not by who comes too late. The Job is there first, and its pod waits for this.
    """
    owned = {**_meta(spec, spec.name), "ownerReferences": [_owner(spec, job_uid)]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned,
        "type": "Opaque",
        "stringData": {TOKEN_KEY: spec.ticket.token},
    }


def job(spec: KeeperSpec) -> Manifest:
    """One pod, one try: a second one needs another address."""
    meta = {**_meta(spec, spec.name), "annotations": {manifests.FENCE: str(spec.fence)}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": spec.seconds,
            "ttlSecondsAfterFinished": FORGOTTEN_SECONDS,
            "template": {"metadata": {"labels": _labels(spec)}, "spec": _pod(spec)},
        },
    }


def copied_claim(spec: KeeperSpec, source: Source, *, job_uid: str) -> Manifest:
    """Describe the volume that a snapshot is read from: it belongs to the Job and goes with it."""
    owned = {**_meta(spec, spec.claim), "ownerReferences": [_owner(spec, job_uid)]}
    wanted: Manifest = {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": source.size}},
        "dataSource": {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": source.snapshot,
        },
    }
    if source.storage_class:
        wanted["storageClassName"] = source.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": owned,
        "spec": wanted,
    }


def _pod(spec: KeeperSpec) -> Manifest:
    pod: Manifest = {
        "serviceAccountName": manifests.NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostUsers": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": manifests.USER_ID,
            "runAsGroup": manifests.USER_ID,
            "fsGroup": manifests.USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec)],
        "volumes": [
            {"name": "state", "persistentVolumeClaim": {"claimName": spec.claim}},
        ],
    }
    if spec.runtime_class:
        pod["runtimeClassName"] = spec.runtime_class
    return pod


def _container(spec: KeeperSpec) -> Manifest:
    mount: Manifest = {"name": "state", "mountPath": manifests.STATE_FOLDER}
    if spec.ticket.way is Way.SAVE:
        mount["readOnly"] = True
    plain = {
        "KEEPER_ACT": spec.ticket.way.value,
        "KEEPER_FOLDER": manifests.STATE_FOLDER,
        "KEEPER_URL": spec.url,
        "KEEPER_MARK": spec.ticket.mark,
    }
    token = {
        "name": TOKEN_KEY,
        "valueFrom": {"secretKeyRef": {"name": spec.name, "key": TOKEN_KEY}},
    }
    return {
        "name": NAME,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-I", "-S", PROGRAM],
        "env": [*({"name": name, "value": value} for name, value in plain.items()), token],
        "resources": {"requests": REQUESTS, "limits": LIMITS},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [mount],
    }


def _owner(spec: KeeperSpec, job_uid: str) -> Manifest:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": spec.name, "uid": job_uid}


def _meta(spec: KeeperSpec, name: str) -> Manifest:
    return {"name": name, "namespace": spec.namespace, "labels": _labels(spec)}


def _labels(spec: KeeperSpec) -> dict[str, str]:
    """Without the mark of a managed object: the watch would take this pod for the box's."""
    return {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/managed-by": "openclaw-cloud",
        manifests.BOX_LABEL: spec.box_id,
    }
