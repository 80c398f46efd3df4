"""Assistants are upgraded from a shell, one first, and no further than the first that goes back."""

from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web import cli
from openclaw_web.accounts.models import AuditLog
from openclaw_web.billing.models import Subscription, SubscriptionStatus
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError, ValidationError
from openclaw_web.core.settings import settings
from openclaw_web.jobs.models import JobType, OperatorJob
from openclaw_web.local import fleet
from tests.factories import make_box, make_customer, make_subscription

OLD, NEW = "openclaw/openclaw:1", "openclaw/openclaw:2"
WHY = "A hole in the old one."
EMAIL = "owner@example.com"


@pytest.fixture
async def chosen(database, valkey_server, monkeypatch):
    """Return settings that name the servers of this test; each act opens and closes them."""
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.0)
    await close_database()
    yield replace(settings(), database_url=database, redis_url=valkey_server.url)
    open_database(database)


async def boxes_of(chosen, *statuses):
    open_database(chosen.database_url)
    async with session_scope() as session:
        for status in statuses:
            await make_box(session, status=status, image=OLD)
    await close_database()


async def a_box(chosen, **fields):
    open_database(chosen.database_url)
    async with session_scope() as session:
        customer = await make_customer(session, email=EMAIL)
        subscription = await make_subscription(session, customer=customer, **fields)
        box = await make_box(session, subscription=subscription, image=OLD)
    await close_database()
    return box


async def end(outcome):
    """Do what the workers would: end every upgrade that waits, in the database that is open."""
    async with session_scope() as session:
        waiting = col(BoxRevision.outcome) == RevisionOutcome.PENDING.value
        done = await session.exec(
            sa.update(BoxRevision)
            .where(waiting)
            .values(outcome=outcome.value)
            .returning(col(BoxRevision.box_id))
        )
        ids: list[UUID] = [row.box_id for row in done.all()]
        if outcome is RevisionOutcome.APPLIED:
            await session.exec(sa.update(Box).where(col(Box.id).in_(ids)).values(image=NEW))
    return len(ids)


async def test_one_goes_first_then_so_many_at_once_and_those_asleep_when_they_wake(chosen):
    await boxes_of(chosen, *[BoxStatus.ACTIVE] * 4, BoxStatus.SUSPENDED, BoxStatus.DESTROYED)
    told, sizes = [], []
    async with aclosing(fleet.upgrade_all(chosen, NEW, reason=WHY, at_once=2)) as lines:
        async for line in lines:
            told.append(line)
            if "on their way" in line:
                sizes.append(await end(RevisionOutcome.APPLIED))
    assert sizes == [1, 2, 1]
    assert told[-2:] == ["4 assistants are done.", "1 that sleep take it when they wake."]
    open_database(chosen.database_url)
    async with session_scope() as session:
        lines_of_audit = (await session.exec(select(AuditLog))).all()
    await close_database()
    assert [(one.action, one.reason) for one in lines_of_audit] == [("box.upgrade", WHY)] * 5
    again = [line async for line in fleet.upgrade_all(chosen, NEW, reason=WHY, at_once=2)]
    assert again == ["0 assistants are done.", "0 that sleep take it when they wake."]


async def test_the_first_that_goes_back_stops_the_rest(chosen):
    await boxes_of(chosen, *[BoxStatus.ACTIVE] * 3)
    upgrading = fleet.upgrade_all(chosen, NEW, reason=WHY, at_once=2)
    assert await anext(upgrading) == f"1 on their way to {NEW}."
    await end(RevisionOutcome.FAILED)
    with pytest.raises(OpenClawError, match="1 of 1 did not work"):
        await anext(upgrading)
    open_database(chosen.database_url)
    async with session_scope() as session:
        assert len((await session.exec(select(OperatorJob))).all()) == 1
    await close_database()


async def test_what_takes_too_long_stops_the_rest(chosen, monkeypatch):
    await boxes_of(chosen, *[BoxStatus.ACTIVE] * 2)
    monkeypatch.setattr(fleet, "PATIENCE_SECONDS", 0.0)
    upgrading = fleet.upgrade_all(chosen, NEW, reason=WHY, at_once=2)
    await anext(upgrading)
    with pytest.raises(OpenClawError, match="1 of 1 have not ended"):
        await anext(upgrading)


async def test_one_is_upgraded_and_shown(chosen):
    with pytest.raises(NotFoundError):
        await fleet.show(chosen, EMAIL)
    await a_box(chosen)
    with pytest.raises(ValidationError, match="reason"):
        await fleet.upgrade(chosen, EMAIL, NEW, reason="")
    await fleet.upgrade(chosen, EMAIL, NEW, reason=WHY)
    assert (await fleet.show(chosen, EMAIL)).endswith(f"active  {OLD}, then {NEW}")
    with pytest.raises(ValidationError, match="already"):
        await fleet.upgrade(chosen, EMAIL, NEW, reason=WHY)


async def test_only_what_nobody_pays_for_is_deleted(chosen):
    box = await a_box(chosen)
    with pytest.raises(ValidationError, match="plan goes on"):
        await fleet.destroy(chosen, EMAIL, reason=WHY)
    open_database(chosen.database_url)
    async with session_scope() as session:
        subscription = await session.get_one(Subscription, box.subscription_id)
        subscription.status = SubscriptionStatus.CANCELLED
        session.add(subscription)
    await close_database()
    await fleet.destroy(chosen, EMAIL, reason=WHY)
    open_database(chosen.database_url)
    async with session_scope() as session:
        (job,) = (await session.exec(select(OperatorJob))).all()
        (line,) = (await session.exec(select(AuditLog))).all()
    await close_database()
    assert (job.job_type, line.action, line.reason) == (JobType.DESTROY, "box.destroy", WHY)


@pytest.mark.parametrize(
    "words",
    [[], ["--all"], ["--all", "--destroy"], ["--all", "--email", EMAIL, "--upgrade", NEW]],
    ids=str,
)
def test_the_command_wants_one_or_all(words, capsys):
    assert cli.main(["admin", "box", *words, "--reason", WHY]) == cli.FAILED
    assert "Name one" in capsys.readouterr().err


def test_nothing_is_deleted_without_a_yes(capsys):
    words = ["admin", "box", "--email", EMAIL, "--destroy", "--reason", WHY]
    assert cli.main(words) == cli.FAILED
    assert capsys.readouterr().out == "Nothing was changed.\n"
