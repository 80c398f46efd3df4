"""What a look at Stripe does to a box that an admin is about to delete."""

import pytest

from openclaw_web.billing.facts import Decision, Desired
from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.boxes import queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.desired import Desired as BoxDesired
from openclaw_web.core.database import session_scope
from openclaw_web.jobs.models import JobType
from openclaw_web.workflows import subscription_effects as effects
from openclaw_web.workflows.subscription_mails import Before
from tests.factories import make_box, make_subscription

pytestmark = pytest.mark.usefixtures("database", "redis")


def nothing_new(subscription) -> Decision:
    return Decision(
        stripe_subscription_id=subscription.stripe_subscription_id,
        stripe_price_id=None,
        stripe_status="active",
        status=SubscriptionStatus.ACTIVE,
        tier=subscription.tier,
        tokens_limit=subscription.tokens_limit,
        period_start=subscription.current_period_start,
        period_end=subscription.current_period_end,
        is_period_paid=True,
        is_entitled=True,
        desired=Desired.ACTIVE,
        cancel_at_period_end=False,
        trial_end=None,
        past_due_since=None,
        grace_until=None,
        pending_tier=None,
        delete_after=None,
    )


async def test_a_look_at_stripe_does_not_take_an_admins_deletion_back():
    async with session_scope() as session:
        subscription = await make_subscription(session)
        box = await make_box(session, subscription=subscription)
        await boxes.request_converge(session, box, job_type=JobType.DESTROY, requested_by="admin")
    async with session_scope() as session:
        await effects.carry_out(
            session,
            subscription,
            nothing_new(subscription),
            before=Before.of(subscription),
        )
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id)
        assert (await queries.desired_of(session, box))[0] is BoxDesired.DESTROYED
