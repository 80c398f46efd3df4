"""A world of boxes with a backup store, and the internal address that keepers call."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import uvicorn

from openclaw_web.boxes import rendering
from openclaw_web.boxes.memory import backups, carrying, keeper, keeper_run, listing
from openclaw_web.boxes.memory.listing import BackupView
from openclaw_web.boxes.models import Box, BoxBackup
from openclaw_web.core.database import session_scope
from openclaw_web.gateway import memory, origin
from openclaw_web.integrations.storage import Store
from tests.contracts.simulator_process import free_port
from tests.flows.box_world import IMAGE, BoxWorld, box_world, cluster_process, eventually

KEEPER_IMAGE = "test/keeper:1"
PROGRAM = Path(keeper.__file__)


@dataclass
class MemoryWorld:
    """A world of boxes, and where their backups and their volumes are on this machine."""

    boxes: BoxWorld
    folder: Path
    volumes: Path
    url: str

    def volume(self, box: Box) -> Path:
        (found,) = (self.volumes / box.k8s_namespace).iterdir()
        return found

    def memory(self, box: Box) -> str:
        return (self.volume(box) / "memory").read_text(encoding="ascii")

    async def backups(self, box: Box) -> list[BackupView]:
        async with session_scope() as session:
            return await listing.list_backups(session, box.customer_id, box.id)

    async def row(self, backup_id: Any) -> BoxBackup:
        async with session_scope() as session:
            return await session.get_one(BoxBackup, backup_id)

    async def kill_keeper(self, box: Box) -> None:
        keeper_of(box).kill()

    async def stop_keeper(self, box: Box) -> None:
        keeper_of(box).suspend()

    def objects(self) -> list[Path]:
        return sorted(one for one in self.folder.rglob("*") if one.is_file())


@contextlib.contextmanager
def memory_cluster(folder: Path) -> Generator[Path]:
    """Run the cluster simulator with one more image, the keeper's."""
    with cluster_process(folder) as kubeconfig:
        images = folder / "images.json"
        known = json.loads(images.read_text())
        known[KEEPER_IMAGE] = {"command": [sys.executable, "-I", "-S", str(PROGRAM)]}
        images.write_text(json.dumps(known), encoding="utf-8")
        yield kubeconfig


@contextlib.asynccontextmanager
async def memory_world(
    kubeconfig: Path, home: Path, monkeypatch: Any
) -> AsyncGenerator[MemoryWorld]:
    async with receiving() as url, box_world(kubeconfig, home, monkeypatch) as boxes:
        folder = home / "store"
        chosen = replace(
            rendering.settings(),
            box_image=IMAGE,
            box_proxy_url=f"{url}/proxy/v1",
            keeper_image=KEEPER_IMAGE,
            backup_url=f"file://{folder}",
        )
        for module in (rendering, keeper_run, backups, origin):
            monkeypatch.setattr(module, "settings", lambda: chosen)
        monkeypatch.setattr(carrying, "store", lambda: Store(chosen.backup_place))
        volumes = kubeconfig.parent / "cluster" / "state" / "volumes"
        yield MemoryWorld(boxes, folder, volumes, url)


@contextlib.asynccontextmanager
async def receiving() -> AsyncGenerator[str]:
    """Serve the keepers' addresses in this process, and return where."""
    port = free_port()
    config = uvicorn.Config(
        memory.memory, port=port, lifespan="off", log_config=None, ws="none", access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())

    async def has_started() -> bool:
        return server.started

    await eventually(has_started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


def keeper_of(box: Box) -> psutil.Process:
    """Return the process that carries this box's memory."""
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_keeper = one.cmdline()[1:] == ["-I", "-S", str(PROGRAM)]  # not its guardian
            if is_keeper and box.k8s_namespace in one.environ().get("KEEPER_FOLDER", ""):
                return one
    raise LookupError(box.k8s_namespace)
