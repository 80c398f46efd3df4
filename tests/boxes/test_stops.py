"""A customer stops a box five times an hour, whatever for; what does not stop it stays free."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.boxes import service, stops
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core.errors import ValidationError
from openclaw_web.jobs.models import JobStatus, OperatorJob
from openclaw_web.workflows import box_acts
from openclaw_web.workflows.api_access import By
from tests.factories import make_subscription

pytestmark = pytest.mark.usefixtures("redis")
KNOWN = BoxSettings(telegram_user_ids=(111222333,))


@pytest.fixture
async def by(session):
    """Return the customer of a box that runs."""
    subscription = await make_subscription(session)
    made = await service.create_box(
        session,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        settings=KNOWN,
        bot=Bot(token="1:x", bot_id=1, username="a_bot"),  # noqa: S106 - no bot has it
    )
    made.status = BoxStatus.ACTIVE
    await session.flush()
    return By(customer_id=subscription.customer_id)


async def save(session, by, **fields):
    wanted = replace(KNOWN, **fields)
    await box_acts.change_settings(session, wanted, limit_behaviour="polite", by=by)


async def end_jobs(session):
    await session.exec(sa.update(OperatorJob).values(status=JobStatus.COMPLETE))


async def an_hour_passes(session):
    await end_jobs(session)
    before = col(OperatorJob.created_at) - timedelta(minutes=61)
    await session.exec(sa.update(OperatorJob).values(created_at=before))


async def stop_five_times(session, by):
    for language in ("de", "fr", "es"):
        await save(session, by, language=language)
        await end_jobs(session)
    await box_acts.restart(session, by=by)
    await end_jobs(session)
    await box_acts.pause(session, by=by)
    await end_jobs(session)
    await box_acts.resume(session, by=by)
    await end_jobs(session)


async def test_restarts_pauses_and_settings_that_restart_count_together(session, by):
    await stop_five_times(session, by)
    for act in (box_acts.restart(session, by=by), save(session, by, language="pt")):
        with pytest.raises(ValidationError, match="5 times within the hour"):
            await act
    await save(session, by, language="es", thinking_level="high")
    await an_hour_passes(session)
    await save(session, by, language="pt", thinking_level="high")


async def test_a_pause_is_always_possible_and_one_too_many_lasts(session, by):
    await stop_five_times(session, by)
    assert await box_acts.pause(session, by=by) == box_acts.PAUSED_FOR_LONG
    await end_jobs(session)
    with pytest.raises(ValidationError, match="Resume it later"):
        await box_acts.resume(session, by=by)
    await an_hour_passes(session)
    assert await box_acts.resume(session, by=by) == ""


async def test_what_joins_a_stop_that_waits_is_no_further_one(session, by):
    for _ in range(stops.AN_HOUR - 1):
        await box_acts.restart(session, by=by)
        await end_jobs(session)
    await save(session, by, language="de")
    await save(session, by, language="es")
    await box_acts.restart(session, by=by)
    waiting = await session.exec(
        select(OperatorJob).where(col(OperatorJob.status) == JobStatus.QUEUED)
    )
    assert waiting.one().payload["actions"] == ["restart", "update"]
