"""The worker itself: its loops, its end, and what a failure at any step leaves behind."""

import asyncio
import contextlib
import functools
import signal
import sys
import time

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web import worker as operator
from openclaw_web.accounts.models import OutboxMail
from openclaw_web.boxes import queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core import secrets
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings
from openclaw_web.integrations.cluster_objects import NamespaceState
from openclaw_web.jobs.models import Alert, JobStatus, JobType, OperatorJob
from openclaw_web.metering.models import ProxyToken
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState
from openclaw_web.onboarding.service import BOT_TOKEN_PURPOSE
from openclaw_web.workflows import provisioning
from tests.contracts.simulator_process import ROOT, clean_environment
from tests.factories import make_onboarding, make_subscription
from tests.flows.box_world import box_world, cluster_process, eventually

pytestmark = pytest.mark.usefixtures("database", "redis")
CLEAR_BOT_TOKEN = "987654321:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"  # noqa: S105 - the form of one


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with cluster_process(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, database):
    assert database
    async with box_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


@contextlib.asynccontextmanager
async def at_work(world):
    working = asyncio.create_task(world.worker.run())
    try:
        yield
    finally:
        world.worker.stopping.set()
        await working


async def paid_chat():
    """Make the chat of somebody who has just paid."""
    async with session_scope() as session:
        subscription = await make_subscription(session)
        chat = await make_onboarding(
            session,
            state=OnboardingState.AWAITING_PAYMENT,
            customer_id=subscription.customer_id,
            telegram_user_id=111222333,
            derived_config={"use_case": "plan", "language": "de", "style": "direct"},
        )
        session.add(
            OnboardingSecret(
                session_id=chat.id,
                telegram_token_ct=secrets.encrypt(BOT_TOKEN_PURPOSE, CLEAR_BOT_TOKEN),
                token_fingerprint=boxes.bot_fingerprint(CLEAR_BOT_TOKEN),
                bot_id=987654321,
                bot_username="a_paid_bot",
                key_id=secrets.KEY_ID,
            )
        )
        return subscription, chat


async def start(subscription, chat):
    async with session_scope() as session:
        return await provisioning.start_box(
            session, subscription=subscription, onboarding_session_id=chat.id
        )


async def read_chat(chat):
    async with session_scope() as session:
        return await session.get_one(OnboardingSession, chat.id)


async def mails():
    async with session_scope() as session:
        return [mail.kind for mail in (await session.exec(select(OutboxMail))).all()]


async def test_a_paid_chat_becomes_a_live_box_and_a_deleted_namespace_comes_back(world):
    subscription, chat = await paid_chat()
    async with at_work(world):
        box = await start(subscription, chat)

        async def has_status(status):
            return (await world.read(box.id)).status is status

        async def is_alive():
            return (world.worker.home / operator.ALIVE_FILE).exists()

        await eventually(lambda: has_status(BoxStatus.ACTIVE))
        assert (await read_chat(chat)).state is OnboardingState.COMPLETE
        assert "live" in await mails()
        assert await is_alive()
        await world.cluster.delete_namespace(box.k8s_namespace)
        await eventually(lambda: has_status(BoxStatus.UNHEALTHY), seconds=2)
        await eventually(lambda: has_status(BoxStatus.ACTIVE))
        assert (await mails()).count("memory_lost") == 1
        assert queries.memory_lost_at(await world.read(box.id)) is not None


async def test_a_chat_starts_one_box_however_often_it_is_asked(world):
    subscription, chat = await paid_chat()
    first, second = await start(subscription, chat), await start(subscription, chat)
    assert first.id == second.id
    chat = await read_chat(chat)
    assert (chat.state, chat.box_id) == (OnboardingState.PROVISIONING, first.id)
    assert (first.language, first.model) == ("de", "kimi-coding/k2p5")
    async with session_scope() as session:
        assert await session.get(OnboardingSecret, chat.id) is None
        assert await boxes.bot_token(session, first.id) == CLEAR_BOT_TOKEN
    assert len(await world.jobs_of(first)) == 1


async def test_a_worker_that_ends_gives_its_job_back(world, monkeypatch):
    monkeypatch.setattr(operator, "END_SECONDS", 0.1)
    box = await world.new_box(thinking_level="max")
    async with at_work(world):
        await world.request(box, JobType.PROVISION)

        async def runs():
            return (await world.jobs_of(box))[0].status is JobStatus.RUNNING

        await eventually(runs)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    (job,) = await world.jobs_of(box)
    assert (job.status, job.lease_owner, job.max_attempts) == (JobStatus.QUEUED, None, 6)


MOST_ATTEMPTS = 20
WRITES = frozenset({"create", "apply", "merge"})


class FailingCluster:
    """A cluster at which each write fails the first time, before or after it was done."""

    def __init__(self, cluster, *, is_after=False):
        self._cluster = cluster
        self._is_after = is_after
        self.failed = set()

    def __getattr__(self, name):
        found = getattr(self._cluster, name)
        return functools.partial(self._write, name, found) if name in WRITES else found

    async def _write(self, name, write, *arguments):
        (first, *_) = arguments
        what = (name, first if isinstance(first, str) else first["kind"])
        fails = what not in self.failed
        if fails and not self._is_after:
            self.failed.add(what)
            raise VendorError("Too busy.", can_retry=True, code="busy")
        done = await write(*arguments)
        if fails:
            self.failed.add(what)
            raise VendorError("No answer.", can_retry=True, code="timeout")
        return done


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
async def test_a_failure_at_any_write_ends_in_the_same_box(world, is_after):
    box = await world.new_box()
    job_id = await world.request(box, JobType.PROVISION)
    world.worker.cluster = failing = FailingCluster(world.worker.cluster, is_after=is_after)
    for _ in range(MOST_ATTEMPTS):
        await due_now(job_id)
        assert await world.work()
        if (await world.read(box.id)).status is BoxStatus.ACTIVE:
            break
    around = ("ServiceAccount", "LimitRange", "ResourceQuota", "NetworkPolicy")
    fenced = ("Namespace", "Secret", "Deployment")
    assert failing.failed == {
        *(("apply", kind) for kind in (*around, "PersistentVolumeClaim", "Secret", "Deployment")),
        *(("create", kind) for kind in fenced),
        ("merge", "Namespace"),
    }
    assert (await world.read(box.id)).status is BoxStatus.ACTIVE
    async with session_scope() as session:
        live = await queries.live_token_ids(session, box.id)
        every = (await session.exec(select(ProxyToken).where(ProxyToken.box_id == box.id))).all()
    assert len(live) == 1
    assert len(every) >= 2
    assert len(await world.cluster.pods(box.k8s_namespace)) == 1


async def due_now(job_id):
    async with session_scope() as session:
        await session.exec(
            sa.update(OperatorJob)
            .where(col(OperatorJob.id) == job_id)
            .values(run_after=sa.func.clock_timestamp(), max_attempts=MOST_ATTEMPTS)
        )


async def test_a_set_up_that_fails_for_good_is_told(world):
    subscription, chat = await paid_chat()
    box = await start(subscription, chat)
    world.worker.cluster = FailingCluster(world.worker.cluster)
    (job,) = await world.jobs_of(box)
    async with session_scope() as session:
        await session.exec(sa.update(OperatorJob).values(max_attempts=1))
    await world.work()
    box = await world.read(box.id)
    assert (box.status, box.status_reason) == (BoxStatus.UNHEALTHY, "provision_failed")
    assert (await read_chat(chat)).state is OnboardingState.FAILED
    assert "provisioning_failed" in await mails()
    async with session_scope() as session:
        assert [one.code for one in (await session.exec(select(Alert))).all()] == ["box_job_failed"]
    assert (await world.jobs_of(box))[0].id == job.id
    assert await world.cluster.namespace_state(box.k8s_namespace) is NamespaceState.ABSENT


async def test_an_attempt_that_may_be_repeated_shows_the_box_as_waiting(world):
    box = await world.new_box()
    await world.request(box, JobType.PROVISION)
    world.worker.cluster = FailingCluster(world.worker.cluster)
    await world.work()
    box = await world.read(box.id)
    assert box.status is BoxStatus.PENDING
    assert (await world.view(box)).sentence == (
        "Waiting for the next try: the cluster is too busy."
    )


async def test_one_worker_leads_and_another_waits(world):
    async with operator.only_one(operator.WATCH_LOCK) as still_leading:
        await still_leading()
        with pytest.raises(operator.NotLeaderError):
            async with operator.only_one(operator.WATCH_LOCK):
                pass
    async with operator.only_one(operator.WATCH_LOCK):
        pass
    assert world


async def test_the_process_shows_that_it_lives_and_ends_by_signal(
    kubeconfig, database, valkey_server, tmp_path
):
    environment = clean_environment(
        OPENCLAW_CLOUD_HOME=str(tmp_path),
        SECRET_KEY=settings().secret_key,
        DATABASE_URL=database,
        REDIS_URL=valkey_server.url,
        KUBECONFIG=str(kubeconfig),
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openclaw_web", "worker", env=environment, cwd=ROOT
    )

    async def is_alive():
        return await asyncio.to_thread((tmp_path / operator.ALIVE_FILE).exists)

    try:
        await eventually(is_alive, seconds=60)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
