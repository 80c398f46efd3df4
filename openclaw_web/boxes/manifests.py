"""What a box is in Kubernetes: from one specification, the objects to apply, in order."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from openclaw_web.boxes import network, reloading
from openclaw_web.boxes.openclaw_config import PORT, PUT_USER_FILE
from openclaw_web.boxes.reloading import CONFIG_FILE, USER_FILE

Manifest = dict[str, Any]

NAME = "openclaw"
MANAGED = "openclaw.cloud/managed"
# Labels of a namespace by which the cluster refuses any pod that asks for more than ours do.
GUARDS = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")
}
BOX_LABEL = "openclaw.cloud/box"
CUSTOMER_LABEL = "openclaw.cloud/customer"
GENERATION = "openclaw.cloud/generation"
CONFIG_HASH = "openclaw.cloud/config-hash"
LIVE_HASH = "openclaw.cloud/live-hash"
STARTED = "openclaw.cloud/started-generation"
TOKEN_ID = "openclaw.cloud/proxy-token-id"  # noqa: S105 - an annotation's name, the id is no secret
RESTART = "openclaw.cloud/restart"
FENCE = "openclaw.cloud/fence"

USER_ID = 1000  # the user `node` of OpenClaw's image
CONFIG_FOLDER = "/config"
STATE_FOLDER = "/data"
SCRATCH_FOLDER = "/tmp"  # noqa: S108 - the pod's own emptyDir
SCRATCH_SIZE = "1Gi"
EPHEMERAL_REQUEST = "256Mi"
EPHEMERAL_LIMIT = "2Gi"
# OpenClaw takes 20 to 24 s of processor time to start: 12 s where nothing else runs, and more than
# three minutes were seen on two busy cores. Until then nothing may end it: it would start over.
STARTUP_SECONDS = 240
GRACE_SECONDS = 60  # OpenClaw drains a running answer; without Telegram it would wait 327 s
SECRET_NAMES = ("OPENCLAW_PROXY_TOKEN", "TELEGRAM_BOT_TOKEN", "OPENCLAW_GATEWAY_TOKEN")


@dataclass(frozen=True, kw_only=True)
class BoxSpec:
    """One box as the cluster shall have it; sizes are Kubernetes quantities."""

    box_id: str
    customer_id: str
    namespace: str
    image: str
    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    storage: str
    generation: int
    config: str
    user_text: str
    destinations: tuple[str, ...]
    storage_class: str = ""
    runtime_class: str = ""
    dns_cidrs: tuple[str, ...] = ()
    restart: str = ""
    people_mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What only the Secret may hold."""

    proxy_token_id: str
    proxy_token: str = field(repr=False)
    telegram_token: str = field(repr=False)
    gateway_token: str = field(repr=False)


def namespace_of(box_id: object) -> str:
    return f"customer-{box_id}"


def config_hash(spec: BoxSpec) -> str:
    """Return what changes exactly when the pod has to be made anew, credentials aside.

    OpenClaw takes USER.md into its workspace at its start, so a change of it is none to take live.
    """
    cold = [reloading.cold_config(spec.config), spec.user_text, spec.people_mark]
    chosen = [pod_template(spec, token_id=""), *cold]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:32]


def live_hash(spec: BoxSpec) -> str:
    """Return what changes exactly when a file that the pod has mounted does."""
    return reloading.live_hash(spec.config, spec.user_text)


def surroundings(spec: BoxSpec, *, fence: int) -> list[Manifest]:
    """Return all that stands around the pod, in the order in which it is applied."""
    return [
        namespace(spec, fence=fence),
        service_account(spec),
        limit_range(spec),
        resource_quota(spec),
        network_policy(spec),
        claim(spec),
    ]


def namespace(spec: BoxSpec, *, fence: int) -> Manifest:
    labels = {**_labels(spec), **GUARDS}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": spec.namespace,
            "labels": labels,
            "annotations": {FENCE: str(fence)},
        },
    }


def service_account(spec: BoxSpec) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(spec),
        "automountServiceAccountToken": False,
    }


def limit_range(spec: BoxSpec) -> Manifest:
    """Bound what each container may have, also one that states nothing."""
    limits = _limits(spec)
    item = {
        "type": "Container",
        "default": limits,
        "defaultRequest": _requests(spec),
        "max": limits,
    }
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": _meta(spec),
        "spec": {"limits": [item]},
    }


def resource_quota(spec: BoxSpec) -> Manifest:
    """Leave room for one pod: two would fight over the bot and the volume.

    Amounts are the LimitRange's: a quota also counts what a RuntimeClass adds to a pod, and a
    volume that was made for a larger plan stays as large.
    """
    hard = {
        "pods": "1",
        "persistentvolumeclaims": "1",
        "services.loadbalancers": "0",
        "services.nodeports": "0",
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _meta(spec),
        "spec": {"hard": hard},
    }


def network_policy(spec: BoxSpec) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(spec),
        "spec": network.policy(destinations=spec.destinations, dns_cidrs=spec.dns_cidrs),
    }


def claim(spec: BoxSpec) -> Manifest:
    """The volume that holds the assistant's memory; one pod may mount it at a time."""
    wanted: Manifest = {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": spec.storage}},
    }
    if spec.storage_class:
        wanted["storageClassName"] = spec.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _meta(spec),
        "spec": wanted,
    }


def secret(spec: BoxSpec, credentials: Credentials, *, fence: int) -> Manifest:
    """Hold what is secret; its annotations say which token and files it has, without reading it."""
    marks = {
        TOKEN_ID: credentials.proxy_token_id,
        LIVE_HASH: live_hash(spec),
        FENCE: str(fence),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**_meta(spec), "annotations": marks},
        "type": "Opaque",
        "stringData": {
            **_files(spec),
            "OPENCLAW_PROXY_TOKEN": credentials.proxy_token,
            "TELEGRAM_BOT_TOKEN": credentials.telegram_token,
            "OPENCLAW_GATEWAY_TOKEN": credentials.gateway_token,
        },
    }


def live_files(spec: BoxSpec, *, fence: int, resource_version: str) -> Manifest:
    """Return the merge patch that changes the Secret's files and leaves its credentials alone.

    It fits one version of the Secret only: what somebody else wrote meanwhile stays.
    """
    marks = {LIVE_HASH: live_hash(spec), FENCE: str(fence)}
    return {
        "metadata": {"annotations": marks, "resourceVersion": resource_version},
        "data": {
            name: base64.b64encode(text.encode()).decode() for name, text in _files(spec).items()
        },
    }


def deployment(spec: BoxSpec, *, token_id: str, fence: int, started: int | None = None) -> Manifest:
    """One replica, made anew and never two at once; whoever wrote it last is in its annotations.

    `started` is the generation of settings that its pod was made for, this one when not said;
    newer ones may be live in it.
    """
    meta = _meta(spec)
    meta["annotations"] = {
        **_annotations(spec, token_id),
        GENERATION: str(spec.generation),
        LIVE_HASH: live_hash(spec),
        STARTED: str(spec.generation if started is None else started),
        FENCE: str(fence),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _selector(spec)},
            "template": pod_template(spec, token_id=token_id, is_hashed=True),
        },
    }


def pod_template(spec: BoxSpec, *, token_id: str, is_hashed: bool = False) -> Manifest:
    pod: Manifest = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostUsers": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_put_user_file(spec)],
        "containers": [_container(spec)],
        "volumes": _volumes(),
    }
    if spec.runtime_class:
        pod["runtimeClassName"] = spec.runtime_class
    annotations = _annotations(spec, token_id) if is_hashed else {RESTART: spec.restart}
    return {"metadata": {"labels": _labels(spec), "annotations": annotations}, "spec": pod}


def _container(spec: BoxSpec) -> Manifest:
    return {
        "name": NAME,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "gateway", "containerPort": PORT, "protocol": "TCP"}],
        "env": _environment(),
        "resources": {"requests": _requests(spec), "limits": _limits(spec)},
        "securityContext": _no_rights(),
        # OpenClaw needs 11 to 38 s until it is ready, more with half a core.
        "startupProbe": _probe("/startupz", period=1, failures=STARTUP_SECONDS),
        # Readiness covers Telegram, and no Service depends on it: the watch carries it to us.
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
            {"name": "scratch", "mountPath": SCRATCH_FOLDER},
        ],
    }


def _put_user_file(spec: BoxSpec) -> Manifest:
    """Put USER.md where OpenClaw looks for it; the same limits, so that the quota stays one pod."""
    known = {
        "OPENCLAW_STATE_DIR": STATE_FOLDER,
        "OPENCLAW_USER_MD": f"{CONFIG_FOLDER}/{USER_FILE}",
    }
    return {
        "name": "user-file",
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(PUT_USER_FILE),
        "env": [{"name": name, "value": value} for name, value in known.items()],
        "resources": {"requests": _requests(spec), "limits": _limits(spec)},
        "securityContext": _no_rights(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
        ],
    }


def _no_rights() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _environment() -> list[Manifest]:
    plain = {
        "HOME": STATE_FOLDER,
        "TMPDIR": SCRATCH_FOLDER,
        "OPENCLAW_STATE_DIR": STATE_FOLDER,
        "OPENCLAW_CONFIG_PATH": f"{CONFIG_FOLDER}/openclaw.json",
        "OPENCLAW_USER_MD": f"{CONFIG_FOLDER}/USER.md",
        "OPENCLAW_CONFIG_READONLY": "1",
        "DO_NOT_TRACK": "1",
        "NODE_OPTIONS": "--max-old-space-size=1536",
    }
    hidden = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": NAME, "key": name}}}
        for name in SECRET_NAMES
    ]
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return [*({"name": name, "value": value} for name, value in plain.items()), *hidden, address]


def _volumes() -> list[Manifest]:
    files = [{"key": name, "path": name} for name in (CONFIG_FILE, USER_FILE)]
    return [
        # Group-readable only: OpenClaw's own audit calls a world-readable configuration critical.
        {
            "name": "config",
            "secret": {"secretName": NAME, "defaultMode": 0o440, "items": files},
        },
        {"name": "state", "persistentVolumeClaim": {"claimName": NAME}},
        {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_SIZE}},
    ]


def _files(spec: BoxSpec) -> dict[str, str]:
    return {CONFIG_FILE: spec.config, USER_FILE: spec.user_text}


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "gateway"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _requests(spec: BoxSpec) -> dict[str, str]:
    return {
        "cpu": spec.cpu_request,
        "memory": spec.memory_request,
        "ephemeral-storage": EPHEMERAL_REQUEST,
    }


def _limits(spec: BoxSpec) -> dict[str, str]:
    return {
        "cpu": spec.cpu_limit,
        "memory": spec.memory_limit,
        "ephemeral-storage": EPHEMERAL_LIMIT,
    }


def _meta(spec: BoxSpec) -> Manifest:
    return {"name": NAME, "namespace": spec.namespace, "labels": _labels(spec)}


def _labels(spec: BoxSpec) -> dict[str, str]:
    return {
        **_selector(spec),
        "app.kubernetes.io/managed-by": "openclaw-cloud",
        MANAGED: "true",
        CUSTOMER_LABEL: spec.customer_id,
    }


def _selector(spec: BoxSpec) -> dict[str, str]:
    return {"app.kubernetes.io/name": NAME, BOX_LABEL: spec.box_id}


def _annotations(spec: BoxSpec, token_id: str) -> dict[str, str]:
    return {
        CONFIG_HASH: config_hash(spec),
        TOKEN_ID: token_id,
        RESTART: spec.restart,
    }
