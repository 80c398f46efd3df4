"""Clusters for the contract tests: how to start one, and how to ask it."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client, config
from kubernetes.client.rest import ApiException

from tests.contracts.simulator_process import Simulator, eventually, running

REAL = os.environ.get("TEST_KUBECONFIG", "")
IMAGE = "agent:1"
AGENT = """
import http.server, json, os, signal, sys, time
begun = time.monotonic()
files = os.environ.get("MOUNT_DATA", ".")
print("hello from", os.environ["POD_IP"], flush=True)
if os.environ.get("CRASH"):
    sys.exit(3)
if os.environ.get("FINISH"):
    sys.exit(0)
if os.environ.get("GREEDY"):
    hoard = bytearray(int(os.environ["GREEDY"]) << 20)
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(float(os.environ.get("LISTEN_AFTER", "0")))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/say/"):
            print(self.path, flush=True)
        is_broken = os.path.exists(os.path.join(files, "broken" + self.path.replace("/", "-")))
        body = json.dumps({"env": dict(os.environ), "pid": os.getpid(), "argv": sys.argv}).encode()
        self.send_response(503 if is_broken else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
place = (os.environ["POD_IP"], int(os.environ["PORT_8080"]))
server = http.server.ThreadingHTTPServer(place, Handler)
print("ready at", time.time(), flush=True)
server.serve_forever()
"""


@dataclass
class Cluster:
    """The official clients of one cluster; untyped, since they take plain dicts for models."""

    kubeconfig: Path
    api: client.ApiClient
    simulator: Any = None

    @property
    def core(self) -> Any:
        return client.CoreV1Api(self.api)

    def create_unchecked(self, namespace: str, body: dict[str, Any], validation: str = "") -> Any:
        """Create a Deployment that the client's own types would refuse."""
        custom: Any = client.CustomObjectsApi(self.api)
        more = {"field_validation": validation} if validation else {}
        return custom.create_namespaced_custom_object(
            "apps", "v1", namespace, "deployments", body, **more
        )

    @property
    def apps(self) -> Any:
        return client.AppsV1Api(self.api)

    @property
    def networking(self) -> Any:
        return client.NetworkingV1Api(self.api)

    @property
    def batch(self) -> Any:
        return client.BatchV1Api(self.api)

    def pods(self, namespace: str, selector: str = "") -> list[Any]:
        return self.core.list_namespaced_pod(namespace, label_selector=selector).items

    def ready_pod(self, namespace: str, seconds: float = 30) -> Any:
        return eventually(lambda: next(filter(is_ready, self.pods(namespace)), None), seconds)

    def waiting_reason(self, namespace: str, name: str) -> str:
        found = self.core.read_namespaced_pod(name, namespace).status.container_statuses or []
        states = [one.state.waiting for one in found]
        return states[0].reason if states and states[0] else ""

    def folder_of(self, pod: Any, volume: str) -> Path:
        """Ask the agent where a volume of its pod really is."""
        found = httpx.get(url_of(pod), trust_env=False, timeout=5).json()
        return Path(found["env"][f"MOUNT_{volume}"])

    def eventually_told(self, namespace: str, reason: str, text: str) -> Any:
        """Wait for an event with this reason, in which these words stand."""
        return eventually(
            lambda: [said for why, said in self.events(namespace) if why == reason and text in said]
        )

    def events(self, namespace: str) -> list[tuple[str, str]]:
        found = self.core.list_namespaced_event(namespace).items
        return [(one.reason, one.message) for one in found]


@dataclass
class Control:
    """What the simulator does on request and no real cluster would."""

    simulator: Simulator

    def ask(self, method: str, path: str, **body: Any) -> Any:
        given = None if method == "GET" else body
        answer = self.simulator.http.request(method, f"/_control/{path}", json=given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def settings(self, **wanted: Any) -> Any:
        return self.ask("PATCH", "settings", **wanted)

    def fault(self, **wanted: Any) -> Any:
        return self.ask("POST", "faults", **wanted)

    def token(self, user: str, *groups: str) -> str:
        return self.ask("POST", "tokens", user=user, groups=list(groups))["token"]


def with_token(cluster: Cluster, token: str) -> Cluster:
    """Return the same cluster as somebody else sees it."""
    settings = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=settings)
    settings.api_key = {"authorization": f"Bearer {token}"}
    settings.refresh_api_key_hook = None
    return Cluster(cluster.kubeconfig, client.ApiClient(settings), cluster.simulator)


def url_of(pod: Any) -> str:
    """Return where the agent of a pod listens, by what the cluster's API says."""
    shown = json.loads((pod.metadata.annotations or {}).get("simulator/ports", "{}"))
    return f"http://{pod.status.pod_ip}:{shown.get('8080', 8080)}/"


def is_ready(pod: Any) -> bool:
    conditions = (pod.status and pod.status.conditions) or []
    is_true = any(one.type == "Ready" and one.status == "True" for one in conditions)
    return is_true and pod.metadata.deletion_timestamp is None


def connect(kubeconfig: Path, simulator: Simulator | None = None) -> Cluster:
    settings = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=settings)
    return Cluster(kubeconfig, client.ApiClient(settings), simulator)


@contextlib.contextmanager
def simulated(folder: Path, *more: str) -> Generator[Cluster]:
    """Start a simulator whose only image is the agent above."""
    folder.mkdir(parents=True, exist_ok=True)
    agent = folder / "agent.py"
    agent.write_text(AGENT)
    images = {IMAGE: {"command": [sys.executable, "-u", str(agent)], "env": {"FROM_IMAGE": "yes"}}}
    (folder / "images.json").write_text(json.dumps(images))
    arguments = ("--images", str(folder / "images.json"), "--kubeconfig", str(folder / "config"))
    with running("kubernetes", folder, *arguments, *more) as simulator:
        cluster = connect(folder / "config", simulator)
        try:
            yield cluster
        finally:
            cluster.api.rest_client.pool_manager.clear()


def refused(call: Callable[[], Any]) -> tuple[int, str, str]:
    """Return code, reason and message of the refusal that a call must end in."""
    with pytest.raises(ApiException) as caught:
        call()
    status = json.loads(caught.value.body or "{}")
    return caught.value.status or 0, status.get("reason", ""), status.get("message", "")


def pod_spec(**more: Any) -> dict[str, Any]:
    """Return a pod spec with one agent; `env` is a mapping, the rest goes to the container."""
    env = [{"name": key, "value": value} for key, value in more.pop("env", {}).items()]
    volumes, grace = more.pop("volumes", []), more.pop("grace", 2)
    port = {"name": "http", "containerPort": 8080}
    probe = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1}
    container = {"name": "agent", "image": IMAGE, "ports": [port], "readinessProbe": probe}
    return {
        "terminationGracePeriodSeconds": grace,
        "containers": [{**container, "env": env, **more}],
        "volumes": volumes,
    }


def pod(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": pod_spec(**more)}


def deployment(name: str, replicas: int = 1, /, **more: Any) -> dict[str, Any]:
    labels = {"app": name}
    strategy = more.pop("strategy", {"type": "Recreate"})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "strategy": strategy,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(**more)},
        },
    }


def claim(name: str = "data") -> dict[str, Any]:
    wanted = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOncePod"], "resources": wanted}
    return {"metadata": {"name": name}, "spec": spec}


DATA_VOLUME = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
DATA_MOUNT = {"name": "data", "mountPath": "/data"}
