"""CSI's snapshots: a volume's folder at one moment, a new volume from it, and its end."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CustomObjectsApi
from kubernetes.client.rest import ApiException

from tests.contracts.kubernetes_clusters import REAL
from tests.contracts.kubernetes_kubectl import Kubectl, kubectls
from tests.contracts.simulator_process import eventually

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]
pytestmark = pytest.mark.skipif(bool(REAL), reason="looks at the simulator's folders")
PLACE = ("snapshot.storage.k8s.io", "v1")
DRIVER = "simulators.kubernetes/folder"


class Snapshots:
    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace
        self.api = CustomObjectsApi(cluster.core.api_client)

    def make(self, name, source="memory", **spec):
        body = {
            "apiVersion": "/".join(PLACE),
            "kind": "VolumeSnapshot",
            "metadata": {"name": name},
            "spec": {"source": {"persistentVolumeClaimName": source}, **spec},
        }
        self.api.create_namespaced_custom_object(*PLACE, self.namespace, "volumesnapshots", body)

    def status(self, name):
        found: Any = self.api.get_namespaced_custom_object(
            *PLACE, self.namespace, "volumesnapshots", name
        )
        return found.get("status") or {}

    def ready(self, name):
        return self.status(name).get("readyToUse") and self.status(name)

    def contents(self):
        found: Any = self.api.list_cluster_custom_object(*PLACE, "volumesnapshotcontents")
        return found["items"]

    def claim(self, name, source=None, storage="1Gi"):
        spec = {
            "accessModes": ["ReadWriteOncePod"],
            "resources": {"requests": {"storage": storage}},
        }
        if source:
            spec["dataSource"] = {"apiGroup": PLACE[0], "kind": "VolumeSnapshot", "name": source}
        body = {"metadata": {"name": name}, "spec": spec}
        self.cluster.core.create_namespaced_persistent_volume_claim(self.namespace, body)

    def folder(self, claim):
        read = self.cluster.core.read_namespaced_persistent_volume_claim
        found = eventually(
            lambda: (one := read(claim, self.namespace)).status.phase == "Bound" and one
        )
        volume = self.cluster.core.read_persistent_volume(found.spec.volume_name)
        return Path(volume.spec.host_path.path)


@pytest.fixture
def snapshots(simulator, namespace):
    return Snapshots(simulator, namespace)


def test_a_new_volume_begins_as_its_snapshot_was(snapshots):
    snapshots.claim("memory")
    folder = snapshots.folder("memory")
    (folder / "inside").mkdir()
    (folder / "inside" / "note").write_text("before")
    (folder / "link").symlink_to("inside/note")
    snapshots.make("one")
    status = eventually(lambda: snapshots.ready("one"))
    assert (status["restoreSize"], "error" in status) == ("1Gi", False)
    (folder / "inside" / "note").write_text("after")
    snapshots.claim("copy", source="one")
    copied = snapshots.folder("copy")
    assert (copied / "link").read_text() == "before"
    assert (folder / "link").read_text() == "after"


@pytest.mark.slow
def test_a_claim_waits_for_its_snapshot_and_is_never_smaller(snapshots):
    snapshots.claim("early", source="one")
    snapshots.claim("memory")
    snapshots.folder("memory")
    snapshots.make("one")
    snapshots.folder("early")
    snapshots.claim("small", source="one", storage="1Mi")
    snapshots.claim("later", source="one")
    snapshots.folder("later")
    read = snapshots.cluster.core.read_namespaced_persistent_volume_claim
    assert read("small", snapshots.namespace).status.phase == "Pending"


@pytest.mark.slow
def test_what_cannot_be_taken_says_why_and_is_taken_later(snapshots):
    snapshots.make("one")
    error = eventually(lambda: snapshots.status("one").get("error"))
    assert '"memory" not found' in error["message"]
    snapshots.claim("memory")
    assert "error" not in eventually(lambda: snapshots.ready("one"))


@pytest.mark.slow
def test_the_class_says_whether_the_content_outlives_its_snapshot(snapshots):
    made = {"metadata": {"name": "kept"}, "driver": DRIVER, "deletionPolicy": "Retain"}
    snapshots.api.create_cluster_custom_object(*PLACE, "volumesnapshotclasses", made)
    snapshots.claim("memory")
    for name, spec in (("gone", {}), ("stays", {"volumeSnapshotClassName": "kept"})):
        snapshots.make(name, **spec)
        eventually(lambda name=name: snapshots.ready(name))
        snapshots.api.delete_namespaced_custom_object(
            *PLACE, snapshots.namespace, "volumesnapshots", name
        )
    left = eventually(
        lambda: [
            one["spec"]["volumeSnapshotRef"]["name"]
            for one in snapshots.contents()
            if one["spec"]["volumeSnapshotRef"]["namespace"] == snapshots.namespace
        ]
    )
    snapshots.api.delete_cluster_custom_object(*PLACE, "volumesnapshotclasses", "kept")
    assert left == ["stays"]


def test_a_policy_that_does_not_exist_is_refused(snapshots):
    made = {"metadata": {"name": "odd"}, "driver": DRIVER, "deletionPolicy": "Perhaps"}
    with pytest.raises(ApiException) as refused:
        snapshots.api.create_cluster_custom_object(*PLACE, "volumesnapshotclasses", made)
    assert refused.value.status == 422


def test_without_the_driver_there_are_no_such_kinds(snapshots, control):
    control.settings(snapshots=False)
    with pytest.raises(ApiException) as refused:
        snapshots.contents()
    assert refused.value.status == 404
    control.settings(snapshots=True)
    assert snapshots.contents() is not None


@pytest.mark.slow
@pytest.mark.skipif(not kubectls(), reason="needs kubectl")
def test_kubectl_shows_and_explains_them(snapshots, tmp_path):
    place = (snapshots.cluster.kubeconfig, snapshots.namespace, tmp_path)
    kubectl = Kubectl(kubectls()[0], *place)
    snapshots.claim("memory")
    snapshots.make("one")
    eventually(lambda: snapshots.ready("one"))
    assert "READYTOUSE" in kubectl("get", "volumesnapshots")
    assert "memory" in kubectl("get", "vs", "one")
    assert "persistentVolumeClaimName" in kubectl("explain", "volumesnapshot.spec.source")


def test_a_database_that_is_written_to_is_whole_in_its_snapshot(snapshots):
    """It is as after a power cut: SQLite takes back what was not committed."""
    snapshots.claim("memory")
    folder = snapshots.folder("memory")
    writer = sqlite3.connect(folder / "memory.sqlite", isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE notes (text)")
    writer.execute("INSERT INTO notes VALUES ('kept')")
    writer.execute("BEGIN")
    writer.execute("INSERT INTO notes VALUES ('not committed')")
    snapshots.make("one")
    eventually(lambda: snapshots.ready("one"))
    writer.execute("COMMIT")
    snapshots.claim("copy", source="one")
    copied = sqlite3.connect(snapshots.folder("copy") / "memory.sqlite")
    assert copied.execute("SELECT text FROM notes").fetchall() == [("kept",)]
    assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
