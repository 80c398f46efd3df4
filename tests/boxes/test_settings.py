"""Saving settings: generations, how often, together with what else, and what goes back."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web import worker
from openclaw_web.billing.models import Subscription, Tier
from openclaw_web.boxes import failures, queries, rendering, service, upgrading
from openclaw_web.boxes.changes import ChangeKind
from openclaw_web.boxes.goals import TRYING
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.rendering import UnusableSettingsError
from openclaw_web.boxes.runs import NotReadyError
from openclaw_web.boxes.service import CUSTOMER, RESTART_MARK, Bot, BoxSettings
from openclaw_web.core.clock import real_now
from openclaw_web.core.errors import NotFoundError, SettingsError, ValidationError
from openclaw_web.core.settings import settings
from openclaw_web.jobs import leases
from openclaw_web.jobs import queries as job_queries
from openclaw_web.jobs.models import Alert, JobStatus, OperatorJob
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import ProxyToken
from tests.factories import make_subscription, now

pytestmark = pytest.mark.usefixtures("redis")
ONE = (111222333,)
LEVELS = ("off", "minimal", "low", "high", "xhigh", "max", "medium")


@pytest.fixture
async def box(session):
    """Return a box that runs its first settings."""
    subscription = await make_subscription(session)
    made = await service.create_box(
        session,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        settings=BoxSettings(telegram_user_ids=ONE),
        bot=Bot(token="1:x", bot_id=1, username="a_bot"),  # noqa: S106 - no bot has it
    )
    made.status = BoxStatus.ACTIVE
    revision = await session.get_one(BoxRevision, (made.id, 1))
    revision.outcome = RevisionOutcome.APPLIED.value
    session.add_all([made, revision])
    await session.flush()
    return made


async def save(session, box, level="high", by=CUSTOMER, **fields):
    wanted = BoxSettings(telegram_user_ids=ONE, thinking_level=level, **fields)
    return await service.change_settings(session, box, wanted, requested_by=by)


async def test_a_customers_edits_wait_for_each_other_and_become_one_job(session, box):
    first = await save(session, box)
    wait = first.run_after - real_now()
    assert timedelta(seconds=8) < wait <= timedelta(seconds=10)
    second = await save(session, box, level="low")
    assert (second.id, second.run_after, box.generation) == (first.id, first.run_after, 3)
    assert await leases.claim_job(session, owner="a") is None
    await service.request_restart(session, box, requested_by="admin:1")
    claimed = await leases.claim_job(session, owner="a")
    assert claimed is not None
    assert claimed.job.id == first.id


async def test_what_we_change_ourselves_waits_for_nothing(session, box):
    job = await save(session, box, by="sync")
    assert job.run_after <= real_now()


async def test_settings_are_saved_six_times_a_minute(session, box):
    revision = await session.get_one(BoxRevision, (box.id, 1))
    revision.created_at = now() - timedelta(minutes=2)
    await session.flush()
    for level in LEVELS[:6]:
        await save(session, box, level=level)
    with pytest.raises(ValidationError, match="6 times a minute"):
        await save(session, box, level=LEVELS[6])
    await save(session, box, level=LEVELS[6], by="sync")
    await session.exec(sa.update(BoxRevision).values(created_at=now() - timedelta(seconds=61)))
    await save(session, box, level="low")


async def test_saving_the_same_again_is_no_new_generation(session, box):
    await save(session, box, level="medium")
    assert box.generation == 1
    await save(session, box, level="high")
    await save(session, box, level="high")
    assert box.generation == 2


async def test_settings_that_failed_are_tried_again_only_as_newer_ones(session, box):
    await save(session, box)
    faulty = await session.get_one(BoxRevision, (box.id, 2))
    faulty.outcome = RevisionOutcome.FAILED.value
    await session.flush()
    assert (await service.current_settings(session, box)).thinking_level == "medium"
    await save(session, box)
    assert box.generation == 3
    assert faulty.outcome == RevisionOutcome.FAILED.value


async def claimed_attempt(session, box, *, trying):
    box.health = {**box.health, TRYING: trying}
    box.status = BoxStatus.UPDATING
    session.add(box)
    await session.exec(sa.update(OperatorJob).values(run_after=now() - timedelta(seconds=1)))
    claimed = await leases.claim_job(session, owner="a")
    assert claimed is not None
    return claimed


async def fail(session, claimed, code="not_ready"):
    return await failures.attempt_failed(
        session,
        claimed,
        code=code,
        detail="x",
        can_retry=True,
        is_settings_fault=True,
    )


async def test_settings_that_do_not_start_go_back_with_a_new_pod(session, box):
    await save(session, box)
    (change,) = await fail(session, await claimed_attempt(session, box, trying=2))
    assert (change.kind, change.reason) == (ChangeKind.UPDATE_FAILED, "not_ready")
    rendered = await rendering.render(session, box)
    assert (rendered.generation, rendered.is_proven) == (1, True)
    assert rendered.spec.restart == box.health[RESTART_MARK] != ""


async def save_people(session, box, *people):
    wanted = BoxSettings(telegram_user_ids=people)
    await service.change_settings(session, box, wanted, requested_by="sync")


async def test_who_was_taken_off_the_list_stays_out_when_settings_go_back(session, box):
    subscription = await session.get_one(Subscription, box.subscription_id)
    subscription.tier = Tier.PRO
    await session.flush()
    await save_people(session, box, 7, *ONE)
    revision = await session.get_one(BoxRevision, (box.id, 2))
    revision.outcome = RevisionOutcome.APPLIED.value
    await session.flush()
    before = (await rendering.render(session, box)).spec.people_mark
    await save_people(session, box, 7)
    (change,) = await fail(session, await claimed_attempt(session, box, trying=3))
    assert change.kind is ChangeKind.UPDATE_FAILED
    rendered = await rendering.render(session, box)
    assert rendered.generation == 2
    assert str(ONE[0]) not in rendered.spec.config
    assert rendered.spec.people_mark != before
    assert (await service.current_settings(session, box)).telegram_user_ids == (7,)


async def test_nothing_goes_back_to_settings_that_let_in_only_who_was_taken_off(session, box):
    await save_people(session, box, 7)
    claimed = await claimed_attempt(session, box, trying=2)
    await session.exec(sa.update(OperatorJob).values(max_attempts=1))
    (change,) = await fail(session, claimed)
    assert change.kind is ChangeKind.UNHEALTHY
    assert (await session.exec(select(Alert.subject))).all() == [str(box.id)]
    assert (await rendering.render(session, box)).generation == 2


async def test_the_same_image_that_cannot_be_pulled_is_not_the_settings_fault(session, box):
    await save(session, box)
    claimed = await claimed_attempt(session, box, trying=2)
    assert await fail(session, claimed, code="ErrImagePull") == []
    assert (await rendering.render(session, box)).generation == 2


@pytest.mark.parametrize(
    ("error", "attempt", "judged"),
    [
        (NotReadyError("CrashLoopBackOff", blamed_from=1), 1, ("CrashLoopBackOff", True, True)),
        (NotReadyError("not_ready", blamed_from=2), 1, ("not_ready", True, False)),
        (NotReadyError("not_ready", blamed_from=2), 2, ("not_ready", True, True)),
        (NotReadyError("telegram"), 5, ("telegram", True, False)),
        (SettingsError("Set KEY."), 1, ("internal_error", True, False)),
        (NotFoundError("Gone."), 1, ("internal_error", True, False)),
        (UnusableSettingsError("No.", 3), 1, ("bad_settings", False, True)),
    ],
)
def test_only_what_speaks_against_settings_is_their_fault(error, attempt, judged):
    assert worker._judge(error, attempt) == judged  # noqa: SLF001 - no way around a whole cluster


async def test_an_attempt_is_blamed_on_what_it_tried_and_not_on_what_came_meanwhile(session, box):
    await save(session, box)
    claimed = await claimed_attempt(session, box, trying=2)
    await save(session, box, level="low")
    assert await fail(session, claimed) == []
    outcomes = (
        await session.exec(select(BoxRevision.outcome).order_by(col(BoxRevision.generation)))
    ).all()
    assert outcomes == ["applied", "failed", "pending"]
    waiting = (
        await session.exec(select(OperatorJob).where(OperatorJob.status == JobStatus.QUEUED))
    ).one()
    assert waiting.box_id == box.id


async def test_another_image_is_a_generation_that_settings_carry_on(session, box):
    before = (await rendering.render(session, box)).spec.image
    job = await upgrading.request_upgrade(
        session, box, "ghcr.io/openclaw/openclaw:2026.10.1", requested_by="admin:1"
    )
    assert job.payload["actions"] == ["upgrade", "update"]
    assert job.payload["image"] == "ghcr.io/openclaw/openclaw:2026.10.1"
    await save(session, box)
    assert (await rendering.render(session, box)).spec.image.endswith(":2026.10.1")
    for generation in (2, 3):
        faulty = await session.get_one(BoxRevision, (box.id, generation))
        faulty.outcome = RevisionOutcome.FAILED.value
    await session.flush()
    assert (await rendering.render(session, box)).spec.image == before


async def test_settings_that_were_saved_during_an_upgrade_are_not_what_failed(session, box):
    await upgrading.request_upgrade(session, box, "openclaw/openclaw:2", requested_by="admin:1")
    claimed = await claimed_attempt(session, box, trying=2)
    before = box.image or settings().box_image
    await save(session, box)
    assert (await rendering.render(session, box)).spec.image == "openclaw/openclaw:2"
    assert await fail(session, claimed, code="ImagePullBackOff") == []
    rendered = await rendering.render(session, box)
    assert (rendered.generation, rendered.spec.image) == (3, before)
    alert = (await session.exec(select(Alert))).one()
    assert (alert.code, alert.detail["runs"]) == (upgrading.ALERT_TAKEN_BACK, before)


@pytest.mark.parametrize("image", ["", "openclaw", "ghcr.io/x y:1", "../x:1", "x:1; rm"])
async def test_an_image_needs_a_name_and_a_tag(session, box, image):
    with pytest.raises(ValidationError, match="image"):
        await upgrading.request_upgrade(session, box, image, requested_by="admin:1")


async def test_a_rotated_token_goes_on_for_fifteen_minutes_at_most(session, box):
    issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
    job = await service.request_rotation(session, box, requested_by="admin:1")
    assert {"restart", "rotate"} <= set(job.payload["actions"])
    token = await session.get_one(ProxyToken, issued.token_id, populate_existing=True)
    assert token.revoked_at is None
    assert timedelta(minutes=14) < token.expires_at - real_now() <= timedelta(minutes=15)
    assert RESTART_MARK in (await session.get_one(Box, box.id)).health


async def test_what_happens_at_the_limit_is_chosen_without_a_job(session, box):
    assert await service.choose_limit_behaviour(session, box.customer_id, "error") is True
    assert await service.choose_limit_behaviour(session, box.customer_id, "error") is False
    assert box.limit_behaviour == "error"
    with pytest.raises(ValidationError):
        await service.choose_limit_behaviour(session, box.customer_id, "rude")
    assert (await session.exec(select(OperatorJob))).all() == []
    stranger = (await make_subscription(session)).customer_id
    with pytest.raises(NotFoundError):
        await service.choose_limit_behaviour(session, stranger, "polite")


async def test_a_deleted_box_takes_no_settings(session, box):
    box.status = BoxStatus.DESTROYED
    await session.flush()
    with pytest.raises(ValidationError, match="deleted"):
        await save(session, box)
    with pytest.raises(ValidationError, match="deleted"):
        await upgrading.request_upgrade(session, box, "x/y:1", requested_by="admin:1")


async def test_who_was_shut_out_stays_marked_until_the_next_one_is(session, box):
    wanted = BoxSettings(telegram_user_ids=(7,))
    await service.change_settings(session, box, wanted, requested_by="sync")
    await service.change_settings(
        session, box, BoxSettings(telegram_user_ids=(7,), language="de"), requested_by="sync"
    )
    target = await queries.find_target_revision(session, box.id)
    assert target is not None
    assert (target.generation, target.spec["removed_at"]) == (3, 2)


async def test_an_edit_that_waits_for_the_next_one_is_not_called_a_failure(session, box):
    await save(session, box)
    standing = await job_queries.queue_standing(session, box.customer_id, box.id)
    assert standing is not None
    assert standing.waiting_because == ""
