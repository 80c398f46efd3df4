"""One attempt of one job: what it may still do, what it tells, and what it waits for."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import manifests
from openclaw_web.boxes.changes import BoxChange, Conclude, conclude_nothing
from openclaw_web.boxes.sentences import trouble
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceState, PodView
from openclaw_web.jobs import leases
from openclaw_web.jobs.leases import Fence, LeaseLostError
from openclaw_web.jobs.models import OperatorJob

GONE_SECONDS = 150.0  # a pod may take its whole grace of 60 s to end
POLL_SECONDS = 0.2
CHECK_SECONDS = 2.0
Aside = Callable[[], AbstractContextManager[None]]
ENDED_PHASES = frozenset({"Failed", "Succeeded"})
INVALID = "invalid"  # the cluster's 422
TRIES_OF_INVALID = 2


class StopRequestedError(OpenClawError):
    """Somebody asked this job to stop: something stronger came, or an admin cancelled it."""


class NotReadyError(VendorError):
    """The pod did not become ready in time.

    `blamed_from` is the attempt from which on that speaks against its settings; `None`: never.
    """

    def __init__(self, code: str, *, blamed_from: int | None = None) -> None:
        super().__init__(
            f"The assistant did not become ready: {trouble(code)}.", can_retry=True, code=code
        )
        self.blamed_from = blamed_from


def is_worth_another_try(error: VendorError, attempt: int) -> bool:
    """Say whether trying again can help after so many attempts.

    What is invalid once may be a cluster in the middle of an upgrade; twice it is what we ask for.
    """
    return error.can_retry or (error.code == INVALID and attempt < TRIES_OF_INVALID)


@dataclass(kw_only=True)
class Run:
    """One attempt of one job."""

    cluster: Cluster
    job: OperatorJob
    fence: Fence
    conclude: Conclude = conclude_nothing
    aside: Aside = nullcontext
    _checked_at: float = field(default=0.0)

    async def say(self, sentence: str) -> None:
        """Write a line into the job's story.

        Raises:
            LeaseLostError: the job is somebody else's now.
        """
        await leases.check_and_tell(self.fence, sentence)

    async def tell(self, session: AsyncSession, changes: list[BoxChange]) -> None:
        for change in changes:
            await self.conclude(session, change)

    async def check(self, saying: str = "") -> None:
        """Make sure, before a write, that the job is ours and nobody asked to stop.

        What is said of that write is written with the same statement.

        Raises:
            LeaseLostError: the job is somebody else's now.
            StopRequestedError: it was cancelled, or a stronger request waits.
        """
        if saying:
            self._go_on(is_asked=await leases.check_and_tell(self.fence, saying))
        else:
            self._go_on(is_asked=await leases.check_lease(self.fence))

    async def check_in(self, session: AsyncSession, saying: str) -> None:
        """Check in a unit of work, until whose end the job stays ours; raises as `check`."""
        self._go_on(is_asked=await leases.add_progress(session, self.fence, saying))

    def _go_on(self, *, is_asked: bool) -> None:
        if is_asked:
            raise StopRequestedError("Stopped on request.")
        self._checked_at = time.monotonic()

    async def check_now_and_then(self) -> bool:
        """Check while waiting, every two seconds; say whether it was done."""
        if time.monotonic() - self._checked_at < CHECK_SECONDS:
            return False
        await self.check()
        return True

    def check_fence(self, annotations: dict[str, str]) -> None:
        """Refuse to overwrite what a newer claim wrote.

        Raises:
            LeaseLostError: the cluster shows a higher fence than ours.
        """
        seen = annotations.get(manifests.FENCE, "0")
        if seen.isdecimal() and int(seen) > self.fence.number:
            raise LeaseLostError("A newer run has written to the cluster already.")


async def wait_until_empty(run: Run, namespace: str) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while await living(run, namespace):
        if time.monotonic() > deadline:
            raise VendorError("Its pod does not end.", can_retry=True, code="stuck_terminating")
        await run.check_now_and_then()
        await asyncio.sleep(POLL_SECONDS)


async def living(run: Run, namespace: str) -> list[PodView]:
    """Return the pods that run or will; an evicted one only lies about."""
    found = await run.cluster.pods(namespace)
    return [pod for pod in found if pod.phase not in ENDED_PHASES]


async def wait_until_gone(run: Run, namespace: str) -> None:
    """Wait for 404: an accepted deletion is none yet."""
    deadline = time.monotonic() + GONE_SECONDS
    while await run.cluster.namespace_state(namespace) is not NamespaceState.ABSENT:
        if time.monotonic() > deadline:
            raise VendorError(
                "The cluster is still deleting the namespace.",
                can_retry=True,
                code="namespace_terminating",
            )
        await run.check_now_and_then()
        await asyncio.sleep(POLL_SECONDS)
