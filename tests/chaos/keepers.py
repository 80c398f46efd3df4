"""Keepers of a cluster of records: their pods run nothing, so this carries the memory for them.

What is sealed, stored and opened is real; only the volume is a word in this process.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from openclaw_web.boxes import manifests, rendering
from openclaw_web.boxes.memory import backups, carrying, keeper_job, keeper_run
from openclaw_web.boxes.memory.addresses import Way
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations.cluster import KINDS, Cluster
from openclaw_web.integrations.cluster_objects import Document
from openclaw_web.integrations.storage import Store
from tests.contracts.simulator_process import Simulator
from tests.flows.box_world import IMAGE

SELECTOR = f"app.kubernetes.io/name={keeper_job.NAME}"
LOOK_SECONDS = 0.25
FRESH = b"what it has learnt"


@dataclass
class Keepers:
    """Follows the keepers' pods; `memory` is what is on each volume, by its namespace."""

    cluster: Cluster
    simulator: Simulator
    memory: dict[str, bytes] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    async def follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                with contextlib.suppress(OpenClawError):
                    async for page in self.cluster.pages("Pod", SELECTOR):
                        for pod in page:
                            if self._is_new(pod):
                                group.create_task(self._play(pod))
                await asyncio.sleep(LOOK_SECONDS)

    def _is_new(self, pod: Document) -> bool:
        uid, phase = pod["metadata"]["uid"], (pod.get("status") or {}).get("phase")
        is_new = phase == "Running" and uid not in self._seen
        self._seen |= {uid} if is_new else set()
        return is_new

    async def _play(self, pod: Document) -> None:
        """Carry as the program would, and end as it would."""
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        chosen = {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}
        backup_id = UUID(chosen["KEEPER_URL"]["value"].rsplit("/", 1)[1])
        way = Way(chosen["KEEPER_ACT"]["value"])
        state = "Succeeded"
        try:
            source = chosen[keeper_job.TOKEN_KEY]["valueFrom"]["secretKeyRef"]["name"]
            token = await self._token(namespace, source)
            mounted = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
            # Another volume than the box's own was made from a snapshot.
            memory = self.memory.get(namespace, FRESH) if mounted == manifests.NAME else FRESH
            if way is Way.SAVE:
                await carrying.take_in(backup_id, token, pieces_of(memory))
            else:
                sent = await carrying.give_out(backup_id, token)
                self.memory[namespace] = b"".join([piece async for piece in sent.pieces])
        except OpenClawError:
            state = "Failed"
        body = {"namespace": namespace, "pod": name, "state": state}
        # A pod that is gone meanwhile needs no end.
        await asyncio.to_thread(self.simulator.http.post, "/_control/records", json=body)

    async def _token(self, namespace: str, name: str) -> str:
        path = KINDS["Secret"].path(namespace, name)
        secret = await self.cluster._call("GET", path)  # noqa: SLF001 - as its kubelet does
        return base64.b64decode(secret["data"][keeper_job.TOKEN_KEY]).decode()


async def pieces_of(content: bytes) -> AsyncIterator[bytes]:
    yield content


@contextlib.asynccontextmanager
async def keepers_of(
    cluster: Cluster, simulator: Simulator, home: Path, monkeypatch: Any
) -> AsyncGenerator[Keepers]:
    """Turn backups on, as in production, and play every keeper."""
    chosen = replace(
        rendering.settings(), keeper_image=IMAGE, backup_url=f"file://{home / 'store'}"
    )
    for module in (rendering, keeper_run, backups):
        monkeypatch.setattr(module, "settings", lambda: chosen)
    monkeypatch.setattr(carrying, "store", lambda: Store(chosen.backup_place))
    made = Keepers(cluster, simulator)
    following = asyncio.create_task(made.follow())
    try:
        yield made
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
