"""The operator: runs jobs, syncs with Stripe, sends mail, watches the cluster, keeps the timers.

Any number of workers may run. Each loop is safe to run twice; the watch and the sweep run in one
worker at a time, behind an advisory lock of PostgreSQL. A loop that fails waits a little longer
each time.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import uvloop

from openclaw_web import tables
from openclaw_web.accounts.tasks import FailedMail, forget_old_rows, send_due_mail
from openclaw_web.billing import service as billing
from openclaw_web.boxes import (
    checking,
    failures,
    looking,
    orphans,
    repairs,
    same_cluster,
    stray_tokens,
    sweeping,
    tasks,
    upgrading,
    watching,
    windows,
)
from openclaw_web.boxes.memory import retaining, snapshots
from openclaw_web.boxes.rendering import UnusableSettingsError
from openclaw_web.boxes.runs import (
    INVALID,
    NotReadyError,
    StopRequestedError,
    is_worth_another_try,
)
from openclaw_web.core import collecting, database
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError, VendorError
from openclaw_web.core.hands import Hands
from openclaw_web.core.leadership import NotLeaderError, only_one
from openclaw_web.core.logs import configure_logs
from openclaw_web.core.pauses import back_off
from openclaw_web.core.settings import require, settings
from openclaw_web.integrations import cluster, payment_client, redis
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.jobs import leases, stuck
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.leases import ClaimedJob, LeaseLostError
from openclaw_web.jobs.models import OperatorJob
from openclaw_web.metering import tasks as metering
from openclaw_web.onboarding.tasks import abandon_expired_chats
from openclaw_web.workflows import (
    delivery,
    margins,
    provisioning,
    stripe_events,
    subscription,
    subscription_mails,
)

logger = logging.getLogger(__name__)

KEEPERS_AT_ONCE = 16  # jobs that wait for a keeper, beside those that hold a hand
SYNCS_AT_ONCE = 4
WINDOWS_AT_ONCE = 50
LOOK_SECONDS = 2.0  # Redis may be empty or gone: everything is found in the database as well
EVALUATE_SECONDS = 10.0
SWEEP_SECONDS = 60.0
LOOK_CLOSER_SECONDS = 300.0
DRIFT_SECONDS = 600.0
TOKEN_SECONDS = 300.0
ORPHAN_SECONDS = 600.0
REAP_SECONDS = 15.0
TIMER_SECONDS = 30.0
TIDY_SECONDS = 86_400.0
KNOWN_SECONDS = 60.0  # somebody may have given the cluster's name to another one
RETAIN_SECONDS = 600.0
SNAPSHOT_SECONDS = 300.0
MAIL_SECONDS = 5.0
CHECK_SECONDS = 300.0
NOTICE_SECONDS = 60.0
REJECT_SECONDS = 3_600.0
SPOOL_SECONDS = 30.0
MARGIN_SECONDS = 3_600.0
ALIVE_SECONDS = 5.0
STUCK_SECONDS = 60.0  # a worker whose job loop does not turn for so long is not alive
HEARTBEAT_PATIENCE_SECONDS = 10.0
LEADER_SECONDS = 5.0
END_SECONDS = 8.0
LONGEST_BACK_OFF_SECONDS = 30.0
ALIVE_FILE = "worker.alive"
SPOOL_FOLDER = "spool"  # the proxies' of this machine
WATCH_LOCK = 7_236_002  # numbers of our own, beside the migrations' lock
SWEEP_LOCK = 7_236_003
TIDY_LOCK = 7_236_004
METER_LOCK = 7_236_005
MARGIN_LOCK = 7_236_006
DRIFT_LOCK = 7_236_007
TOKEN_LOCK = 7_236_008
ORPHAN_LOCK = 7_236_009
RETAIN_LOCK = 7_236_010
SNAPSHOT_LOCK = 7_236_011
HEALTH_LOCK = 7_236_012


@dataclass
class Worker:
    """One process: what it holds, and what runs in it."""

    cluster: Cluster
    cluster_name: str
    home: Path
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{_nonce()}")
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    turned_at: float = field(default_factory=time.monotonic)
    began_at: datetime = field(default_factory=real_now)
    _jobs: Hands = field(
        default_factory=lambda: Hands(settings().worker_jobs, most_aside=KEEPERS_AT_ONCE)
    )
    _syncs: Hands = field(default_factory=lambda: Hands(SYNCS_AT_ONCE))
    _windows: Hands = field(default_factory=lambda: Hands(WINDOWS_AT_ONCE))
    # Whose sync waits for a free hand, in order, and when the database was last asked for them.
    _due: dict[UUID, None] = field(default_factory=dict)
    _looked_at: float = 0.0
    _known_at: float = -math.inf  # when the cluster was last seen to be the one it was

    async def run(self) -> None:
        """Run every loop until somebody asks to stop; then end or release what is at work."""
        loops = [
            asyncio.create_task(self._forever(name, turn, pause), name=name)
            for name, turn, pause in (
                ("jobs", self.claim, 0.0),
                ("sync", self.sync_customers, 0.0),
                ("webhooks", apply_webhooks, 0.0),
                ("mail", send_mail, 0.0),
                ("windows", self.show_windows, 0.0),
                ("watch", self.watch, LEADER_SECONDS),
                (jobs.SWEEP_BELL, self.sweep, SWEEP_SECONDS),
                ("health", self.check_health, LOOK_CLOSER_SECONDS),
                ("drift", self.mend_drift, DRIFT_SECONDS),
                ("tokens", self.check_tokens, TOKEN_SECONDS),
                ("orphans", self.look_after_orphans, ORPHAN_SECONDS),
                ("reaper", reap, REAP_SECONDS),
                (jobs.TIMER_BELL, turn_timers, TIMER_SECONDS),
                ("tidy", tidy, TIDY_SECONDS),
                ("backups", retain_backups, RETAIN_SECONDS),
                ("snapshots", self.make_snapshots, SNAPSHOT_SECONDS),
                ("meter", check_meters, CHECK_SECONDS),
                ("notices", tell_of_limits, NOTICE_SECONDS),
                ("rejects", retry_rejects, REJECT_SECONDS),
                ("margins", watch_margins, MARGIN_SECONDS),
                ("spool", self.replay_spool, SPOOL_SECONDS),
                ("alive", self.tell_alive, ALIVE_SECONDS),
            )
        ]
        await self.stopping.wait()
        logger.info("The worker is ending.")
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._windows.empty(timeout_seconds=0)
        await self._syncs.empty(timeout_seconds=0)  # their leases run out; nothing is half done
        await self._jobs.empty(timeout_seconds=END_SECONDS)

    async def claim(self) -> None:
        """Wait for the bell, or two seconds, and start as many due jobs as there are free hands."""
        self.turned_at = time.monotonic()
        await self._know_cluster()
        if self._jobs.are_full:
            await self._jobs.wait_for_one(timeout_seconds=LOOK_SECONDS)
        else:
            await redis.wait_for_bell(jobs.BELL, timeout_seconds=LOOK_SECONDS)
        while not self._jobs.are_full:
            async with session_scope() as session:
                claimed = await leases.claim_job(
                    session,
                    owner=self.owner,
                    cluster=self.cluster_name,
                    most_repairs=max(settings().worker_jobs // 2, 1),
                )
            if claimed is None:
                return
            self._jobs.take(claimed.job.id, self.work(claimed))

    async def work(self, claimed: ClaimedJob) -> None:
        """Do one job under its heartbeat; cancelled, it is given back."""
        fields = {"job_id": claimed.job.id, "box_id": claimed.job.box_id}
        doing = asyncio.create_task(_attempt(self.cluster, claimed, self._jobs))
        beating = asyncio.create_task(_beat(claimed, doing))
        try:
            await asyncio.shield(doing)
        except LeaseLostError as error:
            logger.warning("A job was lost: %s", error, extra=fields)
        except asyncio.CancelledError:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
            await _give_back(claimed)
        except Exception:
            logger.exception(
                "A job's end could not be written; its lease will run out.", extra=fields
            )
        finally:
            beating.cancel()

    async def sync_customers(self) -> None:
        """Sync whoever the bell names and, however often it rings, whoever waits in the database.

        A slow answer of Stripe holds up its own customer only.
        """
        if self._syncs.are_full:
            await self._syncs.wait_for_one(timeout_seconds=LOOK_SECONDS)
        elif not self._due:
            note = await redis.wait_for_bell(billing.BELL, timeout_seconds=LOOK_SECONDS)
            if (named := _uuid(note)) is not None:
                self._due[named] = None
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._due |= dict.fromkeys(await subscription.due_syncs())
            self._looked_at = time.monotonic()
        while self._due and not self._syncs.are_full:
            customer_id = next(iter(self._due))
            del self._due[customer_id]
            if customer_id not in self._syncs:  # a sync at work sees by itself that it was asked
                self._syncs.take(customer_id, _sync(customer_id))

    async def show_windows(self) -> None:
        """Fetch logs and events of the boxes that somebody watches right now."""
        if self._windows.are_full:
            await self._windows.wait_for_one(timeout_seconds=LOOK_SECONDS)
            return
        note = await redis.wait_for_bell(windows.BELL, timeout_seconds=LOOK_SECONDS)
        box_id = _uuid(note)
        if box_id is not None and box_id not in self._windows:
            look = looking.serve_box(
                self.cluster, box_id, cluster_name=self.cluster_name, owner=self.owner
            )
            self._windows.take(box_id, look)

    async def watch(self) -> None:
        """Follow the cluster while we are the one who does, and count missed checks."""
        async with self._leading(WATCH_LOCK) as still_leading:
            watcher = watching.Watcher(
                self.cluster_name,
                provisioning.box_changed,
                find=partial(sweeping.find_hidden, self.cluster),
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(_follow(self.cluster, watcher))
                group.create_task(watcher.follow())
                group.create_task(_evaluate(watcher, self.cluster_name, still_leading))

    async def sweep(self) -> None:
        async with self._leading(SWEEP_LOCK):
            await sweeping.sweep(self.cluster, self.cluster_name, provisioning.box_changed)

    async def check_health(self) -> None:
        """Look at boxes that the watch has not seen for long, and tell when it is silent."""
        why = ""
        try:
            async with self._leading(HEALTH_LOCK):
                await checking.look(self.cluster, self.cluster_name, provisioning.box_changed)
        except VendorError as error:
            logger.warning("The boxes could not be looked at: %s", error)
            why = str(error)
        await checking.judge_watch(self.cluster_name, began_at=self.began_at, why=why)

    async def mend_drift(self) -> None:
        async with self._leading(DRIFT_LOCK):
            await upgrading.pin_images(self.cluster_name)
            if count := await repairs.mend_drift(self.cluster, self.cluster_name):
                logger.info("%d boxes were not as they had been applied.", count)

    async def check_tokens(self) -> None:
        async with self._leading(TOKEN_LOCK):
            found = await stray_tokens.check_tokens(self.cluster, self.cluster_name)
        if found.rotated or found.revoked:
            logger.info("%d tokens rotate, %d were revoked.", found.rotated, found.revoked)

    async def look_after_orphans(self) -> None:
        async with self._leading(ORPHAN_LOCK):
            await orphans.look_after(self.cluster, self.cluster_name)

    async def make_snapshots(self) -> None:
        async with self._leading(SNAPSHOT_LOCK) as still_leading:
            count = await snapshots.look_after(self.cluster, self.cluster_name, still_leading)
        if count:
            logger.info("%d snapshots were begun.", count)

    async def replay_spool(self) -> None:
        await metering.replay_spool(self.home / SPOOL_FOLDER)

    async def tell_alive(self) -> None:
        """Leave a sign of life: the supervisor, or the kubelet, looks at the age of this file.

        A worker that waits for a silent database lives: to start it anew would help nobody.
        """
        is_stuck = time.monotonic() - self.turned_at > STUCK_SECONDS
        if is_stuck and await database.answers():
            logger.error("The job loop does not turn; this worker does not call itself alive.")
            return
        await asyncio.to_thread((self.home / ALIVE_FILE).write_text, real_now().isoformat())

    @contextlib.asynccontextmanager
    async def _leading(self, lock: int) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
        """Be the one worker that does this in our cluster."""
        await self._know_cluster()
        async with only_one(lock, self.cluster_name) as still_leading:
            yield still_leading

    async def _know_cluster(self) -> None:
        """Touch nothing before it is certain that this is the cluster our boxes live in."""
        if time.monotonic() - self._known_at < KNOWN_SECONDS:
            return
        try:
            await same_cluster.make_sure(self.cluster, self.cluster_name)
        except VendorError:
            if self._known_at < 0:
                raise  # else whoever does not answer now is who it was
        self._known_at = time.monotonic()

    async def _forever(self, name: str, turn: Callable[[], Awaitable[None]], pause: float) -> None:
        failed, asked_by = 0, None
        while True:
            try:
                await turn()
                failed = 0
                if asked_by is not None:
                    await redis.ring(jobs.answer_of(name), asked_by)
            except NotLeaderError:
                failed = 0
            except Exception as error:
                failed += 1
                is_ours = isinstance(error, OpenClawError)
                logger.warning("The loop %s failed: %s", name, error, exc_info=not is_ours)
            if failed:
                await asyncio.sleep(back_off(failed, longest_seconds=LONGEST_BACK_OFF_SECONDS))
            elif name in jobs.RUNG_LOOPS:
                asked_by = await redis.wait_for_bell(name, timeout_seconds=pause)
            else:
                await asyncio.sleep(pause)


def main() -> None:
    """Run the worker until SIGTERM or Ctrl-C."""
    configure_logs(settings().log_level)
    require(settings())
    uvloop.run(run())


async def run() -> None:
    """Open database, Redis and cluster, run the loops, and close everything."""
    chosen = settings()
    async with AsyncExitStack() as stack:
        tables.resolve()
        # One for each job, beside what the loops use.
        connections = database.POOL_SIZE + chosen.worker_jobs
        database.open_database(chosen.database_url, connections=connections)
        stack.push_async_callback(database.close_database)
        redis.open_redis(chosen.redis_url)
        stack.push_async_callback(redis.close_redis)
        stack.push_async_callback(payment_client.close_payments)
        opened = await cluster.connect(chosen.kubeconfig)
        stack.push_async_callback(opened.close)
        worker = Worker(cluster=opened, cluster_name=chosen.cluster_name, home=chosen.home)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stopping.set)
        collecting.leave_start_alone()
        logger.info("The worker runs.")
        await worker.run()


async def apply_webhooks() -> None:
    await redis.wait_for_bell(jobs.WEBHOOK_BELL, timeout_seconds=LOOK_SECONDS)
    while await stripe_events.apply_webhook_events():
        continue


async def send_mail() -> None:
    await redis.wait_for_bell("mail", timeout_seconds=MAIL_SECONDS)
    for failed in await send_due_mail():
        await _report_mail(failed)


async def reap() -> None:
    """Take back the jobs of workers that went silent, and complain when the queue stands still.

    Raises:
        OpenClawError: at least one could not be taken back, and was logged; it held up no other.
    """
    async with session_scope() as session:
        expired = await leases.any_customers_expired_jobs(session)
    has_failed = False
    for job in expired:
        try:
            await _reap_one(job)
        except Exception:
            fields = {"job_id": job.id, "box_id": job.box_id}
            logger.exception("A silent worker's job could not be taken back.", extra=fields)
            has_failed = True
    async with session_scope() as session:
        await stuck.watch_queue(session)
    if has_failed:
        raise OpenClawError("At least one job could not be taken back.")


async def _reap_one(job: OperatorJob) -> None:
    async with session_scope() as session:
        for change in await failures.reap(session, job.id, job.box_id):
            await provisioning.box_changed(session, change)


async def turn_timers() -> None:
    """Turn each timer; one that fails holds up no other.

    Raises:
        OpenClawError: at least one failed, and was logged.
    """
    has_failed = False
    for turn in (
        abandon_expired_chats,
        subscription.request_overdue_syncs,
        delivery.turn_timers,
        subscription_mails.send_reminders,
        provisioning.tell_of_outages,
    ):
        try:
            await turn()
        except Exception:
            logger.exception("The timer %s failed.", turn.__name__)
            has_failed = True
    if has_failed:
        raise OpenClawError("At least one timer failed.")


async def tidy() -> None:
    """Forget what is long over, once a day."""
    async with only_one(TIDY_LOCK):
        count = await forget_old_rows()
    logger.info("%d old codes, sessions and mails were deleted.", count)


async def retain_backups() -> None:
    """Forget backups that are kept no longer; their objects follow."""
    async with only_one(RETAIN_LOCK):
        count = await retaining.retain()
    if count:
        logger.info("%d backups were deleted from the store.", count)


async def check_meters() -> None:
    async with only_one(METER_LOCK):
        count = await metering.check_meters()
    logger.info("%d meters were checked.", count)


async def tell_of_limits() -> None:
    if count := await metering.send_limit_notices():
        logger.info("%d customers were told how much they have used.", count)


async def retry_rejects() -> None:
    if count := await metering.retry_rejects():
        logger.info("%d refused events were written after all.", count)


async def watch_margins() -> None:
    async with only_one(MARGIN_LOCK):
        if count := await margins.watch():
            logger.info("%d customers cost us more than they should.", count)


async def _sync(customer_id: UUID) -> None:
    try:
        await subscription.sync(customer_id)
    except Exception:
        logger.exception(
            "A sync broke; it is tried again when its lease runs out.",
            extra={"customer_id": customer_id},
        )


async def _attempt(opened: Cluster, claimed: ClaimedJob, hands: Hands) -> None:
    """Do a job once and write down how it went."""
    try:
        await tasks.converge(opened, claimed, conclude=provisioning.box_changed, aside=hands.aside)
    except LeaseLostError:
        raise
    except Exception as error:  # noqa: BLE001 - the worker's last word on a job: it is logged there
        await _note_failed_attempt(claimed, error)
        return
    async with session_scope() as session:
        await leases.finish_job(session, claimed.fence)


async def _give_back(claimed: ClaimedJob) -> None:
    fields = {"job_id": claimed.job.id, "box_id": claimed.job.box_id}
    try:
        async with session_scope() as session:
            await leases.release_job(session, claimed.fence)
        logger.warning("A job was given back unfinished.", extra=fields)
    except LeaseLostError:
        logger.warning("A job was lost to another worker.", extra=fields)
    except Exception:
        logger.exception("A job could not be given back; its lease will run out.", extra=fields)


async def _note_failed_attempt(claimed: ClaimedJob, error: Exception) -> None:
    fields = {"job_id": claimed.job.id, "box_id": claimed.job.box_id}
    is_ours = isinstance(error, OpenClawError)
    logger.warning("An attempt failed: %s", error, exc_info=not is_ours, extra=fields)
    code, can_retry, is_settings_fault = _judge(error, claimed.fence.attempt)
    tried = error.generation if isinstance(error, UnusableSettingsError) else None
    async with session_scope() as session:
        changes = await failures.attempt_failed(
            session,
            claimed,
            code=code,
            detail=f"{type(error).__name__}: {error}",
            can_retry=can_retry,
            is_settings_fault=is_settings_fault,
            tried=tried,
            asked_seconds=getattr(error, "retry_after_seconds", 0.0),
        )
        for change in changes:
            await provisioning.box_changed(session, change)


def _judge(error: Exception, attempt: int) -> tuple[str, bool, bool]:
    """Return an error's code, whether trying again can help, and whether settings are at fault."""
    if isinstance(error, StopRequestedError):
        return jobs.CANCELLED, False, False
    if isinstance(error, UnusableSettingsError):
        return "bad_settings", False, True
    if not isinstance(error, VendorError):  # ours: a setting of the platform, a key, a bug
        return "internal_error", True, False
    code = error.code or "vendor_error"
    if code == INVALID:
        can_retry = is_worth_another_try(error, attempt)
        return code, can_retry, not can_retry
    blamed_from = error.blamed_from if isinstance(error, NotReadyError) else None
    return code, error.can_retry, blamed_from is not None and attempt >= blamed_from


async def _beat(claimed: ClaimedJob, doing: asyncio.Task[None]) -> None:
    """Prolong the lease; stop the work when that fails for too long, before the lease runs out."""
    heard_at = time.monotonic()
    while (left := heard_at + leases.LONGEST_SILENCE_SECONDS - time.monotonic()) > 0:
        await asyncio.sleep(min(leases.HEARTBEAT_SECONDS, left))
        began = time.monotonic()
        try:
            await _heartbeat(claimed)
            heard_at = began
        except LeaseLostError:
            break
        except Exception:
            logger.exception("A heartbeat failed.", extra={"job_id": claimed.job.id})
    doing.cancel()


async def _heartbeat(claimed: ClaimedJob) -> None:
    """Prolong the lease once; a database that hangs is left alone, even if it cannot be cancelled.

    Raises:
        TimeoutError: it did not answer in time.
    """

    async def beat() -> None:
        async with session_scope() as session:
            await leases.heartbeat(session, claimed.fence)

    beating = asyncio.create_task(beat())
    try:
        done, _ = await asyncio.wait({beating}, timeout=HEARTBEAT_PATIENCE_SECONDS)
    finally:
        beating.cancel()
    if not done:
        raise TimeoutError("The database does not answer.")
    beating.result()


async def _follow(opened: Cluster, watcher: watching.Watcher) -> None:
    async with contextlib.aclosing(opened.watch()) as events:
        async for event in events:
            watcher.remember(event)


async def _evaluate(
    watcher: watching.Watcher, cluster_name: str, still_leading: Callable[[], Awaitable[None]]
) -> None:
    while True:
        await asyncio.sleep(EVALUATE_SECONDS)
        await still_leading()
        await watcher.evaluate()
        await checking.note_watch(cluster_name, watcher.silent_because)


async def _report_mail(failed: FailedMail) -> None:
    async with session_scope() as session:
        await jobs.raise_alert(
            session,
            code="mail_failed",
            subject=str(failed.mail_id),
            detail={"kind": failed.kind, "error": failed.error},
        )


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None


def _nonce() -> str:
    return uuid4().hex[:8]
