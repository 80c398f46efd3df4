"""The operator's role in deploy/kubernetes: a box's whole life needs all of it, and no more."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest
import yaml
from sqlmodel import select

from openclaw_web.boxes import drift, manifests, orphans, stray_tokens, sweeping
from openclaw_web.boxes.memory import backups, keeper_job, snapshots
from openclaw_web.boxes.memory.addresses import Ticket, Way
from openclaw_web.boxes.memory.backups import Reason
from openclaw_web.boxes.memory.keeper_job import KeeperSpec
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceChanged, PodChanged
from openclaw_web.workflows import provisioning
from tests.chaos import stories
from tests.chaos.hands import Hands
from tests.contracts.simulator_process import ROOT
from tests.flows.box_world import IMAGE, BoxWorld, box_world

pytestmark = pytest.mark.usefixtures("database", "redis")
FOLDER = ROOT / "deploy" / "kubernetes"
ACCOUNT = "system:serviceaccount:openclaw-cloud:openclaw-operator"
VERBS = {"POST": "create", "PUT": "update", "DELETE": "delete"}
APPLY = "application/apply-patch+yaml"
Act = tuple[str, str, str]  # API group, resource, verb


def documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    return [yaml.safe_load((FOLDER / name).read_text()) for name in listed]


def allowed() -> list[Act]:
    (role,) = (one for one in documents() if one["kind"] == "ClusterRole")
    return [
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


class Admin:
    """Writes into the cluster what an administrator does before the operator comes."""

    PATHS = {  # noqa: RUF012 - read only
        "Namespace": "/api/v1/namespaces",
        "ServiceAccount": "/api/v1/namespaces/openclaw-cloud/serviceaccounts",
        "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    }

    def __init__(self, kubeconfig: Path) -> None:
        found = json.loads(kubeconfig.read_text())
        self._http = httpx.Client(
            base_url=found["clusters"][0]["cluster"]["server"],
            headers={"authorization": f"Bearer {found['users'][0]['user']['token']}"},
            verify=False,  # noqa: S501 - the simulator of this test, on this machine
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def install(self) -> None:
        for one in documents():
            self.apply(one)

    def apply(self, document: dict[str, Any]) -> None:
        answer = self._http.patch(
            f"{self.PATHS[document['kind']]}/{document['metadata']['name']}",
            params={"fieldManager": "admin", "force": "true", "fieldValidation": "Strict"},
            content=json.dumps(document),
            headers={"content-type": APPLY},
        )
        answer.raise_for_status()

    def allow(self, acts: list[Act]) -> None:
        (role,) = (one for one in documents() if one["kind"] == "ClusterRole")
        rules = [{"apiGroups": [g], "resources": [r], "verbs": [v]} for g, r, v in acts]
        self.apply({**role, "rules": rules})


class Asked:
    """What was asked of the cluster, and what it did not allow."""

    def __init__(self, monkeypatch: Any) -> None:
        self.acts: set[Act] = set()
        self.refused: list[str] = []
        open_it = Cluster._open  # noqa: SLF001 - the one place that all requests pass

        @contextlib.asynccontextmanager
        async def open_and_note(
            cluster: Cluster, method: str, path: str, **options: Any
        ) -> AsyncGenerator[Any]:
            self.acts |= acts_of(method, path, options)
            try:
                async with open_it(cluster, method, path, **options) as answer:
                    yield answer
            except VendorError as error:
                if error.code == "forbidden":
                    self.refused.append(str(error))
                raise

        monkeypatch.setattr(Cluster, "_open", open_and_note)


def acts_of(method: str, path: str, options: dict[str, Any]) -> set[Act]:
    parts = path.strip("/").split("/")
    group, parts = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    resource = "/".join([parts[0], *parts[2:]])
    if method == "GET":
        is_watch = (options.get("query") or {}).get("watch") == "true"
        verb = "watch" if is_watch else "get" if len(parts) > 1 else "list"
        return {(group, resource, verb)}
    if method == "PATCH":
        may_be_new = options.get("content_type") == APPLY
        return {(group, resource, verb) for verb in ("patch", *(["create"] * may_be_new))}
    return {(group, resource, VERBS[method])}


@pytest.fixture
def records(cluster_and_config):
    simulator, kubeconfig = cluster_and_config
    with Admin(kubeconfig) as admin:
        admin.install()
        yield simulator, kubeconfig, admin


@pytest.fixture
async def operator(records, tmp_path, monkeypatch, database):
    """Return a world whose cluster is opened as the operator's service account."""
    assert database
    simulator, kubeconfig, admin = records
    answer = simulator.http.post("/_control/tokens", json={"user": ACCOUNT})
    found = json.loads(kubeconfig.read_text())
    found["users"][0]["user"] = {"token": answer.json()["token"]}
    mine = tmp_path / "kubeconfig"
    mine.touch(mode=0o600)
    mine.write_text(json.dumps(found))
    admin.allow(allowed())
    async with box_world(mine, tmp_path, monkeypatch) as world:
        yield world


async def live(world: BoxWorld, home: Path, asked: Asked) -> None:
    """Walk through all that the worker does, until something is refused."""
    box = await world.new_box()
    hands = Hands(world.cluster, home, box, [])
    requests = [
        stories.STORIES["provision"].ask,
        stories.change(thinking_level="high"),
        stories.change(language="de"),
        stories.pause,
        stories.resume,
        stories.STORIES["health_check"].ask,
    ]
    for ask in requests:
        await ask(hands, box)
        await hands.work_all()
        if asked.refused:
            return
    for look in (look_around, look_closely, note_an_orphan, carry_memory, take_a_snapshot):
        await look(world, box)
        if asked.refused:
            return
    await stories.STORIES["destroy"].ask(hands, box)
    await hands.work_all()


async def look_around(world: BoxWorld, _box: Box) -> None:
    """Do what the loops do: the watch, the sweep, the search for drift and for stray tokens."""
    with contextlib.suppress(VendorError):
        await sweeping.sweep(world.cluster, "default", provisioning.box_changed)
        await drift.find_drift(world.cluster, "default")
        await stray_tokens.check_tokens(world.cluster, "default")


async def look_closely(world: BoxWorld, box: Box) -> None:
    """Look at one box as its customer's window does, and follow its pod."""
    with contextlib.suppress(VendorError):
        (pod,) = await world.cluster.pods(box.k8s_namespace)
        await world.cluster.events(box.k8s_namespace)
        await world.cluster.logs(box.k8s_namespace, pod.name)
        await follow(world, box, pod.name)


async def follow(world: BoxWorld, box: Box, pod: str) -> None:
    """Change both kinds until each watch has told of it: the two begin one after the other."""
    waited_for = {PodChanged, NamespaceChanged}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3), contextlib.aclosing(world.cluster.watch()) as events:
            async for event in events:
                waited_for -= {type(event)}
                if not waited_for:
                    break
                seen = str(len(waited_for))
                await world.cluster.annotate_pod(box.k8s_namespace, pod, {"seen": seen})
                await world.cluster.annotate_namespace(box.k8s_namespace, {"seen": seen})


async def note_an_orphan(world: BoxWorld, box: Box) -> None:
    """Note a namespace whose box is not in the database any more."""
    with contextlib.suppress(VendorError):
        await world.cluster.annotate_namespace(box.k8s_namespace, {orphans.FIRST_SEEN: None})
        await world.cluster.scale(box.k8s_namespace, manifests.NAME, 0)


async def carry_memory(world: BoxWorld, box: Box) -> None:
    """Make a keeper and take it away again, as a backup does."""
    ticket = Ticket(backup_id=uuid4(), way=Way.SAVE, token="one", mark="")  # noqa: S106 - opens nothing
    spec = KeeperSpec(
        namespace=box.k8s_namespace,
        box_id=str(box.id),
        image=IMAGE,
        url="http://127.0.0.1/",
        ticket=ticket,
        fence=1,
    )
    with contextlib.suppress(VendorError):
        await world.cluster.find_object("PersistentVolumeClaim", box.k8s_namespace, manifests.NAME)
        made = await world.cluster.apply(keeper_job.job(spec))
        await world.cluster.apply(keeper_job.secret(spec, job_uid=made["metadata"]["uid"]))
        for job in await world.cluster.jobs(box.k8s_namespace):
            await world.cluster.delete("Job", box.k8s_namespace, job.name)
        await world.cluster.delete("Secret", box.k8s_namespace, keeper_job.FORMER_SECRET)


async def take_a_snapshot(world: BoxWorld, box: Box) -> None:
    """Make a snapshot of its volume, look at it, and take it away again."""
    place = f"{backups.SNAPSHOT}one"
    backup = BoxBackup(box_id=box.id, reason=Reason.SCHEDULED.value, location=place)
    with contextlib.suppress(VendorError):
        chosen, *_ = await world.cluster.snapshot_classes()
        await world.cluster.create(snapshots.manifest(box, backup, chosen.name))
        await world.cluster.find_snapshot(box.k8s_namespace, "one")
        await world.cluster.delete("VolumeSnapshot", box.k8s_namespace, "one")


async def test_the_life_of_a_box_needs_the_whole_role_and_no_more(operator, tmp_path, monkeypatch):
    asked = Asked(monkeypatch)
    await live(operator, tmp_path, asked)
    assert asked.refused == []
    async with session_scope() as session:
        assert (await session.scalar(select(Box.status))) is BoxStatus.DESTROYED
    assert asked.acts - set(allowed()) == set()
    assert set(allowed()) - asked.acts == set(), "nothing asks for it: take it out of the role"


@pytest.mark.slow
@pytest.mark.parametrize("missing", allowed(), ids=" ".join)
async def test_one_verb_less_breaks_it(operator, records, tmp_path, monkeypatch, missing):
    asked = Asked(monkeypatch)
    records[2].allow([one for one in allowed() if one != missing])
    await live(operator, tmp_path, asked)
    assert asked.refused


def test_only_the_operator_is_given_the_role():
    (binding,) = (one for one in documents() if one["kind"] == "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "openclaw-operator"
    assert [(one["kind"], one["name"]) for one in binding["subjects"]] == [
        ("ServiceAccount", "openclaw-operator")
    ]
    assert not any("*" in act for act in allowed())
    assert ("", "secrets", "list") not in allowed()
