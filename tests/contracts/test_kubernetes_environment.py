"""What a simulated container sees of the machine that it really runs on."""

from pathlib import Path

from simulators.kubernetes import environment
from simulators.kubernetes.images import Image
from simulators.kubernetes.probes import Place

CONTAINER = {"name": "box", "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}]}  # noqa: S108 - a path inside a container


def complete(asked, image):
    return environment.complete(
        asked,
        CONTAINER,
        image=image,
        folders={"scratch": Path("/srv/scratch")},
        place=Place("127.1.2.3", {18789: 18789}, {}),
        home=Path("/srv/home"),
        owner=None,
    )


def test_a_mount_path_of_the_spec_becomes_the_real_folder():
    found = complete({"CACHE": "/tmp/cache"}, Image(command=("agent",), env={}))  # noqa: S108
    assert found["CACHE"] == "/srv/scratch/cache"


def test_a_folder_that_the_image_names_stays_even_if_it_begins_like_a_mount_path():
    image = Image(command=("agent",), env={"PYTHONPATH": "/tmp/checkout"})  # noqa: S108
    assert complete({"PYTHONPATH": "/tmp/checkout"}, image)["PYTHONPATH"] == "/tmp/checkout"  # noqa: S108
