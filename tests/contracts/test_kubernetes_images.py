"""The allow-list of images: a pod runs what stands there, word by word, or nothing."""

import json

import pytest

from simulators.kubernetes.folders import Owner
from simulators.kubernetes.images import Images
from simulators.kubernetes.process import Sandbox, Start

ENTRY = {"command": ["agent"], "also": [["sh", "-c", "true"]], "sandbox": {"readable": ["/opt/a"]}}


@pytest.fixture
def image(tmp_path):
    (tmp_path / "images.json").write_text(json.dumps({"test:1": ENTRY}))
    return Images(tmp_path / "images.json").find("test:1")


def test_an_init_container_runs_a_listed_command_or_the_images_own(image):
    assert image.asked_by_init({}) == ("agent",)
    assert image.asked_by_init({"command": ["sh"], "args": ["-c", "true"]}) == ("sh", "-c", "true")


def test_an_init_container_cannot_run_anything_else(image):
    with pytest.raises(OSError, match="not on the list"):
        image.asked_by_init({"command": ["sh", "-c", "true; rm -rf /"]})


@pytest.mark.parametrize("also", [["sh"], [[]], [["sh", 1]], "sh"])
def test_a_list_that_makes_no_sense_is_refused(also, tmp_path):
    path = tmp_path / "images.json"
    path.write_text(json.dumps({"test:1": {"command": ["agent"], "also": also}}))
    with pytest.raises(SystemExit, match="list of such lists"):
        Images(path)


def test_a_sandboxed_command_changes_its_user_inside(image, tmp_path):
    sandbox = Sandbox(root=tmp_path, readable=image.readable, writable=[])
    start = Start(
        command=image.command,
        env={},
        folder=tmp_path,
        log=tmp_path / "log",
        record=tmp_path / "record",
        grace_seconds=1,
        user=Owner(65534, 65534),
        sandbox=sandbox,
    )
    guardian, _, inside = " ".join(start.words).partition(" -- ")
    assert "--user" not in guardian
    assert "--readable /opt/a --user 65534 --group 65534 -- agent" in inside
