"""Many failures at once are one fault: then we stop, tell an admin, and wait."""

from datetime import timedelta
from functools import partial

import pytest

from openclaw_web.accounts.models import AuditLog
from openclaw_web.billing import entitlement, holds, queries
from openclaw_web.billing.models import HoldKind, Subscription, SubscriptionStatus, Tier
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription
from openclaw_web.jobs.leases import claim_job
from openclaw_web.jobs.models import JobType, OperatorJob
from openclaw_web.workflows import brakes, subscription_mails
from openclaw_web.workflows import subscription as workflow
from openclaw_web.workflows.brakes import FEWEST, Brake, Switch
from tests.billing.buying import only, rows
from tests.factories import make_box, make_subscription
from tests.workflows.money_world import later, open_alerts

pytestmark = pytest.mark.usefixtures("database", "redis")
BY = {"by": "admin:test", "reason": "It was Stripe's fault."}


async def act(brake: Brake = Brake.REFUNDS) -> bool:
    async with session_scope() as session:
        return await brakes.passes(session, brake, now=await business_now(session))


async def test_a_few_pass_and_one_more_trips_the_brake():
    assert [await act() for _ in range(FEWEST + 2)] == [True] * FEWEST + [False, False]
    assert await open_alerts() == {"brake_refunds"}
    await later(timedelta(days=3))
    assert not await act()


async def test_an_hour_later_as_many_pass_again():
    for _ in range(FEWEST):
        assert await act()
    await later(timedelta(hours=1, seconds=1))
    assert await act()
    assert await open_alerts() == set()


async def test_only_an_admin_with_a_reason_releases_it():
    while await act():
        pass
    async with session_scope() as session:
        with pytest.raises(ValidationError):
            await brakes.release(session, Brake.REFUNDS, by="admin:test", reason=" ")
        assert await brakes.release(session, Brake.REFUNDS, **BY)
    assert await act()
    assert await open_alerts() == set()
    assert [line.action for line in await rows(AuditLog)] == ["brake.released.refunds"]


async def test_with_many_customers_a_tenth_of_them_may_pass():
    async with session_scope() as session:
        for _ in range(10 * (FEWEST + 1)):
            await make_subscription(session)
    assert [await act() for _ in range(FEWEST + 2)] == [True] * (FEWEST + 1) + [False]


async def test_a_hold_is_placed_once_and_released_once():
    async with session_scope() as session:
        customer = (await make_subscription(session)).customer_id
        place = partial(holds.place, session, customer_id=customer, kind=HoldKind.ADMIN, by="t")
        made = [await place(reason="A look.") for _ in range(2)]
        assert made[0].id == made[1].id
        release = partial(holds.release, session, customer_id=customer, kind=HoldKind.ADMIN)
        assert [await release(by="t") for _ in range(2)] == [True, False]
        again = await place(reason="Another.")
        assert again.id != made[0].id
    actions = [line.action for line in await rows(AuditLog)]
    assert actions == ["hold.placed.admin", "hold.released.admin", "hold.placed.admin"]


async def lapsed_customers(count: int) -> list[Subscription]:
    """Return subscriptions whose grace ended a moment ago."""
    async with session_scope() as session:
        now = await business_now(session)
        return [
            await make_subscription(
                session,
                status=SubscriptionStatus.PAST_DUE,
                past_due_since=now - timedelta(days=8),
                grace_until=now - timedelta(minutes=1),
            )
            for _ in range(count)
        ]


def unpaid(row: Subscription) -> workflow.Found:
    """Return what Stripe says of a subscription that it has given up on."""
    subscription = StripeSubscription(
        id=row.stripe_subscription_id or "",
        stripe_customer_id="cus_1",
        status="unpaid",
        price_id="price_1",
        price_lookup_key="openclaw_starter_monthly",
        price_tier=Tier.STARTER,
        period_start=row.current_period_start,
        period_end=row.current_period_end,
        cancel_at_period_end=False,
        trial_end=None,
        created=row.current_period_start,
    )
    no_invoices: tuple[StripeInvoice, ...] = ()
    return workflow.Found(subscriptions=(subscription,), invoices=no_invoices, page=None)


async def lapse(row: Subscription) -> bool:
    """Write down what Stripe says, and say whether the customer is served afterwards."""
    async with session_scope() as session:
        now = await business_now(session)
        await workflow._write(session, row.customer_id, unpaid(row), now)  # noqa: SLF001 - one step
        return entitlement.entitled(await session.get_one(Subscription, row.id), now)


async def test_a_wave_of_suspensions_stops_and_the_rest_is_served_on():
    customers = await lapsed_customers(FEWEST + 2)
    served = [await lapse(one) for one in customers]
    assert served == [False] * FEWEST + [True, True]
    assert await open_alerts() == {"brake_suspensions"}
    async with session_scope() as session:
        await brakes.release(session, Brake.SUSPENSIONS, **BY)
    assert not await lapse(customers[-1])


async def test_while_suspensions_are_braked_nobody_is_told_that_a_grace_ends():
    while await act(Brake.SUSPENSIONS):
        pass
    (customer,) = await lapsed_customers(1)
    assert await lapse(customer)
    assert await subscription_mails.send_reminders() == 0


async def test_whoever_the_brake_serves_on_is_looked_at_before_that_ends():
    while await act(Brake.SUSPENSIONS):
        pass
    (customer,) = await lapsed_customers(1)
    assert await lapse(customer)
    async with session_scope() as session:
        assert await queries.any_customers_to_sync(session, await business_now(session)) == []
    await later(brakes.PROLONGED_BY - queries.POLL_AFTER + timedelta(seconds=1))
    async with session_scope() as session:
        now = await business_now(session)
        assert entitlement.entitled(await session.get_one(Subscription, customer.id), now)
        assert await queries.any_customers_to_sync(session, now) == [customer.customer_id]


@pytest.mark.parametrize("status", [SubscriptionStatus.PAST_DUE, SubscriptionStatus.ACTIVE])
async def test_the_release_of_the_brake_looks_at_everybody_it_held_back(status):
    while await act(Brake.SUSPENSIONS):
        pass
    async with session_scope() as session:
        customer = await make_subscription(session, status=status)
    assert await lapse(customer)
    assert await workflow.due_syncs() == []
    async with session_scope() as session:
        await brakes.release(session, Brake.SUSPENSIONS, **BY)
    assert await workflow.due_syncs() == [customer.customer_id]


async def test_a_hold_suspends_even_while_the_brake_is_on():
    while await act(Brake.SUSPENSIONS):
        pass
    (customer,) = await lapsed_customers(1)
    async with session_scope() as session:
        await holds.place(
            session, customer_id=customer.customer_id, kind=HoldKind.ABUSE, reason="Spam.", by="t"
        )
    assert not await lapse(customer)


@pytest.mark.parametrize("job_type", [JobType.PROVISION, JobType.UPDATE])
async def test_while_provisioning_is_paused_nothing_new_is_set_up(job_type):
    async with session_scope() as session:
        box = await make_box(session)
        session.add(
            OperatorJob(customer_id=box.customer_id, box_id=box.id, job_type=job_type, payload={})
        )
        await brakes.turn(session, Switch.PROVISIONING_PAUSED, is_on=True, **BY)
    async with session_scope() as session:
        assert await claim_job(session, owner="test") is None
        await brakes.turn(session, Switch.PROVISIONING_PAUSED, is_on=False, **BY)
    async with session_scope() as session:
        claimed = await claim_job(session, owner="test")
    assert claimed is not None
    assert claimed.job.id == (await only(OperatorJob)).id
