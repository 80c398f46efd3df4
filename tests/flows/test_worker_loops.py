"""The worker's loops without a cluster: who is synced when, and what is tidied up."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from openclaw_web import worker as operator
from openclaw_web.accounts.models import SignInCode
from openclaw_web.billing import queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import BillingSync
from openclaw_web.boxes.same_cluster import OtherClusterError
from openclaw_web.core import database as core_database
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.leadership import NotLeaderError, only_one
from openclaw_web.core.switches import write_switch
from openclaw_web.integrations import payment_reversals, payments
from openclaw_web.integrations import redis as bells
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView
from tests.factories import make_customer

pytestmark = pytest.mark.usefixtures("database", "redis")


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr(operator, "LOOK_SECONDS", 0.05)
    no_cluster: Any = SimpleNamespace()
    return operator.Worker(cluster=no_cluster, cluster_name="none", home=tmp_path)


@pytest.mark.parametrize("database_answers", [True, False])
async def test_a_worker_that_stands_still_is_dead_unless_it_waits_for_the_database(
    worker, monkeypatch, database_answers
):
    async def silent_server(_reader, writer):
        await ended.wait()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_server(silent_server, "127.0.0.1")
    if not database_answers:
        port = server.sockets[0].getsockname()[1]
        frozen = SimpleNamespace(url=sa.make_url(f"postgresql://one:two@127.0.0.1:{port}/three"))
        monkeypatch.setattr(core_database, "engine", lambda: frozen)
        monkeypatch.setitem(core_database.CONNECTION, "connect_timeout", 2)
    worker.turned_at -= operator.STUCK_SECONDS + 1
    await worker.tell_alive()
    assert (worker.home / operator.ALIVE_FILE).exists() is not database_answers
    ended.set()
    server.close()


async def test_a_worker_that_turns_is_alive_and_asks_nobody(worker, monkeypatch):
    monkeypatch.setattr(core_database, "answers", None)
    await worker.tell_alive()
    assert (worker.home / operator.ALIVE_FILE).exists()


async def a_customer(**fields):
    async with session_scope() as session:
        return await make_customer(session, **fields)


async def ask(customer):
    async with session_scope() as session:
        await billing.request_sync(session, customer.id)


async def wait_without_a_bell(customer):
    """Ask as somebody does whose bell was lost, or whose sync failed a while ago."""
    async with session_scope() as session:
        session.add(BillingSync(customer_id=customer.id, requested_seq=1))


async def is_synced(customer):
    async with session_scope() as session:
        row = await queries.find_sync(session, customer.id)
    return row is not None and row.synced_seq == row.requested_seq


async def turn_until_synced(worker, customer, *, meanwhile=None):
    async with asyncio.timeout(10):
        while not await is_synced(customer):
            if meanwhile is not None:
                await meanwhile()
            await worker.sync_customers()


async def test_bells_that_never_stop_do_not_keep_a_waiting_customer_waiting(worker):
    waiting, noisy = await a_customer(), await a_customer()
    await wait_without_a_bell(waiting)

    async def ring():
        await asyncio.sleep(0.02)
        await bells.ring(billing.BELL, str(noisy.id))

    await turn_until_synced(worker, waiting, meanwhile=ring)


async def test_a_slow_stripe_holds_up_one_customer_only(worker, monkeypatch):
    slow = await a_customer(stripe_customer_id="cus_slow")
    quick = await a_customer()
    ended = asyncio.Event()

    async def hang(_stripe_customer_id):
        await ended.wait()
        return ()

    monkeypatch.setattr(payments, "subscriptions_of", hang)
    monkeypatch.setattr(payments, "invoices_of", hang)
    monkeypatch.setattr(payments, "is_customer_deleted", hang)
    monkeypatch.setattr(payment_reversals, "charges_of", hang)
    await ask(slow)
    await ask(quick)
    await turn_until_synced(worker, quick)
    assert not await is_synced(slow)
    ended.set()
    await turn_until_synced(worker, slow)


async def test_more_customers_than_hands_are_all_synced(worker):
    customers = [await a_customer() for _ in range(operator.SYNCS_AT_ONCE + 2)]
    for customer in customers:
        await wait_without_a_bell(customer)
    for customer in customers:
        await turn_until_synced(worker, customer)


async def test_what_is_long_over_is_forgotten_by_one_worker():
    long_ago = real_now() - timedelta(days=2)
    async with session_scope() as session:
        session.add(
            SignInCode(email="a@b.test", code_hash="x", created_at=long_ago, expires_at=long_ago)
        )
    async with only_one(operator.TIDY_LOCK):
        with pytest.raises(NotLeaderError):
            await operator.tidy()
    await operator.tidy()
    async with session_scope() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(SignInCode)) == 0


async def test_meters_are_checked_by_one_worker():
    async with only_one(operator.METER_LOCK):
        with pytest.raises(NotLeaderError):
            await operator.check_meters()
    await operator.check_meters()


async def test_the_meters_other_turns_run_in_any_worker(worker):
    for turn in (operator.tell_of_limits, operator.retry_rejects, worker.replay_spool):
        await asyncio.gather(turn(), turn())


async def test_a_worker_stops_when_its_clusters_name_goes_to_another_one(tmp_path, monkeypatch):
    class Here:
        async def find_namespace(self, name):
            return NamespaceView(name=name, uid="here", state=NamespaceState.ACTIVE)

    here: Any = Here()
    worker = operator.Worker(cluster=here, cluster_name="default", home=tmp_path)
    monkeypatch.setattr(operator, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(operator, "KNOWN_SECONDS", 0.0)
    await worker.claim()
    async with session_scope() as session:
        await write_switch(session, "cluster_uid_default", "there", by="test", at=real_now())
    with pytest.raises(OtherClusterError):
        await worker.claim()
    with pytest.raises(OtherClusterError):
        await worker.sweep()
