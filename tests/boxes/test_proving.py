"""What a model call says about the settings of the box that made it."""

from datetime import timedelta

import pytest
from sqlmodel import select

from openclaw_web.boxes import previews, proving, queries, revisions, service
from openclaw_web.boxes.models import BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.service import RESTART_MARK, BoxSettings
from openclaw_web.jobs.models import JobStatus, OperatorJob
from tests.factories import make_box, now

pytestmark = pytest.mark.usefixtures("redis")
PERSON = 111222333


@pytest.fixture
async def box(session):
    """Return a box that runs its first settings, and has had its second ones written."""
    box = await make_box(session, applied_generation=1, observed_generation=1)
    for generation, level in ((1, "medium"), (2, "high")):
        session.add(
            BoxRevision(
                box_id=box.id,
                generation=generation,
                spec=service.document(
                    BoxSettings(telegram_user_ids=(PERSON,), thinking_level=level)
                ),
                spec_hash=level,
                outcome="applied" if generation == 1 else "pending",
                created_at=now(),
            )
        )
    box.generation = 2
    proving.note_written(box, 2, now=now())
    session.add(box)
    await session.flush()
    return box


async def call(session, box, generation, *, minutes=0.0):
    at = now() + timedelta(minutes=minutes)
    await proving.record_model_call(session, box.id, generation=generation, asked_at=at)
    await session.refresh(box)


async def outcome(session, box, generation):
    return (await session.get_one(BoxRevision, (box.id, generation))).outcome


async def jobs(session):
    return list((await session.exec(select(OperatorJob))).all())


async def test_a_call_with_the_new_generation_proves_it(session, box):
    state = await previews.applied_state(session, box)
    assert state.kind == "waiting_for_proof"
    await call(session, box, 2)
    revision = await session.get_one(BoxRevision, (box.id, 2), populate_existing=True)
    assert revision.outcome == RevisionOutcome.APPLIED.value
    assert (box.applied_generation, box.observed_generation) == (2, 2)
    assert proving.written_at(box, 2) is None
    state = await previews.applied_state(session, box)
    assert (state.kind, state.at) == ("applied", revision.applied_at)
    assert await jobs(session) == []


async def test_an_old_generation_is_no_trouble_within_two_minutes(session, box):
    await call(session, box, 1, minutes=1.9)
    assert await jobs(session) == []
    assert (await previews.applied_state(session, box)).kind == "waiting_for_proof"


async def test_an_old_generation_later_than_that_restarts_the_box_once(session, box):
    await call(session, box, 1, minutes=2.1)
    await session.commit()
    box.agent_ok_at = now() - timedelta(minutes=1)
    await call(session, box, 1, minutes=2.5)
    (job,) = await jobs(session)
    assert (job.status, job.requested_by) == (JobStatus.QUEUED, "reload")
    assert RESTART_MARK in box.health
    assert (await previews.applied_state(session, box)).kind == "applying"


async def test_a_call_from_before_the_write_says_nothing(session, box):
    box.agent_ok_at = now() - timedelta(hours=1)
    await call(session, box, 1, minutes=-10)
    assert await jobs(session) == []


async def test_settings_that_failed_are_never_called_applied(session, box):
    faulty = await session.get_one(BoxRevision, (box.id, 2))
    await revisions.give_up(session, faulty, reason="not_ready")
    await call(session, box, 2)
    assert faulty.outcome == RevisionOutcome.FAILED.value
    assert box.applied_generation == 1
    state = await previews.applied_state(session, box)
    assert state.kind == "rolled_back"
    assert "it did not become ready in time" in state.sentence


async def test_what_was_never_seen_to_work_is_taken_back_with_what_failed(session, box):
    session.add(
        BoxRevision(
            box_id=box.id, generation=3, spec={}, spec_hash="", outcome="pending", created_at=now()
        )
    )
    await session.flush()
    faulty = await session.get_one(BoxRevision, (box.id, 3))
    await revisions.give_up(session, faulty, reason="not_ready")
    between = await session.get_one(BoxRevision, (box.id, 2), populate_existing=True)
    assert between.outcome == RevisionOutcome.ROLLED_BACK.value
    target = await queries.find_target_revision(session, box.id)
    assert target is not None
    assert target.generation == 1


async def test_a_suspended_box_says_when_its_settings_are_applied(session, box):
    box.status = BoxStatus.SUSPENDED
    state = await previews.applied_state(session, box)
    assert (state.kind, state.sentence) == (
        "not_running",
        "Applied when the assistant runs again.",
    )
