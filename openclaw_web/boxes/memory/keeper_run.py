"""A keeper at work: its Job has the volume for itself, and nothing of it is left afterwards.

The box's pod is gone before it begins, and it is gone before a pod begins. What became of a backup
is read from its row, never from the Job alone.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from openclaw_web.boxes import fencing, manifests
from openclaw_web.boxes.memory import addresses, keeper_job
from openclaw_web.boxes.memory.addresses import Ticket
from openclaw_web.boxes.memory.keeper_job import KeeperSpec, Source
from openclaw_web.boxes.models import Box, BoxBackup
from openclaw_web.boxes.runs import POLL_SECONDS, Run, living, wait_until_empty
from openclaw_web.boxes.sentences import failure
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings
from openclaw_web.integrations.cluster_objects import NamespaceState
from openclaw_web.jobs import leases
from openclaw_web.jobs import service as jobs

START_SECONDS = 180.0  # for the keeper's image to come, and for the volume to move
QUOTA_SECONDS = 30.0  # for the cluster's own controller to take a quota's new number in
LOOKS = 2
TRIES = 3
NO_BACKUP = "no_backup"
QUOTA = "quota"
Wanted = Callable[[], Awaitable[bool]]


class KeeperError(VendorError):
    """The memory could not be carried; trying again may help."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, can_retry=True, code=NO_BACKUP)


class GoneError(KeeperError):
    """What was to be carried is not there any more, or of no use: trying again cannot help."""


class NotWantedError(VendorError):
    """It was stopped, because the box is wanted for something better."""

    def __init__(self) -> None:
        super().__init__("The assistant is wanted again.", can_retry=True, code="not_wanted")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one carrying may take, and who may end it earlier."""

    seconds: float
    is_wanted: Wanted
    start_seconds: float = START_SECONDS


@dataclass(frozen=True, kw_only=True)
class Place:
    """What there is of a box's place: its namespace, and the volume with its memory."""

    is_there: bool
    has_volume: bool


async def clear(run: Run, namespace: str) -> None:
    """End every keeper, so that the volume is free for the pod."""
    for _ in range(TRIES):  # a deletion's "not found" is no proof that it is gone
        found = await run.cluster.jobs(namespace)
        if not found:
            return
        for job in found:
            await run.check()
            await run.cluster.delete("Job", namespace, job.name)
        await _wait_until_free(run, namespace)


async def carry(
    run: Run, box: Box, ticket: Ticket, patience: Patience, source: Source | None = None
) -> None:
    """Run a keeper to its end, and see to it that nothing of it is left.

    With a source it reads a snapshot, on a volume of its own, in place of the box's volume.
    """
    chosen = settings()
    spec = KeeperSpec(
        namespace=box.k8s_namespace,
        box_id=str(box.id),
        image=chosen.keeper_image,
        url=_address(chosen.box_proxy_url, ticket.backup_id),
        ticket=ticket,
        fence=run.fence.number,
        runtime_class=chosen.box_runtime_class,
        seconds=max(keeper_job.LONGEST_SECONDS, int(patience.seconds)),
        claim=f"{keeper_job.NAME}-{ticket.backup_id.hex[:12]}" if source else manifests.NAME,
    )
    await forget_former_secret(run, spec.namespace)
    await run.check()
    try:
        job = await run.cluster.apply(keeper_job.job(spec))
        uid = job["metadata"]["uid"]
        if source is not None:
            await _create_in_time(run, keeper_job.copied_claim(spec, source, job_uid=uid))
        await run.check()  # nothing is carried before this: its pod waits for the token
        await run.cluster.apply(keeper_job.secret(spec, job_uid=uid))
        with run.aside():
            await _wait_for(run, spec, patience)
        await _clear_up(run, spec)
    except BaseException:
        # One that came too late as well: whoever took over has another keeper, and may be done.
        with contextlib.suppress(VendorError):
            await run.cluster.delete("Job", spec.namespace, spec.name)
        raise


async def forget_former_secret(run: Run, namespace: str) -> None:
    """Take away what an earlier release may have left: no Job owned the Secret that it had.

    A worker of that release may still run beside this one: what it wrote since we looked stays. A
    slip costs no backup: the next keeper's start looks again.
    """
    with contextlib.suppress(VendorError):
        left = await run.cluster.find_object("Secret", namespace, keeper_job.FORMER_SECRET)
        if left is None:
            return
        await run.check()
        version = left.resource_version
        await run.cluster.delete(
            "Secret", namespace, keeper_job.FORMER_SECRET, resource_version=version
        )


async def _create_in_time(run: Run, manifest: manifests.Manifest) -> None:
    """Make an object that a quota was widened for: what it admits is written a moment later."""
    deadline = time.monotonic() + QUOTA_SECONDS
    while True:
        await run.check()
        try:
            await run.cluster.create(manifest)
        except VendorError as error:
            if error.code != QUOTA or time.monotonic() > deadline:
                raise
        else:
            return
        await asyncio.sleep(POLL_SECONDS)


async def _clear_up(run: Run, spec: KeeperSpec) -> None:
    """Leave nothing of a keeper; one slip of the cluster must not call what it saved a failure."""
    try:
        await clear(run, spec.namespace)
    except VendorError:
        await clear(run, spec.namespace)


async def _wait_for(run: Run, spec: KeeperSpec, patience: Patience) -> None:
    began = time.monotonic()
    while True:
        job = next(
            (one for one in await run.cluster.jobs(spec.namespace) if one.name == spec.name), None
        )
        if job is None:
            raise KeeperError("The keeper's job vanished.")
        if job.is_complete:
            return
        if job.is_failed:
            raise KeeperError(await _complaint(spec, job.reason))
        spent = time.monotonic() - began
        if spent > patience.seconds:
            raise KeeperError("It takes too long.")
        if spent > patience.start_seconds and not await _is_at_work(run, spec):
            raise KeeperError("The keeper does not start.")
        if await run.check_now_and_then() and not await patience.is_wanted():
            raise NotWantedError
        await asyncio.sleep(POLL_SECONDS)


async def _complaint(spec: KeeperSpec, reason: str) -> str:
    saved = await row(spec.ticket.backup_id)
    return saved.error or f"The keeper failed ({reason or 'without a word'})."


async def _is_at_work(run: Run, spec: KeeperSpec) -> bool:
    found = await living(run, spec.namespace)
    return any(pod.phase == "Running" for pod in found)


async def _wait_until_free(run: Run, namespace: str) -> None:
    """Wait until no keeper's pod is left; the box's own is somebody else's business."""
    deadline = time.monotonic() + START_SECONDS
    while any(_is_keeper(pod.labels) for pod in await living(run, namespace)):
        if time.monotonic() > deadline:
            raise KeeperError("The keeper's pod does not end.")
        await run.check_now_and_then()
        await asyncio.sleep(POLL_SECONDS)


def _is_keeper(labels: dict[str, str]) -> bool:
    return labels.get("app.kubernetes.io/name") == keeper_job.NAME


async def place_of(run: Run, namespace: str) -> Place:
    """Return what there is; one "not found" is no proof: memory is lost where it is believed."""
    is_there = has_volume = False
    for _ in range(LOOKS):
        is_there = await run.cluster.namespace_state(namespace) is NamespaceState.ACTIVE
        has_volume = is_there and await _has_volume(run, namespace)
        if has_volume:
            break
    return Place(is_there=is_there, has_volume=has_volume)


async def _has_volume(run: Run, namespace: str) -> bool:
    found = await run.cluster.find_object("PersistentVolumeClaim", namespace, manifests.NAME)
    return found is not None


async def row(backup_id: UUID) -> BoxBackup:
    async with session_scope() as session:
        return await session.get_one(BoxBackup, backup_id)


async def note_broken(backup_id: UUID, sentence: str) -> None:
    """Note on a backup that it is of no use, so that nobody is offered it again."""
    async with session_scope() as session:
        backup = await session.get_one(BoxBackup, backup_id, with_for_update=True)
        backup.error = sentence
        session.add(backup)


async def always() -> bool:
    return True


def patient() -> Patience:
    return Patience(seconds=keeper_job.LONGEST_SECONDS, is_wanted=always)


async def tell_failure(run: Run, box: Box, alert: str, error: VendorError) -> None:
    async with session_scope() as session:
        await leases.add_progress(session, run.fence, f"That did not work: {failure(error.code)}.")
        await jobs.raise_alert(
            session, code=alert, subject=str(box.id), detail={"error": str(error)}
        )


async def settle(box: Box, *alerts: str) -> None:
    async with session_scope() as session:
        for code in alerts:
            await jobs.resolve_alert(session, code=code, subject=str(box.id))


async def scale_down(run: Run, box: Box) -> None:
    await fencing.scale_to_nothing(run, box.k8s_namespace)
    await clear(run, box.k8s_namespace)
    await wait_until_empty(run, box.k8s_namespace)


def _address(proxy_url: str, backup_id: UUID) -> str:
    """Return the address at the token proxy: the only one of ours that a box may call at all."""
    parts = urlsplit(proxy_url)
    return f"{parts.scheme}://{parts.netloc}{addresses.PATH}{backup_id}"
