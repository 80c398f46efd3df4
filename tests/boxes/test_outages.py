"""Who hears that an assistant does not answer, and when: moved clocks, no waiting."""

from datetime import timedelta

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import OutboxMail
from openclaw_web.boxes import health, incidents, outages
from openclaw_web.boxes.health import Sight
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.sweeping import observe
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations.cluster_objects import NamespaceState, PodView
from openclaw_web.jobs.models import Alert, JobStatus, OperatorJob
from openclaw_web.workflows import provisioning
from tests.factories import make_box, now

pytestmark = pytest.mark.usefixtures("database", "redis")
READY = PodView(
    name="openclaw-1",
    namespace="n",
    phase="Running",
    is_ready=True,
    is_terminating=False,
    restarts=0,
    reason="",
    message="",
    address="",
)


async def a_box(**fields):
    async with session_scope() as session:
        return await make_box(session, activated_at=now(), **fields)


async def see(box, pod=None, *, times=1):
    sight = Sight(state=NamespaceState.ACTIVE, uid="u1", pod=pod)
    for _ in range(times):
        await observe(box.k8s_namespace, sight, provisioning.box_changed, is_strike=True)


async def pass_by(**span):
    async with session_scope() as session:
        await advance_clock(session, timedelta(**span).total_seconds(), by="test")


async def tell():
    """Turn the timer twice: the second time must add nothing."""
    for _ in range(2):
        await provisioning.tell_of_outages()


async def every(table):
    async with session_scope() as session:
        return (await session.exec(select(table))).all()


async def mails():
    return sorted(mail.kind for mail in await every(OutboxMail))


async def test_a_customer_hears_after_two_more_minutes_and_again_when_it_is_back():
    box = await a_box()
    await see(box, times=health.FAILURES_ALLOWED)
    await tell()
    await pass_by(minutes=1, seconds=55)
    await tell()
    assert await mails() == []
    await pass_by(seconds=10)
    await tell()
    assert await mails() == ["box_unhealthy"]
    await finish_jobs()
    await see(box, READY)
    assert await mails() == ["box_recovered", "box_unhealthy"]


async def test_what_recovers_meanwhile_is_told_to_nobody():
    box = await a_box()
    await see(box, times=health.FAILURES_ALLOWED)
    await finish_jobs()
    await see(box, READY)
    await pass_by(minutes=3)
    await tell()
    assert await mails() == []


async def test_each_outage_has_a_mail_of_its_own():
    box = await a_box()
    for _ in range(2):
        await see(box, times=health.FAILURES_ALLOWED)
        await pass_by(minutes=3)
        await tell()
        await finish_jobs()
        await see(box, READY)
    assert await mails() == ["box_recovered", "box_recovered", "box_unhealthy", "box_unhealthy"]


async def test_a_box_that_its_customer_paused_meanwhile_is_no_outage():
    box = await a_box()
    await see(box, times=health.FAILURES_ALLOWED)
    async with session_scope() as session:
        box = await session.merge(box)
        await session.refresh(box)
        box.user_paused_at = now()
    await pass_by(minutes=3)
    await tell()
    assert await mails() == []


async def test_many_at_once_are_an_incident_with_a_banner_and_one_alert_and_no_mail():
    boxes = [await a_box() for _ in range(8)]
    for box in boxes:
        await see(box, times=health.FAILURES_ALLOWED)
    await pass_by(minutes=30)
    await tell()
    assert await mails() == []
    assert [one.code for one in await open_alerts(incidents.ALERT)] == [incidents.ALERT]
    async with session_scope() as session:
        assert await incidents.banner(session, boxes[0].customer_id) == incidents.BANNER
    assert len(await every(OperatorJob)) == incidents.MINIMUM - 1  # those before it was one


async def test_an_incident_ends_by_itself_and_what_is_left_is_told():
    boxes = [await a_box() for _ in range(40)]
    for box in boxes[:6]:
        await see(box, times=health.FAILURES_ALLOWED)
    await pass_by(minutes=20)
    await tell()
    assert await mails() == []
    await finish_jobs()
    for box in boxes[:4]:
        await see(box, READY)
    await tell()
    assert await mails() == ["box_unhealthy", "box_unhealthy"]
    assert await open_alerts(incidents.ALERT) == []
    async with session_scope() as session:
        assert await incidents.banner(session, boxes[0].customer_id) == ""


async def test_a_suspension_ends_an_outage_without_a_word():
    box = await a_box(status=BoxStatus.UNHEALTHY, health={"outage_told": "then"})
    async with session_scope() as session:
        box = await session.merge(box)
        assert outages.forget_told(session, box) == "then"
        assert outages.forget_told(session, box) == ""


async def open_alerts(code):
    return [one for one in await every(Alert) if one.code == code and one.resolved_at is None]


async def finish_jobs():
    async with session_scope() as session:
        for job in (await session.exec(select(OperatorJob))).all():
            job.status = JobStatus.COMPLETE
            session.add(job)
