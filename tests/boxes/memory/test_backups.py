"""Backups on their way in and out: who may, how often, how much, and what is left of them."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from cryptography.exceptions import InvalidTag
from sqlmodel import select

from openclaw_web.boxes import queries
from openclaw_web.boxes.memory import addresses, backups, carrying, drills, listing, retaining
from openclaw_web.boxes.memory.addresses import Way
from openclaw_web.boxes.memory.backups import Reason
from openclaw_web.boxes.models import BoxBackup, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import NotFoundError, ValidationError, VendorError
from openclaw_web.core.sealing import DamagedError
from openclaw_web.gateway import memory, origin
from openclaw_web.gateway.origin import settings as read_settings
from openclaw_web.integrations.storage import MissingError, Store
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import Alert, JobStatus, OperatorJob
from openclaw_web.workflows import memory_acts
from openclaw_web.workflows.operations import By
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("database", "redis", "store")
NO_TOKEN = ""
MEMORY = b"what it knows of its owner" * 40_000


@pytest.fixture
def store(tmp_path, monkeypatch):
    found = Store(f"file://{tmp_path}/store")
    monkeypatch.setattr(carrying, "store", lambda: found)
    chosen = replace(read_settings(), keeper_image="keeper:1")
    monkeypatch.setattr(backups, "settings", lambda: chosen)
    return tmp_path / "store"


@pytest.fixture
async def keeper():
    transport = httpx.ASGITransport(memory.memory)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3001") as client:
        yield client


@pytest.fixture
async def box(session):
    made = await make_box(session, status=BoxStatus.ACTIVE)
    made.activated_at = await business_now(session)
    await session.commit()
    return made


async def begin(session, box, *, reason=Reason.MANUAL, most=10_000_000):
    ticket = await backups.begin_save(session, box, reason, most=most)
    await session.commit()
    return ticket


async def send(keeper, ticket, content=MEMORY, **headers):
    shown = {"authorization": f"Bearer {ticket.token}", **headers}
    return await keeper.put(f"/memory/{ticket.backup_id}", content=content, headers=shown)


async def fetch(keeper, ticket):
    shown = {"authorization": f"Bearer {ticket.token}"}
    return await keeper.get(f"/memory/{ticket.backup_id}", headers=shown)


async def saved(session, keeper, box, **more):
    ticket = await begin(session, box, **more)
    assert (await send(keeper, ticket)).status_code == 201
    return await row(session, ticket.backup_id)


async def row(session, backup_id):
    return await session.get_one(BoxBackup, backup_id, populate_existing=True)


async def restoring(session, box, backup):
    locked = await queries.get_any_box(session, box.id, lock=True)
    backups.mark_restore(locked, backup)
    ticket = await backups.begin_restore(session, locked)
    await session.commit()
    assert ticket is not None
    return ticket


def stored(store):
    return [one for one in store.rglob("*") if one.is_file()]


async def test_a_backup_comes_back_as_it_went(session, store, keeper, box):
    backup = await saved(session, keeper, box)
    assert (backup.size_bytes, backup.error) == (len(MEMORY), None)
    (stored_file,) = stored(store)
    assert stored_file.name == f"{backup.id}.sealed"
    assert b"owner" not in stored_file.read_bytes()
    await carrying.verify(backup)
    answer = await fetch(keeper, await restoring(session, box, backup))
    assert answer.content == MEMORY
    assert answer.headers["x-content-sha256"] == backup.sha256.hex()


async def test_an_object_store_keeps_and_gives_back_like_a_folder(
    session, keeper, box, monkeypatch
):
    bucket = Store(f"memory://{uuid4().hex}")
    monkeypatch.setattr(carrying, "store", lambda: bucket)
    backup = await saved(session, keeper, box)
    assert await bucket.exists(backup.location)
    assert (await fetch(keeper, await restoring(session, box, backup))).content == MEMORY
    await bucket.remove(backup.location)
    with pytest.raises(MissingError):
        await carrying.verify(backup)


async def test_an_address_is_good_for_one_use(session, keeper, box):
    ticket = await begin(session, box)
    assert (await send(keeper, ticket)).status_code == 201
    assert (await send(keeper, ticket)).status_code == 403
    back = await restoring(session, box, await row(session, ticket.backup_id))
    assert (await fetch(keeper, back)).status_code == 200
    assert (await fetch(keeper, back)).status_code == 403


async def test_a_new_try_ends_the_address_of_the_one_before(session, keeper, box):
    backup = await saved(session, keeper, box)
    old = await restoring(session, box, backup)
    new = await restoring(session, box, backup)
    assert (await fetch(keeper, old)).status_code == 403
    assert (await fetch(keeper, new)).status_code == 200


async def test_an_address_is_for_one_backup_and_one_way(session, store, keeper, box):
    mine, other = await begin(session, box), await begin(session, box)
    assert (await send(keeper, replace(mine, token=other.token))).status_code == 403
    assert (await fetch(keeper, mine)).status_code == 403
    assert (await send(keeper, replace(mine, token=NO_TOKEN))).status_code == 403
    assert (await send(keeper, replace(mine, token=NO_TOKEN + "a.b.c"))).status_code == 403
    strange = {"authorization": b"Bearer a.b.\xe9"}
    answer = await keeper.put(f"/memory/{mine.backup_id}", content=MEMORY, headers=strange)
    assert answer.status_code == 403
    assert stored(store) == []
    assert (await send(keeper, mine)).status_code == 201


async def test_an_address_is_over_after_its_time(session, keeper, box, monkeypatch):
    ticket = await begin(session, box)
    later = addresses.real_now() + addresses.ADDRESS_LIFE + timedelta(seconds=1)
    monkeypatch.setattr(addresses, "real_now", lambda: later)
    answer = await send(keeper, ticket)
    assert (answer.status_code, answer.text) == (403, "The time of this address is over.")


async def test_the_world_finds_nothing_here(session, keeper, box, monkeypatch):
    ticket = await begin(session, box)
    assert (await send(keeper, ticket, **{"x-forwarded-for": "203.0.113.1"})).status_code == 404
    live = replace(read_settings(), environment="production", proxy_internal_port=4001)
    monkeypatch.setattr(origin, "settings", lambda: live)
    assert (await send(keeper, ticket)).status_code == 404
    assert (await row(session, ticket.backup_id)).location == ""


async def test_more_than_its_volume_holds_is_not_taken(session, store, keeper, box):
    ticket = await begin(session, box, most=1_000)
    assert (await send(keeper, ticket)).status_code == 413
    backup = await row(session, ticket.backup_id)
    assert (backup.finished_at, backup.error) == (
        None,
        "This is more than the volume of this box holds.",
    )
    assert stored(store) == []


async def test_what_is_cut_off_is_no_backup(session, store, box):
    ticket = await begin(session, box)

    async def pieces():
        yield MEMORY
        raise carrying.CutOffError("The sender went away.")

    with pytest.raises(carrying.CutOffError):
        await carrying.take_in(ticket.backup_id, ticket.token, pieces())
    backup = await row(session, ticket.backup_id)
    assert (backup.finished_at, backup.error) == (None, "The sender went away.")
    assert await backups.newest_usable(session, box.id) is None
    assert stored(store) == []


async def test_who_sends_nothing_for_too_long_is_cut_off(session, box, monkeypatch):
    monkeypatch.setattr(memory, "SILENCE_SECONDS", 0)
    ticket = await begin(session, box)

    async def receive():
        await asyncio.Event().wait()

    async def send_nothing(_message):
        pytest.fail("nobody listens any more")

    scope = {
        "path": f"/memory/{ticket.backup_id}",
        "method": "PUT",
        "headers": [(b"authorization", f"Bearer {ticket.token}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 3001),
    }
    await memory.memory(scope, receive, send_nothing)
    assert (await row(session, ticket.backup_id)).error == (
        "The sender has sent nothing for too long."
    )


async def test_a_store_that_is_down_is_told(session, keeper, box, monkeypatch):
    async def refuse(_self, _name):
        raise VendorError("The backup store does not work: full.", can_retry=True)

    monkeypatch.setattr(Store, "create", refuse)
    ticket = await begin(session, box)
    assert (await send(keeper, ticket)).status_code == 503
    assert (await row(session, ticket.backup_id)).error == "The backup store does not work: full."


async def test_a_damaged_backup_never_looks_whole_and_is_not_offered_again(
    session, store, keeper, box
):
    backup = await saved(session, keeper, box)
    (stored_file,) = stored(store)
    sealed = bytearray(stored_file.read_bytes())
    sealed[-1] ^= 1
    stored_file.write_bytes(sealed)
    with pytest.raises(DamagedError):
        await carrying.verify(backup)
    with pytest.raises(DamagedError):
        await fetch(keeper, await restoring(session, box, backup))
    assert (await row(session, backup.id)).error == "This backup is damaged: it does not decrypt."
    (view,) = await listing.list_backups(session, box.customer_id, box.id)
    assert not view.is_usable


async def test_a_lost_object_is_told_and_not_offered_again(session, store, keeper, box):
    older, backup = await saved(session, keeper, box), await saved(session, keeper, box)
    await date_back(session, older)
    (store / backup.location).unlink()
    with pytest.raises(MissingError):
        await carrying.verify(backup)
    assert (await fetch(keeper, await restoring(session, box, backup))).status_code == 503
    assert (await row(session, backup.id)).error is not None
    left = await backups.newest_usable(session, box.id)
    assert left is not None
    assert left.id == older.id


async def test_a_store_that_is_not_there_makes_no_backup_a_bad_one(session, store, keeper, box):
    older, backup = await saved(session, keeper, box), await saved(session, keeper, box)
    await date_back(session, older)
    store.rename(store.with_name("unmounted"))
    ticket = await restoring(session, box, backup)
    assert (await fetch(keeper, ticket)).status_code == 503
    assert (await row(session, backup.id)).error is None
    marked = (await queries.get_any_box(session, box.id)).health[backups.RESTORE]
    assert not marked["is_taken"]  # no keeper has had it: what is there is whole
    store.with_name("unmounted").rename(store)
    assert (await fetch(keeper, ticket)).status_code == 200


async def test_what_is_on_its_way_to_be_a_backup_does_not_count_as_one(session, keeper, box):
    await saved(session, keeper, box, reason=Reason.COPY)
    assert not await queries.has_usable_backup(session, box.id)
    await saved(session, keeper, box)
    assert await queries.has_usable_backup(session, box.id)


async def test_what_was_stored_later_proves_nothing_whatever_its_date(session, store, keeper, box):
    backup, lifted = await saved(session, keeper, box), await saved(session, keeper, box)
    await date_back(session, lifted)
    (store / backup.location).unlink()
    assert (await fetch(keeper, await restoring(session, box, backup))).status_code == 503
    assert (await row(session, backup.id)).error is None


async def test_a_backup_whose_key_is_lost_is_told(session, keeper, box, monkeypatch):
    backup = await saved(session, keeper, box)

    def refuse(_purpose, _sealed):
        raise InvalidTag

    monkeypatch.setattr(carrying.secrets, "decrypt_bytes", refuse)
    found = await drills.verify_all()
    assert found.broken == {backup.id: str(carrying.LockedError())}
    answer = await fetch(keeper, await restoring(session, box, backup))
    assert (answer.status_code, answer.text) == (503, str(carrying.LockedError()))


async def date_back(session, backup):
    backup.created_at -= timedelta(hours=1)
    session.add(backup)
    await session.commit()


async def asked(session, box, backup):
    job = await backups.request_restore(session, box, backup.id, requested_by="ada")
    await session.commit()
    return job


async def test_a_cancelled_restore_does_not_happen_later(session, keeper, box):
    backup = await saved(session, keeper, box)
    job = await asked(session, box, backup)
    with pytest.raises(ValidationError, match="already"):
        await asked(session, box, backup)
    await session.commit()
    await backups.drop_cancelled_restore(session, box)
    assert backups.RESTORE in box.health
    await jobs.cancel_job(session, job.id, requested_by="admin")
    await backups.drop_cancelled_restore(session, box)
    assert backups.RESTORE not in box.health
    await session.commit()
    assert (await asked(session, box, backup)).id != job.id


async def test_a_cancelled_restore_that_has_begun_is_finished(session, keeper, box):
    backup = await saved(session, keeper, box)
    job = await asked(session, box, backup)
    locked = await queries.get_any_box(session, box.id, lock=True)
    ticket = await backups.begin_restore(session, locked)
    await session.commit()
    assert (await fetch(keeper, ticket)).status_code == 200
    await jobs.cancel_job(session, job.id, requested_by="admin")
    locked = await queries.get_any_box(session, box.id, lock=True)
    await session.refresh(locked)
    await backups.drop_cancelled_restore(session, locked)
    assert backups.RESTORE in locked.health


async def test_only_an_admin_chooses_another_one_for_a_lost_volume(session, keeper, box):
    wanted, waiting = await saved(session, keeper, box), await saved(session, keeper, box)
    locked = await queries.get_any_box(session, box.id, lock=True)
    backups.mark_restore(locked, waiting, or_older=True)
    await session.commit()
    with pytest.raises(ValidationError, match="already"):
        await asked(session, box, wanted)
    by = By(reason="its snapshot cannot be read")
    await memory_acts.bring_back(session, box.customer_id, wanted.id, by=by)
    mark = (await queries.get_any_box(session, box.id)).health[backups.RESTORE]
    assert (mark["backup"], mark["or_older"]) == (str(wanted.id), True)
    job = (await session.exec(select(OperatorJob))).one()
    job.status = JobStatus.RUNNING
    session.add(job)
    await session.flush()
    with pytest.raises(ValidationError, match="already"):
        await memory_acts.bring_back(session, box.customer_id, waiting.id, by=by)


async def test_the_next_older_one_has_its_turn_and_what_was_replaced_comes_last(
    session, keeper, box
):
    replaced = await saved(session, keeper, box, reason=Reason.BEFORE_RESTORE)
    older, newer = await saved(session, keeper, box), await saved(session, keeper, box)
    await date_back(session, older)
    order, found = [], await backups.newest_usable(session, box.id)
    while found is not None:
        order.append(found.id)
        found = await backups.newest_usable(session, box.id, after=found)
    assert order == [newer.id, older.id, replaced.id]


async def test_another_backups_object_does_not_open(session, store, keeper, box):
    mine, other = await saved(session, keeper, box), await saved(session, keeper, box)
    places = {one.name: one for one in stored(store)}
    places[f"{mine.id}.sealed"].write_bytes(places[f"{other.id}.sealed"].read_bytes())
    with pytest.raises(DamagedError):
        await carrying.verify(mine)


async def test_a_customer_sees_and_restores_only_what_is_theirs(session, keeper, box):
    backup = await saved(session, keeper, box)
    other = await make_box(session, status=BoxStatus.ACTIVE)
    await session.commit()
    assert await listing.list_backups(session, other.customer_id, box.id) == []
    with pytest.raises(NotFoundError):
        await backups.request_restore(session, other, backup.id, requested_by="eve")
    with pytest.raises(NotFoundError):
        await backups.request_restore(session, box, uuid4(), requested_by="ada")


async def test_what_has_never_run_has_nothing_to_save(session):
    fresh = await make_box(session, status=BoxStatus.PENDING)
    with pytest.raises(ValidationError, match="nothing to save"):
        await backups.request_backup(session, fresh, requested_by="ada")


async def test_only_the_newest_of_each_kind_are_kept(session, store, keeper, box):
    made = [await saved(session, keeper, box) for _ in range(4)]
    final = await saved(session, keeper, box, reason=Reason.FINAL)
    assert await retaining.retain() == 1
    oldest = await row(session, made[0].id)
    assert (oldest.key_ct, oldest.key_id, oldest.location) == (None, None, "")
    assert oldest.deleted_at is not None
    assert {one.name for one in stored(store)} == {f"{one.id}.sealed" for one in [*made[1:], final]}
    assert await retaining.retain() == 0


async def test_a_backup_that_is_to_come_back_is_kept(session, keeper, box):
    made = [await saved(session, keeper, box) for _ in range(5)]
    await restoring(session, box, made[0])
    assert await retaining.retain() == 1
    assert (await row(session, made[0].id)).deleted_at is None
    assert (await row(session, made[1].id)).deleted_at is not None


async def test_an_object_that_cannot_be_deleted_keeps_no_other_one(
    session, store, keeper, box, monkeypatch
):
    made = [await saved(session, keeper, box) for _ in range(2)]
    await retaining.shred(session, box.id)
    await session.commit()
    remove = Store.remove

    async def refuse(self, name):
        if name == made[0].location:
            raise VendorError("It is locked.", can_retry=True)
        await remove(self, name)

    monkeypatch.setattr(Store, "remove", refuse)
    assert await retaining.retain() == 1
    alerts = await session.exec(select(Alert).where(Alert.code == retaining.ALERT_DELETE))
    assert [one.detail for one in alerts.all()] == [{"error": "It is locked."}]
    assert len(stored(store)) == 1


async def test_the_last_backup_of_a_destroyed_box_is_kept_for_thirty_days(
    session, store, keeper, box
):
    backup = await saved(session, keeper, box, reason=Reason.FINAL)
    await retaining.keep_after_end(session, box)
    await session.commit()
    expires_at = (await row(session, backup.id)).expires_at
    assert expires_at - await business_now(session) > timedelta(days=29)
    backup.expires_at = await business_now(session) - timedelta(seconds=1)
    session.add(backup)
    await session.commit()
    assert await retaining.retain() == 1
    assert stored(store) == []


async def test_who_is_deleted_leaves_no_key_and_no_object(session, store, keeper, box):
    backup = await saved(session, keeper, box)
    await retaining.shred(session, box.id)
    await session.commit()
    assert (await row(session, backup.id)).key_ct is None
    assert await listing.list_backups(session, box.customer_id, box.id) == []
    assert await retaining.retain() == 1
    assert stored(store) == []


def test_a_token_says_what_it_is_for():
    backup_id = uuid4()
    token = addresses.make_token(backup_id, Way.SAVE, "t", 5)
    assert addresses.check_token(token, backup_id, Way.SAVE).most_bytes == 5
    with pytest.raises(addresses.AddressError):
        addresses.check_token(token.replace(".5.", ".9."), backup_id, Way.SAVE)
