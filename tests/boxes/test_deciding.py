from datetime import timedelta
from uuid import uuid4

import pytest

from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import Hold, SubscriptionStatus, Tier
from openclaw_web.boxes import proving, queries, sentences, service
from openclaw_web.boxes.desired import Desired, Why
from openclaw_web.boxes.models import BoxRevision, BoxStatus
from openclaw_web.boxes.sentences import Situation, sentence_of
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core.errors import ValidationError
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import JobType
from tests.factories import make_box, make_subscription, now

pytestmark = pytest.mark.usefixtures("redis")
CLEAR = "123456789:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"
BOT = Bot(token=CLEAR, bot_id=123456789, username="a_bot")
ONE = (111,)


async def create(session, subscription, *, telegram_user_ids=ONE, **fields):
    return await service.create_box(
        session,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        settings=BoxSettings(telegram_user_ids=telegram_user_ids, **fields),
        bot=BOT,
    )


async def test_a_new_box_waits_and_keeps_its_bot_encrypted(session):
    subscription = await make_subscription(session)
    box = await create(session, subscription, use_case="plan my week")
    kept = await queries.find_bot(session, box.id)
    assert kept is not None
    assert box.status is BoxStatus.PENDING
    assert box.k8s_namespace == f"customer-{box.id}"
    assert kept.telegram_token_ct is not None
    assert CLEAR.encode() not in kept.telegram_token_ct
    assert await service.bot_token(session, box.id) == CLEAR
    assert await queries.is_bot_in_use(session, service.bot_fingerprint(CLEAR))
    revision = await session.get_one(BoxRevision, (box.id, 1))
    assert revision.spec["use_case"] == "plan my week"
    assert CLEAR not in str(revision.spec) + repr(BOT)


@pytest.mark.parametrize(
    "fields",
    [
        {"telegram_user_ids": ()},
        {"telegram_user_ids": (1, 1)},
        {"telegram_user_ids": (1, 2)},
        {"model": "kimi-coding/k3"},
        {"thinking_level": "deep"},
    ],
    ids=["nobody", "twice", "too many", "model", "level"],
)
async def test_settings_beyond_the_tier_are_refused(session, fields):
    subscription = await make_subscription(session, tier=Tier.STARTER)
    with pytest.raises(ValidationError):
        await create(session, subscription, **fields)


async def test_every_change_of_settings_is_a_generation_of_its_own(session):
    box = await create(session, await make_subscription(session))
    job = await service.change_settings(
        session, box, BoxSettings(telegram_user_ids=ONE, language="fr"), requested_by="customer"
    )
    assert (job.job_type, box.generation, box.language) == (JobType.UPDATE, 2, "fr")
    revision = await queries.find_target_revision(session, box.id)
    assert revision is not None
    assert revision.generation == 2


async def test_a_destroy_makes_the_deletion_due_and_stops_what_runs(session):
    box = await make_box(session)
    await service.request_converge(session, box, job_type=JobType.UPDATE, requested_by="x")
    claimed = await leases.claim_job(session, owner="a")
    assert claimed is not None
    await service.request_converge(session, box, job_type=JobType.DESTROY, requested_by="x")
    assert await leases.heartbeat(session, claimed.fence) is True
    assert await queries.desired_of(session, box) == (Desired.DESTROYED, Why.DELETION_DUE)


async def test_what_a_box_should_be_comes_from_its_customers_rows(session):
    box = await make_box(session)
    assert await queries.desired_of(session, box) == (Desired.ACTIVE, Why.ENTITLED)
    await service.pause(session, box, requested_by="customer")
    assert await queries.desired_of(session, box) == (Desired.SUSPENDED, Why.PAUSED)
    session.add(Hold(customer_id=box.customer_id, kind="dispute", reason="open"))
    await session.flush()
    assert await queries.desired_of(session, box) == (Desired.SUSPENDED, Why.HOLD)


async def test_an_unpaid_box_is_suspended(session):
    subscription = await make_subscription(session, status=SubscriptionStatus.SUSPENDED)
    box = await make_box(session, subscription=subscription)
    assert await queries.desired_of(session, box) == (Desired.SUSPENDED, Why.NOT_PAID)


async def test_the_first_answer_is_kept_and_a_seen_generation_is_applied(session):
    box = await make_box(session, generation=3)
    await proving.record_model_call(session, box.id, generation=2)
    await session.refresh(box)
    first = box.first_answer_at
    assert (first is not None, box.observed_generation) == (True, 2)
    await proving.record_model_call(session, box.id, generation=9)
    await session.refresh(box)
    assert (box.first_answer_at, box.observed_generation) == (first, 3)


async def test_one_customers_box_is_not_anothers(session):
    mine, theirs = await make_box(session), await make_box(session)
    assert await queries.find_box(session, mine.customer_id, theirs.id) is None
    assert await queries.find_box_of_customer(session, mine.customer_id) is mine
    view = await queries.box_status_view(session, mine.customer_id)
    assert view is not None
    assert view.box_id == mine.id


async def test_a_new_subscription_takes_the_kept_box_over(session):
    old = await make_subscription(session)
    box = await make_box(session, subscription=old, status=BoxStatus.SUSPENDED)
    box.delete_after = now()
    old.status = SubscriptionStatus.CANCELLED
    await session.flush()
    fresh = await make_subscription(session, customer=await customer_of(session, old))
    job = await service.attach_subscription(session, box, fresh, requested_by="sync")
    assert (box.subscription_id, box.delete_after) == (fresh.id, None)
    assert job.job_type is JobType.REACTIVATE


async def customer_of(session, subscription):
    return await session.get_one(Customer, subscription.customer_id)


def test_gateway_tokens_differ_and_are_never_stored():
    first, second = uuid4(), uuid4()
    assert service.gateway_token(first) == service.gateway_token(first)
    assert service.gateway_token(first) != service.gateway_token(second)
    assert len(service.gateway_token(first)) == 64


@pytest.mark.parametrize("status", list(BoxStatus))
@pytest.mark.parametrize(
    "reason", ["", "paused", "namespace_deleted", "OOMKilled", "never_heard_of_it"]
)
def test_no_sentence_shows_a_raw_key(status, reason):
    situation = Situation(
        status=status,
        reason=reason,
        bot_username="a_bot",
        memory_lost_at=now(),
        has_job=True,
        progress="Waiting for the assistant to be ready.",
    )
    sentence = sentence_of(situation)
    assert sentence.endswith(".")
    for raw in ("namespace_deleted", "OOMKilled", "never_heard_of_it"):
        assert raw not in sentence
    assert ("memory was lost" in sentence) is (status not in sentences.GONE)


def test_starting_says_what_is_waited_for():
    situation = Situation(
        status=BoxStatus.PROVISIONING,
        reason="",
        bot_username="",
        memory_lost_at=None,
        has_job=True,
        progress="Waiting for the assistant to be ready.",
    )
    assert sentence_of(situation) == "Starting: waiting for the assistant to be ready."
    assert sentences.trouble("OOMKilled").startswith("it used more memory")


async def test_a_grace_that_just_ended_is_left_to_the_sync_for_ten_minutes(session):
    subscription = await make_subscription(session, status=SubscriptionStatus.PAST_DUE)
    box = await create(session, subscription)
    subscription.grace_until = now() - timedelta(minutes=9)
    assert await queries.desired_of(session, box) == (Desired.ACTIVE, Why.ENTITLED)
    subscription.grace_until = now() - timedelta(minutes=11)
    assert await queries.desired_of(session, box) == (Desired.SUSPENDED, Why.NOT_PAID)
