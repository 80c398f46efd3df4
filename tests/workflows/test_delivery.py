"""Paid, but no assistant: we keep trying, say so, and after a day the money goes back."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from openclaw_web.accounts.models import OutboxMail
from openclaw_web.billing import deliveries
from openclaw_web.billing.deliveries import PromiseState
from openclaw_web.billing.models import Checkout, Hold, Reversal, Subscription, SubscriptionStatus
from openclaw_web.boxes import failures
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import payment_reversals
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import Alert, JobType, OperatorJob
from openclaw_web.metering.models import UsageEvent
from openclaw_web.onboarding import conversation
from openclaw_web.onboarding.conversation import Known, Step
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession, OnboardingState
from openclaw_web.workflows import brakes, delivery, provisioning, refunding
from openclaw_web.workflows.brakes import Brake, Switch
from tests.billing.buying import Visitor, come_to_pay, only, rows, sync
from tests.billing.stripe_world import StripeWorld
from tests.workflows.money_world import (
    PRICE_CENTS,
    buyer,
    charges_of,
    later,
    open_alerts,
    pay_twice,
    subscription_statuses,
    turn,
)

A_DAY = timedelta(hours=24, minutes=1)


async def unlucky(stripe: StripeWorld, *, code: str = "not_ready") -> Visitor:
    """Return somebody who has paid, and whose box could not be set up in all tries."""
    visitor = await buyer(stripe)
    async with session_scope() as session:
        await session.exec(sa.update(OperatorJob).values(max_attempts=1))
        claimed = await leases.claim_job(session, owner="test")
    assert claimed is not None
    async with session_scope() as session:
        for change in await failures.attempt_failed(
            session, claimed, code=code, detail="A test.", can_retry=True
        ):
            await provisioning.box_changed(session, change)
    return visitor


async def refunded_cents(stripe: StripeWorld, visitor: Visitor) -> int:
    (charge,) = await charges_of(stripe, visitor)
    return charge["amount_refunded"]


async def step() -> Step:
    chat = await only(OnboardingSession)
    return conversation.step_of(chat.state, Known(config=chat.derived_config or {}))


async def promise(visitor: Visitor) -> deliveries.Promise | None:
    async with session_scope() as session:
        return await deliveries.find_promise(session, visitor.id, await business_now(session))


async def why_not() -> str:
    (alert,) = [one for one in await rows(Alert) if one.code == delivery.ALERT]
    return alert.detail["sentence"]


async def test_before_a_day_is_over_we_only_keep_trying_and_say_so(stripe: StripeWorld):
    visitor = await unlucky(stripe)
    await later(timedelta(hours=23))
    await turn()
    assert await refunded_cents(stripe, visitor) == 0
    assert await step() is Step.FAILED
    late = await promise(visitor)
    assert late is not None
    assert late.state is PromiseState.LATE
    kinds = [mail.kind for mail in await rows(OutboxMail)]
    assert kinds.count("provisioning_failed") == 1
    assert await rows(Hold) == []


async def test_after_a_day_the_money_goes_back_once_and_everybody_hears_of_it(
    stripe: StripeWorld,
):
    visitor = await unlucky(stripe)
    await later(A_DAY)
    await delivery.watch_promises()
    assert (await only(Hold)).kind == "refunding"
    assert await step() is Step.REFUNDING
    underway = await promise(visitor)
    assert underway is not None
    assert underway.state is PromiseState.REFUNDING
    for _ in range(3):
        await turn()
    assert await refunded_cents(stripe, visitor) == PRICE_CENTS
    assert await subscription_statuses(visitor) == ["canceled"]
    assert (await only(Subscription)).status is SubscriptionStatus.CANCELLED
    checkout = await only(Checkout)
    assert checkout.refund_id
    assert checkout.refunded_at is not None
    assert (await only(Hold)).released_at is not None
    assert await step() is Step.REFUNDED
    kinds = [mail.kind for mail in await rows(OutboxMail)]
    assert kinds.count("refunded") == 1
    done = await promise(visitor)
    assert done is not None
    assert (done.state, done.refunded_cents) == (PromiseState.REFUNDED, PRICE_CENTS)
    assert delivery.ALERT not in await open_alerts()


async def test_a_box_that_never_lived_is_removed_so_that_its_bot_is_free(stripe: StripeWorld):
    await unlucky(stripe)
    await later(A_DAY)
    await turn()
    box, job = await only(Box), (await rows(OperatorJob))[-1]
    assert job.job_type is JobType.DESTROY
    async with session_scope() as session:
        assert (await boxes.desired_of(session, box))[0] == "destroyed"


async def test_a_box_that_belongs_to_a_newer_plan_by_now_is_kept(stripe: StripeWorld):
    visitor = await unlucky(stripe)
    await later(A_DAY)
    await delivery.watch_promises()
    old = (await only(Subscription)).stripe_subscription_id
    stripe.api("DELETE", f"/subscriptions/{old}")
    await pay_twice(stripe, visitor)
    await sync(visitor.id)
    for _ in range(2):
        await turn()
    assert (await only(Reversal)).refunded_cents == PRICE_CENTS
    assert JobType.DESTROY not in {job.job_type for job in await rows(OperatorJob)}
    async with session_scope() as session:
        assert (await boxes.desired_of(session, await only(Box)))[0] == "active"


async def test_where_nothing_could_be_given_back_nobody_says_so_and_nothing_is_deleted(
    stripe: StripeWorld, monkeypatch
):
    visitor = await unlucky(stripe)
    await later(A_DAY)

    async def disputed(*_arguments, **_fields):
        raise VendorError("Charged back.", can_retry=False, code=refunding.DISPUTED)

    monkeypatch.setattr(payment_reversals, "refund_payment", disputed)
    for _ in range(2):
        await turn()
    assert (await only(Reversal)).finished_at is not None
    assert (await only(Checkout)).refunded_at is None
    assert {refunding.FAILED_ALERT, delivery.ALERT} <= await open_alerts()
    assert JobType.DESTROY not in {job.job_type for job in await rows(OperatorJob)}
    assert "refunded" not in [mail.kind for mail in await rows(OutboxMail)]
    assert await step() is Step.FAILED
    said = await promise(visitor)
    assert said is not None
    assert (said.state, said.is_overdue) == (PromiseState.LATE, True)


async def test_an_admin_who_gives_the_money_back_ends_the_promise_too(stripe: StripeWorld):
    visitor = await unlucky(stripe)
    async with session_scope() as session:
        await brakes.turn(
            session, Switch.REFUND_UNDELIVERED, is_on=False, by="admin:test", reason="A test."
        )
    await later(A_DAY)
    await turn()
    assert delivery.ALERT in await open_alerts()
    async with session_scope() as session:
        await refunding.request_refund(
            session, visitor.id, by="admin:test", reason="It never came.", ends_now=True
        )
    await turn()
    assert delivery.ALERT not in await open_alerts()
    assert (await only(Checkout)).refunded_at is not None
    assert await step() is Step.REFUNDED
    said = await promise(visitor)
    assert said is not None
    assert (said.state, said.refunded_cents) == (PromiseState.REFUNDED, PRICE_CENTS)


async def test_a_checkout_that_breaks_holds_up_no_other_and_no_refund(
    stripe: StripeWorld, monkeypatch
):
    await unlucky(stripe)
    unhappy = await buyer(stripe)
    real = deliveries.lock_checkout

    async def break_for_one(session, checkout_id):
        if checkout_id == unhappy.checkout.id:
            raise KeyError(checkout_id)
        return await real(session, checkout_id)

    monkeypatch.setattr(deliveries, "lock_checkout", break_for_one)
    await later(A_DAY)
    await turn()
    assert (await only(Reversal)).refunded_cents == PRICE_CENTS


async def test_a_payment_without_a_box_is_told_and_given_back_too(stripe: StripeWorld):
    visitor = await come_to_pay()
    async with session_scope() as session:
        await session.delete(await session.get_one(OnboardingSecret, visitor.chat.id))
    stripe.pay(visitor.page)
    await sync(visitor.id)
    await later(timedelta(minutes=11))
    await turn()
    assert (await only(OnboardingSession)).state is OnboardingState.FAILED
    assert "provisioning_failed" in [mail.kind for mail in await rows(OutboxMail)]
    await later(A_DAY)
    await turn()
    assert await refunded_cents(stripe, visitor) == PRICE_CENTS


async def test_what_answers_in_time_is_delivered(stripe: StripeWorld):
    visitor = await unlucky(stripe)
    async with session_scope() as session:
        box = await boxes.get_any_box(session, (await only(Box)).id)
        box.status, box.activated_at = BoxStatus.ACTIVE, await business_now(session)
    await later(A_DAY)
    await turn()
    assert (await only(Checkout)).delivered_at is not None
    assert await refunded_cents(stripe, visitor) == 0
    assert await promise(visitor) is None


async def test_a_bot_token_that_telegram_rejects_is_not_our_failure(stripe: StripeWorld):
    visitor = await unlucky(stripe, code="telegram")
    await later(A_DAY)
    await turn()
    assert await refunded_cents(stripe, visitor) == 0
    assert "bot token" in await why_not()


async def test_used_tokens_are_looked_at_by_hand(stripe: StripeWorld):
    visitor = await unlucky(stripe)
    async with session_scope() as session:
        event = UsageEvent(
            customer_id=visitor.id,
            box_id=(await only(Box)).id,
            timestamp=await business_now(session),
            model="k2p5",
            prompt_tokens=10,
            completion_tokens=1,
        )
        session.add(event)
    await later(A_DAY)
    await turn()
    assert await refunded_cents(stripe, visitor) == 0
    assert "Tokens were used" in await why_not()


@pytest.mark.parametrize(
    ("switch", "is_on"),
    [(Switch.REFUND_UNDELIVERED, False), (Switch.PROVISIONING_PAUSED, True)],
    ids=["switched off", "provisioning paused"],
)
async def test_a_switch_keeps_the_money_until_an_admin_decides(stripe: StripeWorld, switch, is_on):
    visitor = await unlucky(stripe)
    async with session_scope() as session:
        await brakes.turn(session, switch, is_on=is_on, by="admin:test", reason="A test.")
    await later(A_DAY)
    await turn()
    assert await refunded_cents(stripe, visitor) == 0
    assert delivery.ALERT in await open_alerts()
    async with session_scope() as session:
        await brakes.turn(session, switch, is_on=not is_on, by="admin:test", reason="A test.")
    await turn()
    assert await refunded_cents(stripe, visitor) == PRICE_CENTS


async def test_the_sixth_of_a_day_asks_an_admin(stripe: StripeWorld):
    visitor = await unlucky(stripe)
    async with session_scope() as session:
        now = await business_now(session) + A_DAY
        for _ in range(brakes.RULES[Brake.UNDELIVERED].fewest):
            assert await brakes.passes(session, Brake.UNDELIVERED, now=now)
    await later(A_DAY)
    for _ in range(2):
        await turn()
    assert await rows(Reversal) == []
    assert await refunded_cents(stripe, visitor) == 0
    assert {"brake_undelivered_refunds", delivery.ALERT} <= await open_alerts()
    async with session_scope() as session:
        await brakes.release(session, Brake.UNDELIVERED, by="admin:test", reason="A test.")
    await turn()
    assert await refunded_cents(stripe, visitor) == PRICE_CENTS
