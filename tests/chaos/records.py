"""A cluster whose pods are records: nobody waits for a process."""

import contextlib
import json
import sys
from collections.abc import Generator
from pathlib import Path

from tests.contracts.simulator_process import Simulator, running
from tests.flows.box_world import IMAGE


@contextlib.contextmanager
def cluster_of_records(folder: Path) -> Generator[tuple[Simulator, Path]]:
    """Run it, and return it with its kubeconfig."""
    images, kubeconfig = folder / "images.json", folder / "kubeconfig"
    images.write_text(json.dumps({IMAGE: {"command": [sys.executable, "-c", ""]}}))
    arguments = ("--images", str(images), "--kubeconfig", str(kubeconfig))
    with running("kubernetes", folder / "cluster", *arguments) as simulator:
        simulator.http.patch("/_control/settings", json={"records": True}).raise_for_status()
        yield simulator, kubeconfig
