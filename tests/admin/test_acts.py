"""What an admin does from the overview: with a reason, written down, and not by anybody else."""

from uuid import uuid4

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog, CustomerAuth, Role
from openclaw_web.admin.acts import AdminActs
from openclaw_web.admin.state import AdminState
from openclaw_web.boxes.memory.backups import ALERT_FINAL
from openclaw_web.core.database import session_scope
from openclaw_web.jobs import leases, service
from openclaw_web.jobs.models import Alert, JobStatus, JobType, OperatorJob
from tests.factories import make_box
from tests.ui.tab import Tab, admin_cookie, customer_cookie, in_app, running_app

WHY = {"reason": "seen on the phone"}


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {"/admin": AdminState.load}) as client:
        yield client


@pytest.fixture
def tab(client):
    with Tab(client, "/admin", AdminActs, cookie=admin_cookie(client, "root@example.com")) as tab:
        tab.open()
        yield tab


async def queue():
    async with session_scope() as session:
        box = await make_box(session)
        return await service.request_job(
            session,
            customer_id=box.customer_id,
            box_id=box.id,
            job_type=JobType.UPDATE,
            requested_by="test",
        )


async def claim():
    async with session_scope() as session:
        claimed = await leases.claim_job(session, owner="a")
        assert claimed is not None


async def fail():
    async with session_scope() as session:
        claimed = await leases.claim_job(session, owner="a")
        assert claimed is not None
        await leases.fail_job(session, claimed.fence, code="quota", detail="full", can_retry=False)


async def alert(code="orphan_namespace", subject="customer-x"):
    async with session_scope() as session:
        await service.raise_alert(session, code=code, subject=subject)


async def running_box():
    async with session_scope() as session:
        return (await make_box(session)).id


async def rows(model):
    async with session_scope() as session:
        return list((await session.exec(select(model))).all())


def state_of(tab, name):
    return tab.shown.get(f"{AdminState.get_name()}.{name}")


def do(tab, act, target, reason=None):
    tab.does(AdminActs.ask, act=act, target=str(target), about="it")
    return tab.does(AdminActs.confirm, form=WHY if reason is None else reason)


def test_a_waiting_job_is_cancelled_with_a_reason(client, tab):
    job = in_app(client, queue)
    tab.does(AdminState.load)
    assert [row["may"] for row in state_of(tab, "jobs")] == ["cancel"]
    assert "It is being cancelled." in do(tab, "cancel", job.id)
    assert tab.sees("is_asking") is False
    (now,) = in_app(client, rows, OperatorJob)
    assert now.status is JobStatus.FAILED
    lines = [row for row in in_app(client, rows, AuditLog) if row.action == "job.cancel"]
    assert [line.reason for line in lines] == [WHY["reason"]]


def test_a_failed_job_is_tried_again(client, tab):
    job = in_app(client, queue)
    in_app(client, fail)
    tab.does(AdminState.load)
    assert [row["may"] for row in state_of(tab, "jobs")] == ["retry"]
    do(tab, "retry", job.id)
    assert {one.status for one in in_app(client, rows, OperatorJob)} >= {JobStatus.QUEUED}


def test_a_running_job_is_taken_from_its_worker(client, tab):
    job = in_app(client, queue)
    in_app(client, claim)
    tab.does(AdminState.load)
    assert [row["may"] for row in state_of(tab, "jobs")] == ["cancel release"]
    do(tab, "release", job.id)
    taken = next(one for one in in_app(client, rows, OperatorJob) if one.id == job.id)
    assert taken.status is not JobStatus.RUNNING


def test_an_alert_is_closed(client, tab):
    in_app(client, alert)
    tab.does(AdminState.load)
    (shown,) = state_of(tab, "alerts")
    assert "It is closed." in do(tab, "resolve", shown["id"])
    assert [one.resolved_at is not None for one in in_app(client, rows, Alert)] == [True]
    do(tab, "resolve", shown["id"])
    assert tab.sees("problem") == "This alert is closed already."


def test_a_box_is_looked_at_restarted_and_given_a_new_token(client, tab):
    box_id = in_app(client, running_box)
    tab.does(AdminState.load)
    (shown,) = (row for row in state_of(tab, "customers") if row["box_id"] == str(box_id))
    assert shown["may"] == "check converge restart rotate"
    assert "The operator looks at it." in do(tab, "check", box_id)
    assert "It restarts." in do(tab, "restart", box_id)
    assert "It gets a new token." in do(tab, "rotate", box_id)
    jobs = {job.job_type: job.payload for job in in_app(client, rows, OperatorJob)}
    assert set(jobs) == {JobType.HEALTH_CHECK, JobType.UPDATE}
    assert set(jobs[JobType.UPDATE]["actions"]) >= {"restart", "rotate"}


def test_what_an_alert_asks_for_is_decided(client, tab):
    in_app(client, running_box)
    in_app(client, alert, "many_boxes_unhealthy", "default")
    tab.does(AdminState.load)
    (shown,) = state_of(tab, "alerts")
    assert shown["answer"] == "The incident is over"
    assert "The workers see it" in do(tab, "answer", shown["id"])
    assert "incident.ended" in [row.action for row in in_app(client, rows, AuditLog)]
    do(tab, "answer", shown["id"])
    assert tab.sees("problem") == "This alert is closed already."


def test_an_alert_that_asks_for_nothing_has_no_answer(client, tab):
    in_app(client, alert)
    tab.does(AdminState.load)
    (shown,) = state_of(tab, "alerts")
    assert shown["answer"] == ""
    do(tab, "answer", shown["id"])
    assert "asks for nothing" in tab.sees("problem")


def test_beside_a_last_backup_that_fails_stands_what_ends_the_wait(client, tab):
    in_app(client, alert, ALERT_FINAL)
    tab.does(AdminState.load)
    assert [row["may"] for row in state_of(tab, "alerts")] == ["give_up"]


def test_only_a_last_backup_that_fails_is_given_up(client, tab):
    in_app(client, alert)
    tab.does(AdminState.load)
    (shown,) = state_of(tab, "alerts")
    assert shown["may"] == ""
    do(tab, "give_up", shown["id"])
    assert tab.sees("problem") == "Only a last backup that fails can be given up."
    assert in_app(client, rows, OperatorJob) == []


@pytest.mark.parametrize("reason", [{}, {"reason": " "}, {"reason": 5}, {"reason": "x"}])
def test_without_a_reason_nothing_happens(client, tab, reason):
    job = in_app(client, queue)
    do(tab, "cancel", job.id, reason)
    assert "needs a reason" in tab.sees("problem")
    assert [one.status for one in in_app(client, rows, OperatorJob)] == [JobStatus.QUEUED]


@pytest.mark.parametrize("target", ["00000000-0000-4000-8000-000000000000", "x", ""])
def test_what_is_not_there_is_said(tab, target):
    do(tab, "cancel", target)
    assert tab.sees("problem")


def test_an_act_that_does_not_exist_is_not_asked_for(tab):
    tab.does(AdminActs.ask, act="destroy", target=str(uuid4()), about="it")
    assert not tab.sees("is_asking")


def test_support_sees_and_does_nothing(client):
    job = in_app(client, queue)
    cookie = admin_cookie(client, "help@example.com")

    async def demote():
        async with session_scope() as session:
            found = await session.exec(select(CustomerAuth).where(CustomerAuth.role == Role.ADMIN))
            found.one().role = Role.SUPPORT

    in_app(client, demote)
    with Tab(client, "/admin", AdminActs, cookie=cookie) as tab:
        tab.open()
        do(tab, "cancel", job.id)
        assert tab.sees("problem") == "Only an admin may do this."
    assert [one.status for one in in_app(client, rows, OperatorJob)] == [JobStatus.QUEUED]


def test_a_customer_gets_nowhere(client):
    job = in_app(client, queue)
    cookie = customer_cookie(client, "ada@example.com")
    with Tab(client, "/admin", AdminActs, cookie=cookie) as tab:
        tab.open()
        do(tab, "cancel", job.id)
        assert not tab.sees("is_asking")
    assert [one.status for one in in_app(client, rows, OperatorJob)] == [JobStatus.QUEUED]
