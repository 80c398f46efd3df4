"""A smaller plan: who and what would not fit, and what is taken out at the turn."""

from uuid import uuid4

import pytest

from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import fitting
from openclaw_web.boxes.fitting import Misfit
from openclaw_web.boxes.models import Box, BoxRevision
from openclaw_web.core.database import session_scope
from openclaw_web.jobs.models import JobType, OperatorJob
from tests.billing.buying import only, rows
from tests.factories import make_box, make_subscription

PEOPLE = [11, 22, 33]


@pytest.mark.parametrize(
    ("people", "model", "expected"),
    [
        ([11], "kimi-coding/k2p5", None),
        (PEOPLE, "kimi-coding/k2p5", Misfit(people=(22, 33))),
        ([11], "kimi-coding/k3", Misfit(model="k3")),
        (PEOPLE, "k3", Misfit(people=(22, 33), model="k3")),
    ],
    ids=["fits", "too many people", "another model", "both"],
)
def test_what_a_plan_does_not_give_is_named(people, model, expected):
    box = Box(
        customer_id=uuid4(),
        subscription_id=uuid4(),
        k8s_namespace="customer-x",
        telegram_user_ids=people,
        model=model,
    )
    assert fitting.misfit(box, plan_of(Tier.STARTER)) == expected


async def give_box(**fields):
    async with session_scope() as session:
        subscription = await make_subscription(session, tier=Tier.STARTER)
        box = await make_box(session, subscription=subscription, **fields)
        spec = {"use_case": "Plan the week", "style": "warm"}
        session.add(
            BoxRevision(box_id=box.id, generation=1, spec=spec, spec_hash="a", outcome="applied")
        )
    return box


async def fit(box):
    async with session_scope() as session:
        found = await session.get_one(Box, box.id)
        return await fitting.fit(session, found, plan_of(Tier.STARTER), requested_by="test")


@pytest.mark.usefixtures("database", "redis")
async def test_the_first_people_stay_and_the_usual_model_answers():
    box = await give_box(telegram_user_ids=PEOPLE, model="kimi-coding/k3")
    assert await fit(box) == Misfit(people=(22, 33), model="k3")
    kept = await only(Box)
    assert (kept.telegram_user_ids, kept.model) == ([11], "kimi-coding/k2p5")
    newest = max(await rows(BoxRevision), key=lambda one: one.generation)
    assert (newest.spec["use_case"], newest.spec["telegram_user_ids"]) == ("Plan the week", [11])
    assert (await only(OperatorJob)).job_type is JobType.UPDATE


@pytest.mark.usefixtures("database", "redis")
async def test_what_fits_is_left_alone():
    box = await give_box()
    assert await fit(box) is None
    assert await rows(OperatorJob) == []
