"""A worker's hands for one box, and what became of it; each box has a cluster's name of its own."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.boxes import failures, manifests, queries
from openclaw_web.boxes.memory import backups, keeper_job, saving
from openclaw_web.boxes.models import Box, BoxBackup
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import KINDS, Cluster
from openclaw_web.integrations.cluster_objects import (
    JobView,
    NamespaceState,
    PodChanged,
    PodsListed,
)
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import Alert, JobStatus, OperatorJob
from openclaw_web.metering.models import ProxyToken, TokenKind
from openclaw_web.worker import Worker
from openclaw_web.workflows import provisioning

ROUNDS = 8
TOLD = "its failure was told"
LOOKS_AT_GARBAGE = 50
ENDED_PHASES = frozenset({"Failed", "Succeeded"})
UNENDED = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


@dataclass(frozen=True)
class Hands:
    """Does the jobs of one box only, in the name of one worker after another."""

    cluster: Cluster
    home: Path
    box: Box
    names: list[str]
    memory: dict[str, bytes] = field(default_factory=dict)  # on each volume, by namespace
    # Where the story began: what was there before it, it has not done.
    generation: int = 0
    older: frozenset[UUID] = frozenset()
    tokens: frozenset[UUID] = frozenset()

    async def from_here(self) -> "Hands":
        """Return hands for what begins now with this box."""
        async with session_scope() as session:
            box = await queries.get_any_box(session, self.box.id)
            found = await session.exec(select(BoxBackup.id).where(BoxBackup.box_id == box.id))
            older = frozenset(found.all())
        tokens = await self.live_tokens()
        return replace(self, box=box, generation=box.generation, older=older, tokens=tokens)

    async def work(self) -> bool:
        """Do one due job of the box, and say whether there was one."""
        owner = f"worker-{len(self.names)}"
        self.names.append(owner)
        async with session_scope() as session:
            claimed = await leases.claim_job(session, owner=owner, cluster=self.box.cluster)
        if claimed is not None:
            worker = Worker(cluster=self.cluster, cluster_name=self.box.cluster, home=self.home)
            await worker.work(claimed)
        return claimed is not None

    async def work_all(self) -> None:
        while await self.work():
            continue

    async def finish(self) -> None:
        """Do all there is, whatever the machine is busy with."""
        await self.work_all()
        await self.settle()

    async def settle(self) -> None:
        """Let time pass: leases run out, pauses end, and somebody else does what is left."""
        for _ in range(ROUNDS):
            busy = [job for job in await self.jobs() if job.status in UNENDED]
            if not busy:
                return
            await self._let_time_pass()
            for job in busy:
                async with session_scope() as session:
                    for change in await failures.reap(session, job.id, job.box_id):
                        await provisioning.box_changed(session, change)
            await self.work_all()

    async def _let_time_pass(self) -> None:
        past = sa.func.clock_timestamp() - timedelta(minutes=5)
        mine = col(OperatorJob.box_id) == self.box.id
        is_running = col(OperatorJob.status) == JobStatus.RUNNING
        async with session_scope() as session:
            await session.exec(
                sa.update(OperatorJob).where(mine, is_running).values(lease_until=past)
            )
            await session.exec(sa.update(OperatorJob).where(mine).values(run_after=past))

    async def jobs(self) -> list[OperatorJob]:
        async with session_scope() as session:
            found = await session.exec(
                select(OperatorJob)
                .where(OperatorJob.box_id == self.box.id)
                .order_by(col(OperatorJob.created_at))
            )
            return list(found.all())

    async def outcome(self) -> dict[str, Any]:
        """Return what a customer and the cluster are left with, names and times aside."""
        async with session_scope() as session:
            box = await queries.get_any_box(session, self.box.id)
        jobs = await self.jobs()
        namespace = await self.cluster.namespace_state(box.k8s_namespace)
        pods = await self.cluster.pods(box.k8s_namespace)
        secret = await self._notes("Secret")
        deployment = await self._notes("Deployment")
        tokens = {str(one) for one in await self.live_tokens()}
        marks = (manifests.TOKEN_ID, manifests.CONFIG_HASH)
        return {
            "status": (box.status.value, box.status_reason),
            "generations": tuple(
                one - self.generation for one in (box.generation, box.applied_generation)
            ),
            "namespace": namespace.value,
            "pods": [(pod.phase, pod.is_ready, pod.is_terminating) for pod in pods],
            "pods are as the deployment says": all(
                pod.annotations.get(mark) == deployment.get(mark) for pod in pods for mark in marks
            ),
            "live tokens": len(tokens),
            "the pod's token lives": all(
                pod.annotations.get(manifests.TOKEN_ID) in tokens for pod in pods
            ),
            "the secret has the pod's token": all(
                pod.annotations.get(manifests.TOKEN_ID) == secret.get(manifests.TOKEN_ID)
                for pod in pods
            ),
            "unended jobs": [job.status for job in jobs if job.completed_at is None],
            "a job came through": jobs[-1].status is JobStatus.COMPLETE,
            "memory": self.memory.get(box.k8s_namespace),
            "backup": await self._backup(),
            "keepers": [job.name for job in await self._keepers(namespace)],
            "their tokens": await self._keepers_secrets(),
        }

    async def live_tokens(self) -> frozenset[UUID]:
        async with session_scope() as session:
            found = await session.exec(
                select(ProxyToken.id).where(
                    ProxyToken.box_id == self.box.id,
                    ProxyToken.kind == TokenKind.BOX,
                    col(ProxyToken.revoked_at).is_(None),
                )
            )
            return frozenset(found.all())

    async def _backup(self) -> str:
        """Return why there are new backups, or that a failure was told."""
        async with session_scope() as session:
            now = await business_now(session)
            rows = await session.exec(select(BoxBackup).where(BoxBackup.box_id == self.box.id))
            made = [one for one in rows if backups.is_usable(one, now)]
            told = await session.exec(
                select(Alert.code).where(
                    col(Alert.code).in_((saving.ALERT_BACKUP, backups.ALERT_FINAL)),
                    Alert.subject == str(self.box.id),
                )
            )
            reasons = {one.reason for one in made if one.id not in self.older}
            return " and ".join(sorted(reasons)) or (TOLD if told.first() else "")

    async def _keepers(self, namespace: NamespaceState) -> list[JobView]:
        is_there = namespace is NamespaceState.ACTIVE
        return await self.cluster.jobs(self.box.k8s_namespace) if is_there else []

    async def _keepers_secrets(self) -> list[str]:
        """Return the Secrets that no Job took along; the cluster needs a moment to collect them."""
        names: list[str] = []
        for _ in range(LOOKS_AT_GARBAGE):
            path = KINDS["Secret"].path(self.box.k8s_namespace)
            found = await self.cluster._call("GET", path)  # noqa: SLF001 - the product lists none
            names = [one["metadata"]["name"] for one in found["items"]]
            names = [name for name in names if name.startswith(keeper_job.NAME)]
            if not names:
                break
            await asyncio.sleep(0.1)
        return names

    async def _notes(self, kind: str) -> dict[str, str]:
        found = await self.cluster.find_object(kind, self.box.k8s_namespace, manifests.NAME)
        return found.annotations if found else {}


class Twins:
    """Watches all pods, and remembers each namespace that ever had two that live."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._living: dict[str, set[str]] = defaultdict(set)

    async def follow(self, cluster: Cluster) -> None:
        async with contextlib.aclosing(cluster.watch()) as events:
            async for event in events:
                if isinstance(event, PodsListed):
                    for pod in event.views:
                        self._note(pod.namespace, pod.name, is_gone=pod.phase in ENDED_PHASES)
                elif isinstance(event, PodChanged):
                    is_gone = event.is_gone or event.view.phase in ENDED_PHASES
                    self._note(event.view.namespace, event.view.name, is_gone=is_gone)

    def _note(self, namespace: str, pod: str, *, is_gone: bool) -> None:
        living = self._living[namespace]
        living.discard(pod) if is_gone else living.add(pod)
        if len(living) > 1:
            self.seen.add(namespace)


@contextlib.asynccontextmanager
async def looking_for_twins(cluster: Cluster) -> AsyncGenerator[Twins]:
    twins = Twins()
    following = asyncio.create_task(twins.follow(cluster))
    try:
        yield twins
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
