"""The memory of an assistant for the next one of the same customer: a copy, and nothing else."""

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog, Customer
from openclaw_web.billing.models import Subscription, SubscriptionStatus
from openclaw_web.boxes import queries
from openclaw_web.boxes.memory import addresses, backups, carrying, listing, restoring
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.integrations.storage import Store
from openclaw_web.jobs.models import Alert, JobType
from openclaw_web.workflows import memory_acts
from openclaw_web.workflows.operations import By
from tests.factories import make_customer
from tests.flows.memory_world import memory_cluster, memory_world
from tests.flows.test_memory import act, open_alerts

pytestmark = pytest.mark.usefixtures("database", "redis")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with memory_cluster(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, database):
    assert database
    async with memory_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


async def deleted_box(world):
    """Return a box that was deleted after its last backup; its subscription is over."""
    box = await world.boxes.live_box()
    await world.boxes.do(box, JobType.DESTROY)
    async with session_scope() as session:
        subscription = await session.get_one(Subscription, box.subscription_id)
        subscription.status = SubscriptionStatus.CANCELLED
        session.add(subscription)
    return await world.boxes.read(box.id)


async def next_box(world, box):
    async with session_scope() as session:
        customer = await session.get_one(Customer, box.customer_id)
    return await world.boxes.new_box(customer=customer)


async def former(box):
    async with session_scope() as session:
        return await listing.list_former(session, box.customer_id)


@pytest.mark.slow
async def test_the_next_assistant_begins_with_what_the_former_one_remembered(world):
    before = await deleted_box(world)
    (kept,) = await former(before)
    box = await next_box(world, before)
    await world.boxes.request(box, JobType.PROVISION)
    await act(world, backups.request_restore, box, kept.id)  # before its first start
    while await world.boxes.work():
        continue
    box = await world.boxes.read(box.id)
    assert (box.status, world.memory(box)) == (BoxStatus.ACTIVE, "xx")
    assert queries.memory_from(box) == kept.made_at
    (copy,) = await world.backups(box)
    mine, theirs = await world.row(copy.id), await world.row(kept.id)
    assert (copy.reason, mine.sha256) == ("clone", theirs.sha256)
    assert mine.key_ct != theirs.key_ct
    sealed = [one.read_bytes() for one in world.objects()]
    assert len({*sealed}) == 2  # the same memory, and not a byte of it the same
    assert [one.id for one in await former(before)] == [kept.id]


@pytest.mark.slow
async def test_an_assistant_that_runs_already_is_saved_before_it_takes_it_over(world):
    before = await deleted_box(world)
    (kept,) = await former(before)
    box = await next_box(world, before)
    await world.boxes.do(box, JobType.PROVISION)
    (world.volume(box) / "new").write_text("since", encoding="ascii")
    await act(world, backups.request_restore, box, kept.id)
    assert (world.memory(box), (world.volume(box) / "new").exists()) == ("xx", False)
    assert {one.reason for one in await world.backups(box)} == {"clone", "before_restore"}


@pytest.mark.slow
async def test_a_damaged_copy_is_told_and_the_assistant_answers_without_it(world):
    before = await deleted_box(world)
    (kept,) = await former(before)
    (stored,) = world.objects()
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    box = await next_box(world, before)
    await world.boxes.request(box, JobType.PROVISION)
    await act(world, backups.request_restore, box, kept.id)
    while await world.boxes.work():
        continue
    box = await world.boxes.read(box.id)
    assert (box.status, world.memory(box)) == (BoxStatus.ACTIVE, "x")
    assert [one.code for one in await open_alerts()] == [restoring.ALERT_RESTORE]
    assert (await former(before), await world.backups(box)) == ([], [])


@pytest.mark.slow
async def test_a_store_that_is_away_is_asked_again(world, monkeypatch):
    before = await deleted_box(world)
    (kept,) = await former(before)
    box = await next_box(world, before)
    await world.boxes.do(box, JobType.PROVISION)
    with monkeypatch.context() as broken:
        broken.setattr(carrying, "store", lambda: Store("file:///nowhere/at/all"))
        await act(world, backups.request_restore, box, kept.id)
    assert (await world.row(kept.id)).error is None
    assert backups.RESTORE in (await world.boxes.read(box.id)).health
    await world.boxes.do(box, JobType.UPDATE)
    assert world.memory(box) == "xx"


@pytest.mark.slow
async def test_memory_never_goes_to_another_customer(world):
    before = await deleted_box(world)
    (kept,) = await former(before)
    stranger = await world.boxes.live_box()
    async with session_scope() as session:
        with pytest.raises(NotFoundError):
            await backups.request_restore(session, stranger, kept.id, requested_by="test")
        with pytest.raises(NotFoundError):
            await memory_acts.bring_back(
                session, stranger.customer_id, kept.id, by=By(reason="a mistake")
            )
        assert await listing.list_former(session, stranger.customer_id) == []
        box = await queries.get_any_box(session, stranger.id, lock=True)
        row = await session.get_one(type(await world.row(kept.id)), kept.id)
        backups.mark_restore(box, row)  # a row that somebody wrote by hand
        session.add(box)
    await world.boxes.do(stranger, JobType.UPDATE)
    assert world.memory(stranger) == "xx"
    assert [one.code for one in await open_alerts()] == [restoring.ALERT_RESTORE]


@pytest.mark.slow
async def test_an_admin_says_why_before_memory_moves(world):
    before = await deleted_box(world)
    (kept,) = await former(before)
    box = await next_box(world, before)
    await world.boxes.do(box, JobType.PROVISION)
    why = "the customer asked us to"
    async with session_scope() as session:
        with pytest.raises(ValidationError):
            await memory_acts.bring_back(session, box.customer_id, kept.id, by=By(reason=" "))
        await memory_acts.bring_back(session, box.customer_id, kept.id, by=By(reason=why))
    await world.boxes.work()
    assert world.memory(box) == "xx"
    async with session_scope() as session:
        line = (await session.exec(select(AuditLog).where(AuditLog.reason == why))).one()
    assert (line.action, line.actor_id) == ("box.memory_brought_back", "shell")


@pytest.mark.slow
async def test_only_an_admin_ends_the_wait_for_a_last_backup(world, monkeypatch):
    box = await world.boxes.live_box()
    monkeypatch.setattr(addresses, "PATH", "/nowhere/")
    await world.boxes.do(box, JobType.DESTROY)
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYING
    async with session_scope() as session:
        alert = (await session.exec(select(Alert))).one()
        admin = await make_customer(session)
        for_nothing, why = (
            By(admin_id=admin.id, reason=text) for text in ("", "its volume cannot be read")
        )
        with pytest.raises(ValidationError):
            await memory_acts.give_up_last_backup(session, alert.id, by=for_nothing)
        await memory_acts.give_up_last_backup(session, alert.id, by=why)
    while await world.boxes.work():
        continue
    assert (await world.boxes.read(box.id)).status is BoxStatus.DESTROYED
    assert await open_alerts() == []
    async with session_scope() as session:
        actions = (await session.exec(select(AuditLog.action, AuditLog.reason))).all()
    assert ("box.last_backup_given_up", "its volume cannot be read") in actions
