"""What a box is in Kubernetes: from one specification, the objects to apply, in order."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from openclaw_web.boxes import network
from openclaw_web.boxes.openclaw_config import PORT

Manifest = dict[str, Any]

NAME = "openclaw"
MANAGED = "openclaw.cloud/managed"
BOX_LABEL = "openclaw.cloud/box"
CUSTOMER_LABEL = "openclaw.cloud/customer"
GENERATION = "openclaw.cloud/generation"
CONFIG_HASH = "openclaw.cloud/config-hash"
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
    """Return what changes exactly when the pod has to be made anew, credentials aside."""
    chosen = [pod_template(spec, token_id=""), spec.config, spec.user_text]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:32]


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
    level = "restricted"
    labels = {
        **_labels(spec),
        **{f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")},
    }
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
    """Give defaults to a container that states nothing: with a quota it would be refused."""
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
    """Leave room for one pod: two would fight over the bot and the volume."""
    requests, limits = _requests(spec), _limits(spec)
    hard = {
        "pods": "1",
        **{f"requests.{name}": amount for name, amount in requests.items()},
        **{f"limits.{name}": amount for name, amount in limits.items()},
        "persistentvolumeclaims": "1",
        "requests.storage": spec.storage,
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


def secret(spec: BoxSpec, credentials: Credentials) -> Manifest:
    """Hold what is secret; its annotation says which token it is, without reading it."""
    meta = {**_meta(spec), "annotations": {TOKEN_ID: credentials.proxy_token_id}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "type": "Opaque",
        "stringData": {
            "openclaw.json": spec.config,
            "USER.md": spec.user_text,
            "OPENCLAW_PROXY_TOKEN": credentials.proxy_token,
            "TELEGRAM_BOT_TOKEN": credentials.telegram_token,
            "OPENCLAW_GATEWAY_TOKEN": credentials.gateway_token,
        },
    }


def deployment(spec: BoxSpec, *, token_id: str, fence: int) -> Manifest:
    """One replica, made anew and never two at once; whoever wrote it last is in its annotations."""
    meta = _meta(spec)
    meta["annotations"] = {**_annotations(spec, token_id), FENCE: str(fence)}
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
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # OpenClaw needs 11 to 38 s until it is ready, more with half a core.
        "startupProbe": _probe("/startupz", period=1, failures=150),
        # Readiness covers Telegram, and no Service depends on it: the watch carries it to us.
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
            {"name": "scratch", "mountPath": SCRATCH_FOLDER},
        ],
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
    files = [{"key": name, "path": name} for name in ("openclaw.json", "USER.md")]
    return [
        # Group-readable only: OpenClaw's own audit calls a world-readable configuration critical.
        {
            "name": "config",
            "secret": {"secretName": NAME, "defaultMode": 0o440, "items": files},
        },
        {"name": "state", "persistentVolumeClaim": {"claimName": NAME}},
        {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_SIZE}},
    ]


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
        GENERATION: str(spec.generation),
        CONFIG_HASH: config_hash(spec),
        TOKEN_ID: token_id,
        RESTART: spec.restart,
    }
